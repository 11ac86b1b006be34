"""Opaque tokens, known only to the process that issued them."""

import secrets
from datetime import datetime, timedelta

from attrs import evolve

from s3edge.errors import Code, EdgeError
from s3edge.ports import Clock
from s3edge.values import User


class MemoryAuthenticator:
    """
    Issues and verifies opaque tokens.

    Args:
        clock: Tells when a token has expired.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._issued: dict[str, tuple[User, datetime]] = {}

    def issue(self, user: User, lifetime_s: float = 3600.0) -> str:
        """Return a token of this user's."""
        token = secrets.token_urlsafe(24)
        expires_at = self._clock.now() + timedelta(seconds=lifetime_s)
        self._issued[token] = (evolve(user, jwt=token), expires_at)
        return token

    async def authenticate(self, token: str) -> User:
        """Implement ``Authenticator``."""
        issued = self._issued.get(token)
        if issued is None:
            raise EdgeError(Code.AUTH_INVALID, "The token is not known.")
        user, expires_at = issued
        if self._clock.now() >= expires_at:
            raise EdgeError(Code.AUTH_INVALID, "The token has expired; sign in again.")
        return user

    async def check(self) -> None:
        """Implement ``Checked``."""
