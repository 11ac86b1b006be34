"""One request counted with the ``limits`` library, whatever its store."""

import math
import time

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from s3edge.values import Allowance, RateLimit


NAMESPACE = "s3edge"

_NOBODY = RateLimitItemPerSecond(1, 1, f"{NAMESPACE}:check")


async def count(
    counter: SlidingWindowCounterRateLimiter, subject: str, limit: RateLimit
) -> Allowance:
    """
    Count one request of a subject against a limit.

    Raises:
        StorageError: The store is down.
    """
    item = _item(limit)
    allowed = await counter.hit(item, subject)
    window = await counter.get_window_stats(item, subject)
    return Allowance(
        allowed=allowed,
        limit=limit,
        # A refused request leaves nothing, whatever was freed since it was counted.
        remaining=max(0, window.remaining) if allowed else 0,
        reset_s=max(1, math.ceil(window.reset_time - time.time())),
    )


async def probe(counter: SlidingWindowCounterRateLimiter) -> None:
    """
    Read the window of nobody, which takes whatever counting takes and changes nothing.

    Raises:
        StorageError: The store is down.
    """
    await counter.get_window_stats(_NOBODY)


def _item(limit: RateLimit) -> RateLimitItem:
    # The name keeps classes of endpoints apart that have the same quota.
    return RateLimitItemPerSecond(limit.quota, limit.window_s, f"{NAMESPACE}:{limit.name}")
