"""A clock that stands still until it is told to go on."""

from datetime import UTC, datetime, timedelta


START = datetime(2026, 1, 1, 12, tzinfo=UTC)
"""Any time would do; one that is always the same makes failures repeat."""


class ManualClock:
    """
    A ``Clock`` for tests, so that no test waits for time to pass.

    Args:
        start: The first time it tells, aware and in UTC.
    """

    def __init__(self, start: datetime = START) -> None:
        self._now = start

    def now(self) -> datetime:
        """Implement ``Clock``."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move on by so many seconds."""
        self._now += timedelta(seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        """Move on by so many seconds, in the form in which harnesses take it."""
        self.advance(seconds)
