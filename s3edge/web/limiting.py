"""Counts requests against their limits, and decides what happens when the count cannot be kept."""

import logging

from s3edge.errors import Code, EdgeError
from s3edge.gateway import Gateway
from s3edge.rules.limits import allowance_header, most_in_flight, policy_header
from s3edge.values import Allowance, RateLimit, RequestKind, User
from s3edge.web.log_interval import LogInterval


_log = logging.getLogger(__name__)


class Limiting:
    """
    The gateway's limits, applied.

    Args:
        gateway: Knows the table and the counter.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._log_interval = LogInterval()

    def most_in_flight(self, user: User, kind: RequestKind) -> int | None:
        """Return how many such requests a user may have under way here; ``None`` for any number."""
        return (
            None if self._gateway.options.rate_limits is None else most_in_flight(user.tier, kind)
        )

    async def of_user(self, user: User, kind: RequestKind) -> Allowance | None:
        """
        Count a user's request; return ``None`` when limits are off or cannot be told.

        Raises:
            EdgeError: ``SERVICE_UNAVAILABLE`` when the store is down and limits fail closed.
        """
        limits = self._gateway.options.rate_limits
        if limits is None:
            return None
        return await self._hit(f"user:{user.user_id}", limits.of(user.tier, kind))

    async def of_address(self, address: str) -> Allowance | None:
        """Count a request without a valid token; otherwise like ``of_user``."""
        limits = self._gateway.options.rate_limits
        return None if limits is None else await self._hit(f"address:{address}", limits.anonymous)

    async def _hit(self, subject: str, limit: RateLimit) -> Allowance | None:
        try:
            return await self._gateway.rate_limiter.hit(subject, limit)
        except EdgeError as error:
            if not self._gateway.options.limits_fail_open:
                raise
            self._warn(error)
            return None

    def _warn(self, error: EdgeError) -> None:
        if self._log_interval.is_over(self._gateway.clock.now().timestamp()):
            _log.warning("rate limits are not applied while their store is down: %s", error)


def headers_of(allowance: Allowance) -> list[tuple[str, str]]:
    """Return the headers that tell a client its limit."""
    return [
        ("ratelimit-policy", policy_header(allowance.limit)),
        ("ratelimit", allowance_header(allowance)),
    ]


def refusal(allowance: Allowance) -> EdgeError:
    """Return the error of a request over its limit."""
    limit = allowance.limit
    return EdgeError(
        Code.RATE_LIMITED,
        f"More than {limit.quota} {limit.name} requests in {limit.window_s} seconds;"
        f" try again in {allowance.reset_s} s.",
        retryable=True,
        retry_after_s=max(1, allowance.reset_s),
    )
