"""Counts requests."""

from typing import Protocol

from s3edge.ports.checked import Checked
from s3edge.values import Allowance, RateLimit


class RateLimiter(Checked, Protocol):
    """Counts requests; which limit applies to whom is decided by ``rules.limits``."""

    async def hit(self, subject: str, limit: RateLimit) -> Allowance:
        """
        Count one request of a subject against a limit.

        Implementations must:
            Allow exactly the quota, then refuse (``test_the_quota_is_exact``).
            Count down and say when quota returns (``test_the_allowance_counts_down``).
            Keep subjects and limits apart (``test_subjects_and_limits_are_apart``).
            Allow exactly the quota to concurrent requests (``test_concurrent_hits_are_exact``).

        Raises:
            EdgeError: ``SERVICE_UNAVAILABLE`` when the store is down.
        """
