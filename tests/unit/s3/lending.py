"""Somebody who lends keys, as a role's provider does, and may hang or fail."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.credentials import DeferredRefreshableCredentials, RefreshableCredentials


class Lender:
    """
    Lends keys, each good for an hour from the time it has.

    Args:
        secret: Belongs to every key.
        left_s: How long the first key, ``KEY0``, is good.

    Attributes:
        now: Its time.
        asked: How often it was asked for a key.
        error: What it raises in place of lending.
        lends_for_s: How long a key is good.
        credentials: Begin with ``KEY0``.
        deferred: Begin with no key, as those of an assumed role do.
    """

    def __init__(self, secret: str, left_s: float = 3600) -> None:
        self.now = datetime.now(UTC)
        self.asked = 0
        self.error: Exception | None = None
        self.lends_for_s = 3600.0
        self._secret = secret
        self._answers = threading.Event()
        self._answers.set()
        self.credentials = RefreshableCredentials(
            "KEY0", secret, "token", self._end(left_s), self._lend, "test", self._time
        )
        self.deferred = DeferredRefreshableCredentials(self._lend, "test", self._time)

    def hang(self) -> None:
        """Answer nobody from now on."""
        self._answers.clear()

    def answer(self) -> None:
        """Answer, also whoever waits."""
        self._answers.set()

    def _time(self) -> datetime:
        return self.now

    def _end(self, left_s: float) -> datetime:
        return self.now + timedelta(seconds=left_s)

    def _lend(self) -> dict[str, Any]:
        self.asked += 1
        number = self.asked
        self._answers.wait()
        if self.error is not None:
            raise self.error
        return {
            "access_key": f"KEY{number}",
            "secret_key": self._secret,
            "token": "token",
            "expiry_time": self._end(self.lends_for_s).isoformat(),
        }
