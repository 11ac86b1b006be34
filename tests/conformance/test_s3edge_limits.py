"""The ``limits`` library keeps every promise of the rate limiter."""

import pytest
from limits.aio.storage import MemoryStorage

from s3edge.testing import RateLimiterContract, RateLimiterHarness
from s3edge_limits import LimitsRateLimiter


class TestLimitsRateLimiter(RateLimiterContract):
    """``LimitsRateLimiter`` on its memory store."""

    @pytest.fixture
    def harness(self) -> RateLimiterHarness:
        """Return a limiter that has seen nobody; the library's clock cannot be moved."""
        return RateLimiterHarness(LimitsRateLimiter(MemoryStorage(wrap_exceptions=True)))
