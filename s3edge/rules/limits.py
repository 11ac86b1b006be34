"""
Which rate limit applies to whom, and how it is said in headers.

Header syntax: draft-ietf-httpapi-ratelimit-headers-10 and later ("RateLimit header fields for HTTP").
"""

import re
from collections.abc import Mapping

from attrs import evolve, frozen

from s3edge.values import Allowance, RateLimit, RequestKind, Tier


WINDOW_S = 60

_WINDOWS_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_OVERRIDE = re.compile(r"(?:(\w+)\.)?(\w+)=([1-9]\d{0,8})/(second|minute|hour|day)")

_WRITES = {Tier.FREE: 10, Tier.PRO: 100, Tier.ENTERPRISE: 1000}
_READS = {Tier.FREE: 120, Tier.PRO: 600, Tier.ENTERPRISE: 6000}
_ANONYMOUS = 120

_IN_FLIGHT = {Tier.FREE: 16, Tier.PRO: 64, Tier.ENTERPRISE: 250}
"""
How many uploads and segmentations of one user one process serves at once.

A quota bounds how often somebody begins; who then sends slowly would gather places all the same. All of
them are half of the places that a process has by default at the most.
"""


@frozen
class RateLimits:
    """
    The table of limits.

    Attributes:
        users: By tier and class of endpoint.
        anonymous: For each client address, of requests without a valid token.
    """

    users: Mapping[tuple[Tier, RequestKind], RateLimit]
    anonymous: RateLimit

    def of(self, tier: Tier, kind: RequestKind) -> RateLimit:
        """Return the limit for a user of this tier at this class of endpoint."""
        return self.users[tier, kind]


def most_in_flight(tier: Tier, kind: RequestKind) -> int | None:
    """Return how many such requests a user may have under way; ``None`` for what has no body."""
    return None if kind is RequestKind.READ else _IN_FLIGHT[tier]


def _limit(kind: RequestKind, quota: int) -> RateLimit:
    return RateLimit(kind.value, quota, WINDOW_S)


DEFAULT_RATE_LIMITS = RateLimits(
    users={
        (tier, kind): _limit(kind, quotas[tier])
        for kind, quotas in (
            (RequestKind.UPLOAD, _WRITES),
            (RequestKind.SEGMENT, _WRITES),
            (RequestKind.READ, _READS),
        )
        for tier in Tier
    },
    anonymous=_limit(RequestKind.ANONYMOUS, _ANONYMOUS),
)
"""The contract's table, a minute."""


def parse_rate_limits(text: str) -> RateLimits | None:
    """
    Return the table with an operator's overrides, or ``None`` when limits are off.

    Args:
        text: ``off``, or ``free.segment=5/minute,pro.read=600/minute,anonymous=60/minute``; an empty
            text leaves the defaults.

    Raises:
        ValueError: Says which override cannot be read.
    """
    if text.strip().lower() == "off":
        return None
    limits = DEFAULT_RATE_LIMITS
    for item in filter(None, (part.strip() for part in text.split(","))):
        limits = _with_override(limits, item)
    return limits


def _with_override(limits: RateLimits, item: str) -> RateLimits:
    match = _OVERRIDE.fullmatch(item)
    if match is None:
        message = f"cannot read {item!r}; write it as free.segment=5/minute"
        raise ValueError(message)
    tier, kind, quota, window = match.groups()
    limit = RateLimit(kind, int(quota), _WINDOWS_S[window])
    if tier is None and kind == RequestKind.ANONYMOUS:
        return evolve(limits, anonymous=limit)
    if tier not in set(Tier) or kind not in {kind for _, kind in limits.users}:
        message = (
            f"{item!r} names no limit; use one of {', '.join(Tier)} before the dot and one of"
            f" upload, segment, read behind it, or anonymous alone"
        )
        raise ValueError(message)
    return evolve(limits, users={**limits.users, (Tier(tier), RequestKind(kind)): limit})


def policy_header(limit: RateLimit) -> str:
    """Return the value of ``RateLimit-Policy``."""
    return f'"{limit.name}";q={limit.quota};w={limit.window_s}'


def allowance_header(allowance: Allowance) -> str:
    """Return the value of ``RateLimit``; ``t`` is seconds from now."""
    return f'"{allowance.limit.name}";r={allowance.remaining};t={allowance.reset_s}'
