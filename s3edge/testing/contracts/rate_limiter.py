"""What any ``RateLimiter`` must do."""

from collections.abc import Awaitable, Callable
from functools import partial
from uuid import uuid4

import pytest
from attrs import frozen

from s3edge.ports import RateLimiter
from s3edge.testing.contracts.concurrency import at_once
from s3edge.values import RateLimit


QUOTA = 5

WINDOW_S = 24 * 3600
"""So long that no window ends during a test, unless the clock is moved."""

LIMIT = RateLimit("segment", QUOTA, WINDOW_S)


@frozen
class RateLimiterHarness:
    """
    What the suite needs.

    Attributes:
        limiter: The port under test.
        advance: Lets so many seconds pass, for the limiter; ``None`` when its clock cannot be moved,
            and then the return of quota is not checked.
    """

    limiter: RateLimiter
    advance: Callable[[float], Awaitable[None]] | None = None


class RateLimiterContract:
    """
    The promises of ``RateLimiter``, checked.

    A subclass supplies the fixture ``harness``.
    """

    pytestmark = pytest.mark.anyio

    async def test_check_passes(self, harness: RateLimiterHarness) -> None:
        """The store answers, and no quota is spent by asking."""
        subject = str(uuid4())
        await harness.limiter.hit(subject, LIMIT)
        await harness.limiter.check()
        assert (await harness.limiter.hit(subject, LIMIT)).remaining == QUOTA - 2

    async def test_the_quota_is_exact(self, harness: RateLimiterHarness) -> None:
        """The quota is allowed, the next requests are not, and being refused costs nothing."""
        subject = str(uuid4())
        for _ in range(1 if harness.advance is None else 2):
            allowed = [
                (await harness.limiter.hit(subject, LIMIT)).allowed for _ in range(QUOTA + 3)
            ]
            assert allowed == [True] * QUOTA + [False] * 3
            if harness.advance is not None:
                # Two windows, because a sliding one still weighs the one before.
                await harness.advance(2 * WINDOW_S)

    async def test_the_allowance_counts_down(self, harness: RateLimiterHarness) -> None:
        """Each answer says what is left, and when to come back."""
        subject = str(uuid4())
        allowances = [await harness.limiter.hit(subject, LIMIT) for _ in range(QUOTA + 1)]
        left = [allowance.remaining for allowance in allowances]
        assert left == [*range(QUOTA - 1, -1, -1), 0]
        for allowance in allowances:
            assert allowance.limit == LIMIT
            assert 1 <= allowance.reset_s <= WINDOW_S
        if harness.advance is not None:
            # One second more, because the seconds are whole ones.
            await harness.advance(allowances[-1].reset_s + 1)
            assert (await harness.limiter.hit(subject, LIMIT)).allowed

    async def test_subjects_and_limits_are_apart(self, harness: RateLimiterHarness) -> None:
        """A subject without quota takes none from others, nor from its other limits."""
        subject, other = str(uuid4()), str(uuid4())
        for _ in range(QUOTA + 1):
            await harness.limiter.hit(subject, LIMIT)
        assert not (await harness.limiter.hit(subject, LIMIT)).allowed
        assert (await harness.limiter.hit(other, LIMIT)).remaining == QUOTA - 1
        upload = RateLimit("upload", QUOTA, WINDOW_S)
        assert (await harness.limiter.hit(subject, upload)).remaining == QUOTA - 1

    async def test_concurrent_hits_are_exact(self, harness: RateLimiterHarness) -> None:
        """Of many requests at once, exactly the quota is allowed."""
        subject, limit = str(uuid4()), RateLimit("segment", 50, WINDOW_S)
        allowances, refusals = await at_once([partial(harness.limiter.hit, subject, limit)] * 200)
        assert refusals == []
        assert sum(allowance.allowed for allowance in allowances) == limit.quota
