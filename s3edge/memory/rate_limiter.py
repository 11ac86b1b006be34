"""A sliding window counter in memory."""

import math
from collections import OrderedDict

from attrs import define

from s3edge.ports import Clock
from s3edge.values import Allowance, RateLimit


MAX_SUBJECTS = 100_000
"""The longest unseen subjects are forgotten beyond this many."""


@define
class _Window:
    """The count of a window of time and of the one before it."""

    index: int
    current: int = 0
    previous: int = 0


class MemoryRateLimiter:
    """
    Counts requests in windows aligned to the clock, weighing the window before by what is left of it.

    Args:
        clock: Tells the time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._windows: OrderedDict[tuple[str, RateLimit], _Window] = OrderedDict()

    async def hit(self, subject: str, limit: RateLimit) -> Allowance:
        """Implement ``RateLimiter``."""
        elapsed = self._clock.now().timestamp() / limit.window_s
        window = self._window(subject, limit, math.floor(elapsed))
        fraction_left = 1.0 - (elapsed - window.index)
        used = math.floor(window.previous * fraction_left) + window.current
        allowed = used < limit.quota
        if allowed:
            window.current += 1
            used += 1
        return Allowance(
            allowed=allowed,
            limit=limit,
            remaining=max(0, limit.quota - used),
            # At the boundary itself the window before still weighs all it held.
            reset_s=math.floor(fraction_left * limit.window_s) + 1,
        )

    async def check(self) -> None:
        """Implement ``Checked``."""

    def _window(self, subject: str, limit: RateLimit, index: int) -> _Window:
        window = self._windows.setdefault((subject, limit), _Window(index))
        self._windows.move_to_end((subject, limit))
        if len(self._windows) > MAX_SUBJECTS:
            self._windows.popitem(last=False)
        if window.index != index:
            window.previous = window.current if window.index == index - 1 else 0
            window.current = 0
            window.index = index
        return window
