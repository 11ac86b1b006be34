"""The ``limits`` library keeps every promise of the rate limiter."""

from collections.abc import AsyncIterator

import pytest
from limits.aio.storage import MemoryStorage

from s3edge.testing import RateLimiterContract, RateLimiterHarness
from s3edge.testing.standins.redis_process import RedisProcess
from s3edge_limits import LimitsRateLimiter
from s3edge_limits.redis_store import RedisRateLimiter, parse_address


class TestLimitsRateLimiter(RateLimiterContract):
    """``LimitsRateLimiter`` on its memory store."""

    @pytest.fixture
    def harness(self) -> RateLimiterHarness:
        """Return a limiter that has seen nobody; the library's clock cannot be moved."""
        return RateLimiterHarness(LimitsRateLimiter(MemoryStorage(wrap_exceptions=True)))


class TestRedisRateLimiter(RateLimiterContract):
    """``RedisRateLimiter`` on a real server."""

    @pytest.fixture
    async def harness(self, redis_server: RedisProcess) -> AsyncIterator[RateLimiterHarness]:
        """Return a limiter that has seen nobody; the server's clock cannot be moved."""
        async with RedisRateLimiter(parse_address(redis_server.url)) as limiter:
            yield RateLimiterHarness(limiter)
