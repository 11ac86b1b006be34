"""The ``limits`` library keeps every promise of the rate limiter."""

from collections.abc import AsyncIterator

import pytest
from limits.aio.storage import MemoryStorage

from s3edge.testing import RateLimiterContract, RateLimiterHarness
from s3edge.testing.standins.redis_process import RedisProcess
from s3edge_limits import LimitsRateLimiter, redis_store
from s3edge_limits.redis_store import RedisRateLimiter, parse_address


PATIENCE_S = 30.0
"""Of a store that is there; the tests of outages are others."""


class TestLimitsRateLimiter(RateLimiterContract):
    """``LimitsRateLimiter`` on its memory store."""

    @pytest.fixture
    def harness(self) -> RateLimiterHarness:
        """Return a limiter that has seen nobody; the library's clock cannot be moved."""
        return RateLimiterHarness(LimitsRateLimiter(MemoryStorage(wrap_exceptions=True)))


class TestRedisRateLimiter(RateLimiterContract):
    """``RedisRateLimiter`` on a real server."""

    @pytest.fixture
    async def harness(
        self, redis_server: RedisProcess, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[RateLimiterHarness]:
        """Return a limiter that has seen nobody; the server's clock cannot be moved."""
        for budget in ("STEP_TIMEOUT_S", "TIMEOUT_S"):
            # Else a busy machine is taken for a store that is away.
            monkeypatch.setattr(redis_store, budget, PATIENCE_S)
        async with RedisRateLimiter(parse_address(redis_server.url)) as limiter:
            yield RateLimiterHarness(limiter)
