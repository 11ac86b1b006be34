"""
Who a verified token's claims say the user is.

The claims are Supabase Auth's: https://supabase.com/docs/guides/auth/jwt-fields.
"""

from collections.abc import Mapping
from typing import Any

from s3edge.errors import Code, EdgeError
from s3edge.rules.keys import parse_id
from s3edge.values import Tier, User


USER_ROLE = "authenticated"
"""The role of a signed-in user; an API key's role is ``anon`` or ``service_role``."""

DEFAULT_TIER_CLAIM = "app_metadata.tier"
"""Users cannot write ``app_metadata``; they can write ``user_metadata``."""


def user_from_claims(claims: Mapping[str, Any], token: str, tier_claim: str) -> User:
    """
    Return the user of a token whose signature and times were verified.

    Raises:
        EdgeError: ``FORBIDDEN`` when the role is not a user's, ``AUTH_INVALID`` when ``sub`` is no UUID.
    """
    if claims.get("role") != USER_ROLE:
        raise EdgeError(Code.FORBIDDEN, "This token is not a signed-in user's; sign in first.")
    subject = claims.get("sub")
    user_id = parse_id(subject) if isinstance(subject, str) else None
    if user_id is None:
        raise EdgeError(Code.AUTH_INVALID, "The token does not name a user.")
    return User(
        user_id=user_id,
        tier=tier_from_claims(claims, tier_claim),
        jwt=token,
        is_anonymous=claims.get("is_anonymous") is True,
    )


def tier_from_claims(claims: Mapping[str, Any], tier_claim: str) -> Tier:
    """Return the tier at a dotted path in the claims; ``free`` when it is absent or unknown."""
    value: Any = claims
    for name in tier_claim.split("."):
        if not isinstance(value, Mapping):
            return Tier.FREE
        value = value.get(name)
    return Tier(value) if value in set(Tier) else Tier.FREE
