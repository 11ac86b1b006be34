"""The ``RateLimiter`` port by the ``limits`` library."""

import math
import time

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError

from s3edge.errors import unavailable
from s3edge.ports import RateLimiter, Wiring
from s3edge.values import Allowance, RateLimit


NAMESPACE = "s3edge"


class LimitsRateLimiter:
    """
    Counts in one of the library's stores.

    Args:
        storage: The store, made with ``wrap_exceptions=True``.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._counter = SlidingWindowCounterRateLimiter(storage)

    async def hit(self, subject: str, limit: RateLimit) -> Allowance:
        """Implement ``RateLimiter``."""
        item = _item(limit)
        try:
            allowed = await self._counter.hit(item, subject)
            window = await self._counter.get_window_stats(item, subject)
        except StorageError as error:
            raise unavailable("The store of the rate limits cannot be reached.") from error
        return Allowance(
            allowed=allowed,
            limit=limit,
            # A refused request leaves nothing, whatever was freed since it was counted.
            remaining=max(0, window.remaining) if allowed else 0,
            reset_s=max(1, math.ceil(window.reset_time - time.time())),
        )

    async def check(self) -> None:
        """Implement ``Checked``."""
        if not await self._storage.check():
            raise unavailable("The store of the rate limits does not answer.")


def from_url(url: str, wiring: Wiring) -> RateLimiter:  # noqa: ARG001 - the factories' signature
    """Return the limiter of a ``memory:`` setting."""
    return LimitsRateLimiter(MemoryStorage(wrap_exceptions=True))


def _item(limit: RateLimit) -> RateLimitItem:
    # The name keeps classes of endpoints apart that have the same quota.
    return RateLimitItemPerSecond(limit.quota, limit.window_s, f"{NAMESPACE}:{limit.name}")
