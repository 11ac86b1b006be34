"""
Who a verified token's claims say the user is.

The claims are Supabase Auth's: https://supabase.com/docs/guides/auth/jwt-fields.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from s3edge.errors import Code, EdgeError
from s3edge.rules.keys import parse_id
from s3edge.values import Tier, User


USER_ROLE = "authenticated"
"""The role of a signed-in user; an API key's role is ``anon`` or ``service_role``."""

DEFAULT_TIER_CLAIM = "app_metadata.tier"
"""Users cannot write ``app_metadata``; they can write ``user_metadata``."""


_LAST_DATE = 253402300799.0
"""The end of the year 9999, where dates end."""

_LAST_TIME = 1e12
"""Beyond any date; keeps a hostile number out of the arithmetic."""

LEEWAY_S = 30
"""How far clocks may differ; PostgREST allows the same."""

AUDIENCE = "authenticated"


def check_claims(claims: Mapping[str, Any], *, now: datetime, issuer: str) -> None:
    """
    Check the times, the role, the audience and the issuer of a token whose signature is right.

    Rules: RFC 7519, sections 4.1.1 to 4.1.6; ``exp`` and ``iat`` are required.

    Raises:
        EdgeError: ``AUTH_INVALID``; ``FORBIDDEN`` when the role is not a user's.
    """
    seconds = now.timestamp()
    expires_at, issued_at = _time(claims, "exp"), _time(claims, "iat")
    if expires_at is None or issued_at is None:
        raise _invalid("The token does not say when it was issued or when it expires.")
    if seconds >= expires_at + LEEWAY_S:
        raise _invalid("The token has expired; sign in again.")
    not_before = issued_at if "nbf" not in claims else _time(claims, "nbf")
    if not_before is None or max(not_before, issued_at) > seconds + LEEWAY_S:
        raise _invalid("The token is not valid yet.")
    if claims.get("role") != USER_ROLE:
        # Before audience and issuer: an API key is a token of another kind, not a forged one.
        raise EdgeError(Code.FORBIDDEN, "This token is not a signed-in user's; sign in first.")
    audience = claims.get("aud")
    if AUDIENCE not in (audience if isinstance(audience, list) else [audience]):
        raise _invalid("The token is for another audience.")
    if claims.get("iss") != issuer:
        raise _invalid("The token is from another issuer.")


def expiry_of(claims: Mapping[str, Any]) -> datetime:
    """Return when a token that passed ``check_claims`` expires, without any leeway."""
    return datetime.fromtimestamp(min(_time(claims, "exp") or 0.0, _LAST_DATE), UTC)


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    """Return a claim that is a NumericDate (RFC 7519, section 2), else ``None``."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < _LAST_TIME else None


def _invalid(message: str) -> EdgeError:
    return EdgeError(Code.AUTH_INVALID, message)


def user_from_claims(claims: Mapping[str, Any], token: str, tier_claim: str) -> User:
    """
    Return the user of a token that was verified.

    Raises:
        EdgeError: ``AUTH_INVALID`` when ``sub`` is no UUID.
    """
    subject = claims.get("sub")
    user_id = parse_id(subject) if isinstance(subject, str) else None
    if user_id is None:
        raise _invalid("The token does not name a user.")
    return User(
        user_id=user_id,
        tier=tier_from_claims(claims, tier_claim),
        jwt=token,
        is_anonymous=claims.get("is_anonymous") is True,
    )


def is_written_by_users(claim: str) -> bool:
    """Return whether users can write what is at this path of their own tokens."""
    return claim.partition(".")[0] == "user_metadata"


def tier_from_claims(claims: Mapping[str, Any], tier_claim: str) -> Tier:
    """Return the tier at a dotted path in the claims; ``free`` when it is absent or unknown."""
    value: Any = claims
    for name in tier_claim.split("."):
        if not isinstance(value, Mapping):
            return Tier.FREE
        value = value.get(name)
    return Tier(value) if isinstance(value, str) and value in set(Tier) else Tier.FREE
