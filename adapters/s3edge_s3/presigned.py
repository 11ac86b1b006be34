"""Signed URLs, each kept for a few minutes: a page of results needs up to 200 of them at once."""

from collections import OrderedDict
from datetime import datetime

from attrs import frozen

from s3edge.ports import Clock
from s3edge_s3.signing import Signer


REUSE_S = 300
"""A URL stays the same for so long, so that caches of images work."""

LIFETIME_S = 3600 + REUSE_S
"""How long a fresh URL can be read; one that is handed out again, an hour at least."""

MAX_KEPT = 4096


@frozen
class _Kept:
    url: str
    signed_at: datetime


class PresignedUrls:
    """
    Signs URLs, and hands out the same one for ``REUSE_S`` seconds.

    Args:
        signer: Signs.
        clock: Tells when a kept URL is too old.
    """

    def __init__(self, signer: Signer, clock: Clock) -> None:
        self._signer = signer
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._key_id: str | None = None

    def sign(self, url: str) -> str:
        """
        Return the URL with a signature in its query.

        Raises:
            NoKeyError: As ``Signer``.
        """
        key_id = self._signer.key_id
        if key_id != self._key_id:
            # What a lent key signed ends with it.
            self._kept.clear()
            self._key_id = key_id
        now = self._clock.now()
        kept = self._kept.pop(url, None)
        if kept is None or not 0 <= (now - kept.signed_at).total_seconds() < REUSE_S:
            kept = _Kept(self._signer.presign(url, LIFETIME_S), now)
        self._kept[url] = kept
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return kept.url
