"""The ``RateLimiter`` port by any store of the ``limits`` library."""

from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError

from s3edge.errors import unavailable
from s3edge.ports import RateLimiter, Wiring
from s3edge.values import Allowance, RateLimit
from s3edge_limits.counting import count, probe


class LimitsRateLimiter:
    """
    Counts in one of the library's stores.

    Args:
        storage: The store, made with ``wrap_exceptions=True``.
    """

    def __init__(self, storage: Storage) -> None:
        self._counter = SlidingWindowCounterRateLimiter(storage)

    async def hit(self, subject: str, limit: RateLimit) -> Allowance:
        """Implement ``RateLimiter``."""
        try:
            return await count(self._counter, subject, limit)
        except StorageError as error:
            raise unavailable("The store of the rate limits cannot be reached.") from error

    async def check(self) -> None:
        """Implement ``Checked``."""
        try:
            await probe(self._counter)
        except StorageError as error:
            raise unavailable("The store of the rate limits does not answer.") from error


def from_url(url: str, wiring: Wiring) -> RateLimiter:  # noqa: ARG001 - the factories' signature
    """Return the limiter of a ``memory:`` setting."""
    return LimitsRateLimiter(MemoryStorage(wrap_exceptions=True))
