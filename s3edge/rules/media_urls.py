"""Signed, expiring URLs for objects that the app serves itself."""

import hashlib
import hmac
from collections.abc import Collection
from datetime import datetime

from attrs import field, frozen

from s3edge.rules.keys import is_key, unsigned


MEDIA_PATH = "/media/"

MEDIA_URL_LIFETIME_S = 3600
"""How long a URL can be read: long enough for a client to show a page of results."""

_ROUNDING_S = 300
"""URLs of one object are the same for five minutes, so that caches of images work."""


@frozen
class MediaUrls:
    """
    Makes and recognises the URLs.

    Attributes:
        base_url: Where the app is reached, without a trailing slash.
        secret: Signs; at least 32 random bytes.
        former_base_urls: Where it was reached before; URLs kept from then are still recognised.
    """

    base_url: str
    secret: bytes = field(repr=False)
    former_base_urls: Collection[str] = ()

    def url_for(self, key: str, now: datetime) -> str:
        """Return a URL that can be read for about an hour from ``now``."""
        begun = int(now.timestamp()) // _ROUNDING_S * _ROUNDING_S
        expires = str(begun + _ROUNDING_S + MEDIA_URL_LIFETIME_S)
        signature = self._signature(key, expires)
        return f"{self.base_url}{MEDIA_PATH}{key}?expires={expires}&signature={signature}"

    def key_of(self, url: str) -> str | None:
        """Return the key of a URL made here, whether it can still be read or not."""
        bare = unsigned(url)
        for base_url in (self.base_url, *self.former_base_urls):
            prefix = base_url + MEDIA_PATH
            if bare.startswith(prefix) and is_key(bare.removeprefix(prefix)):
                return bare.removeprefix(prefix)
        return None

    def seconds_left(self, key: str, expires: str, signature: str, now: datetime) -> int:
        """Return for how long a request for this key with these parameters is good; 0 if it is not."""
        given = signature.encode("utf-8", "surrogatepass")
        if not hmac.compare_digest(self._signature(key, expires).encode(), given):
            return 0
        # The signature covers the text, so it is a number that was written here.
        return max(0, int(expires) - int(now.timestamp()))

    def _signature(self, key: str, expires: str) -> str:
        message = f"{key}\n{expires}".encode("utf-8", "surrogatepass")
        return hmac.new(self.secret, message, hashlib.sha256).hexdigest()
