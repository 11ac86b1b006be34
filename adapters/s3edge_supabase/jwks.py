"""
The issuer's public keys, fetched when they are needed.

Supabase's edge caches the key set for 10 minutes, and a new key is published that long before it
signs; an unknown key id is still looked up at once, for issuers that rotate faster.
https://supabase.com/docs/guides/auth/signing-keys
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
import jwt
import msgspec

from s3edge.errors import EdgeError, unavailable


LIFETIME_S = 600.0
"""How long keys are used before they are fetched again; revoking a key takes this long at the most."""

COOLDOWN_S = 30.0
"""At least this long between two fetches, so that made-up key ids do not become requests."""

FETCH_TIMEOUT_S = 4.0

_log = logging.getLogger(__name__)


class JwksCache:
    """
    Keeps the keys of one issuer.

    Args:
        fetch: Returns the JWKS document (RFC 7517); raises ``EdgeError`` or ``OSError``.
    """

    def __init__(self, fetch: Callable[[], Awaitable[bytes]]) -> None:
        self._fetch = fetch
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._single_flight = anyio.Lock()

    async def key(self, kid: str | None) -> jwt.PyJWK | None:
        """
        Return the key of this id, or the only key when the token names none.

        Raises:
            EdgeError: ``SERVICE_UNAVAILABLE`` when no keys were ever fetched, or the set is empty.
        """
        if self._is_stale() or self._lookup(kid) is None:
            await self._refresh()
        if self._fetched_at is None:
            raise unavailable("Sign-in cannot be checked now: the issuer's keys are out of reach.")
        if not self._keys:
            # An outage of ours, not a bad token: Supabase publishes an empty set while a project
            # still signs with its legacy shared secret.
            raise unavailable("Sign-in cannot be checked: the issuer publishes no keys.")
        return self._lookup(kid)

    async def check(self) -> None:
        """
        Return when keys are at hand.

        Raises:
            EdgeError: ``SERVICE_UNAVAILABLE``.
        """
        await self.key(None)

    def _lookup(self, kid: str | None) -> jwt.PyJWK | None:
        if kid is not None:
            return self._keys.get(kid)
        return next(iter(self._keys.values())) if len(self._keys) == 1 else None

    def _is_stale(self) -> bool:
        return self._fetched_at is None or anyio.current_time() - self._fetched_at > LIFETIME_S

    def _may_try(self) -> bool:
        return self._tried_at is None or anyio.current_time() - self._tried_at >= COOLDOWN_S

    async def _refresh(self) -> None:
        """Fetch the keys unless that was tried a moment ago; a failure keeps those that are known."""
        async with self._single_flight:
            # Those who waited for the lock find the work done.
            if not self._may_try():
                return
            self._tried_at = anyio.current_time()
            try:
                with anyio.fail_after(FETCH_TIMEOUT_S):
                    document = await self._fetch()
                self._keys = _parse(document)
            except (EdgeError, OSError, TimeoutError, ValueError) as error:
                _log.warning("the issuer's keys could not be fetched: %s", error)
                if self._fetched_at is None:
                    # Nothing to fall back on, so the next request may try again.
                    self._tried_at = None
                return
            self._fetched_at = self._tried_at


def _parse(document: bytes) -> dict[str, jwt.PyJWK]:
    """
    Return the signing keys of a JWKS document by id.

    Raises:
        ValueError: It is not a JWKS document.
    """
    decoded: Any = msgspec.json.decode(document)
    entries = decoded.get("keys") if isinstance(decoded, dict) else None
    if not isinstance(entries, list):
        message = "the answer is not a JWK set"
        raise ValueError(message)  # noqa: TRY004 - the document is wrong, not a type
    keys = {}
    for entry in entries:
        # A shared secret is never taken from a public document.
        if not isinstance(entry, dict) or entry.get("kty") == "oct":
            continue
        try:
            keys[str(entry.get("kid", ""))] = jwt.PyJWK(entry)
        except jwt.PyJWTError as error:
            _log.warning("a key of the issuer's is left out: %s", error)
    return keys
