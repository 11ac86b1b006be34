"""Tell a user what they have and what they may do."""

from collections.abc import Mapping

from attrs import frozen

from s3edge.ports import Database
from s3edge.rules.limits import RateLimits
from s3edge.values import RateLimit, RequestKind, Tier, User


USER_KINDS = (RequestKind.UPLOAD, RequestKind.SEGMENT, RequestKind.READ)


@frozen
class AccountSummary:
    """
    A user's own view of their account.

    Attributes:
        tier: From the token.
        credits: The balance.
        rate_limits: By class of endpoint; empty when limits are off.
    """

    tier: Tier
    credits: int
    rate_limits: Mapping[RequestKind, RateLimit]


async def read_account(
    user: User, *, database: Database, rate_limits: RateLimits | None
) -> AccountSummary:
    """
    Return the user's tier, balance and limits.

    Raises:
        EdgeError: ``SERVICE_UNAVAILABLE``.
    """
    profile = await database.profile(user)
    limits = (
        {}
        if rate_limits is None
        else {kind: rate_limits.of(user.tier, kind) for kind in USER_KINDS}
    )
    return AccountSummary(user.tier, profile.credits, limits)
