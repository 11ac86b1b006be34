"""Remembers which tokens were verified, so that a client that polls is not verified at every poll."""

import hashlib
from collections import OrderedDict
from datetime import datetime, timedelta

from s3edge.values import User


MAX_TOKENS = 10_000
"""The longest unseen are forgotten beyond this many."""

MAX_AGE = timedelta(seconds=60)
"""For this long a good token is not verified again, whatever has become of its key."""


class VerifiedTokens:
    """Users by the SHA-256 of their token: the tokens themselves are not kept as keys."""

    def __init__(self) -> None:
        self._users: OrderedDict[bytes, tuple[User, datetime]] = OrderedDict()

    def get(self, token: str, now: datetime) -> User | None:
        """Return the user of a token that was verified a moment ago, or ``None``."""
        digest = _digest(token)
        user, good_until = self._users.get(digest, (None, now))
        if user is None:
            return None
        if now >= good_until:
            del self._users[digest]
            return None
        self._users.move_to_end(digest)
        return user

    def add(self, token: str, user: User, now: datetime, expires_at: datetime) -> None:
        """Remember the user of a token, no longer than the token is good."""
        self._users[_digest(token)] = (user, min(now + MAX_AGE, expires_at))
        if len(self._users) > MAX_TOKENS:
            self._users.popitem(last=False)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
