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
"""
How long keys are used before they are fetched again.

A revoked key is trusted for this long, and the minute that ``verified.py`` adds: up to 11 minutes after
the issuer stops publishing it, plus the issuer's own cache; longer while the keys cannot be fetched.
"""

COOLDOWN_S = 30.0
"""At least this long between two fetches for unknown key ids: made-up ones must not become requests."""

RETRY_S = 1.0
"""At least this long between a fetch that failed and the next, whoever waits for it."""

STALE_RETRY_S = 10.0
"""The same while old keys serve: nobody has to wait for what is not there."""

FETCH_TIMEOUT_S = 1.5
"""Leaves time for the rest of a request that has to be answered within 5 seconds."""

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
        self._failed_at: float | None = None
        self._looked_up_at: float | None = None
        self._single_flight = anyio.Lock()

    async def key(self, kid: str | None) -> jwt.PyJWK | None:
        """
        Return the key of this id, or the only key when the token names none.

        Raises:
            EdgeError: ``SERVICE_UNAVAILABLE`` when no keys were ever fetched, or the set is empty.
        """
        await self.check(may_be_empty=True)
        if self._lookup(kid) is None:
            await self._refresh(lambda: self._lookup(kid) is None and self._may_look_up())
        self._require_keys()
        return self._lookup(kid)

    async def check(self, *, may_be_empty: bool = False) -> None:
        """
        Return when the keys are at hand.

        Args:
            may_be_empty: Whether an issuer without public keys is as it must be.

        Raises:
            EdgeError: ``SERVICE_UNAVAILABLE``.
        """
        if self._is_stale():
            await self._refresh(self._is_stale)
        if self._fetched_at is None:
            raise unavailable("Sign-in cannot be checked now: the issuer's keys are out of reach.")
        if not may_be_empty:
            self._require_keys()

    def _require_keys(self) -> None:
        if not self._keys:
            # An outage of ours, not a bad token: Supabase publishes an empty set while a project
            # still signs with its legacy shared secret.
            raise unavailable("Sign-in cannot be checked: the issuer publishes no keys.")

    def _lookup(self, kid: str | None) -> jwt.PyJWK | None:
        if kid is not None:
            return self._keys.get(kid)
        return next(iter(self._keys.values())) if len(self._keys) == 1 else None

    def _is_stale(self) -> bool:
        if not self._keys and self._fetched_at is not None:
            # An empty set may be a passing fault of the issuer's, and nobody can sign in with it.
            return _passed(self._fetched_at, RETRY_S)
        if self._keys and not _passed(self._failed_at, STALE_RETRY_S):
            return False
        return self._fetched_at is None or anyio.current_time() - self._fetched_at > LIFETIME_S

    def _may_look_up(self) -> bool:
        """Return whether an unknown key id may be looked up, and take it as looked up."""
        if self._fetched_at is None or not _passed(self._looked_up_at, COOLDOWN_S):
            return False
        self._looked_up_at = anyio.current_time()
        return True

    async def _refresh(self, is_needed: Callable[[], bool]) -> None:
        """Fetch the keys if that is still needed; a failure keeps those that are known."""
        async with self._single_flight:
            # Those who waited for the lock find the work done, or tried a moment ago.
            if not _passed(self._failed_at, RETRY_S) or not is_needed():
                return
            try:
                with anyio.fail_after(FETCH_TIMEOUT_S):
                    document = await self._fetch()
                self._keys = parse_jwks(document)
            except (EdgeError, OSError, TimeoutError, ValueError) as error:
                _log.warning("the issuer's keys could not be fetched: %s", error)
                self._failed_at = anyio.current_time()
                # A rotation during an outage is noticed as soon as that is over.
                self._looked_up_at = None
                return
            self._fetched_at, self._failed_at = anyio.current_time(), None


def _passed(since: float | None, seconds: float) -> bool:
    return since is None or anyio.current_time() - since >= seconds


def parse_jwks(document: bytes) -> dict[str, jwt.PyJWK]:
    """
    Return the signing keys of a JWKS document by id.

    Raises:
        ValueError: It is not a JWKS document.
    """
    try:
        decoded: Any = msgspec.json.decode(document)
    except RecursionError:
        message = "the answer is nested too deeply"
        raise ValueError(message) from None
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
        except (jwt.PyJWTError, TypeError, ValueError, AttributeError) as error:
            _log.warning("a key of the issuer's is left out: %s", type(error).__name__)
    return keys
