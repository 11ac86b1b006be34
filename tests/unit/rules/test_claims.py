"""Who a verified token's claims say the user is."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from s3edge.errors import Code, EdgeError
from s3edge.rules.claims import (
    DEFAULT_TIER_CLAIM,
    LEEWAY_S,
    check_claims,
    tier_from_claims,
    user_from_claims,
)
from s3edge.values import Tier


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
ISSUER = "https://project.supabase.test/auth/v1"
SUBJECT = "a11ce000-0000-4000-8000-000000000001"


def claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a good token, changed; ``...`` leaves one out."""
    good = {
        "sub": SUBJECT,
        "iss": ISSUER,
        "aud": "authenticated",
        "role": "authenticated",
        "iat": SECONDS - 10,
        "exp": SECONDS + 3590,
        "app_metadata": {"provider": "email"},
        "user_metadata": {},
    }
    return {name: value for name, value in (good | changes).items() if value is not ...}


def code_of(**changes: Any) -> Code | None:
    """Return how a token of these claims is refused, or ``None``."""
    try:
        check_claims(claims(**changes), now=NOW, issuer=ISSUER)
    except EdgeError as error:
        return error.code
    return None


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"exp": SECONDS - LEEWAY_S + 1},
        {"iat": SECONDS + LEEWAY_S},
        {"nbf": SECONDS + LEEWAY_S},
        {"nbf": SECONDS},
        {"exp": SECONDS + 0.5},
        {"aud": ["authenticated"]},
        {"aud": ["other", "authenticated"]},
        {"exp": SECONDS + 10**9},
    ],
)
def test_a_good_token_passes(changes: dict[str, Any]) -> None:
    """Clocks may differ by half a minute, and the audience may be one of several."""
    assert code_of(**changes) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": SECONDS - LEEWAY_S},
        {"exp": 0},
        {"exp": -1},
        {"iat": SECONDS + LEEWAY_S + 1},
        {"nbf": SECONDS + LEEWAY_S + 1},
        {"exp": ...},
        {"iat": ...},
        {"aud": "other"},
        {"aud": ...},
        {"aud": []},
        {"aud": None},
        {"aud": {"authenticated": 1}},
        {"aud": ["authenticated "]},
        {"aud": [["authenticated"]]},
        {"iss": "https://evil.test/auth/v1"},
        {"iss": ISSUER + "/"},
        {"iss": [ISSUER]},
        {"iss": ...},
    ],
)
def test_a_wrong_time_audience_or_issuer_is_refused(changes: dict[str, Any]) -> None:
    """A token that is expired, early or somebody else's proves nothing."""
    assert code_of(**changes) is Code.AUTH_INVALID


ODD_TIMES: list[Any] = [
    None,
    True,
    False,
    "soon",
    str(SECONDS),
    [],
    {},
    float("nan"),
    float("inf"),
    float("-inf"),
    10**400,
    -(10**400),
]


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize("value", ODD_TIMES, ids=range(len(ODD_TIMES)))
def test_a_time_that_is_no_number_is_refused(name: str, value: Any) -> None:
    """Text, booleans, NaN, infinity and numbers beyond any date are not times."""
    assert code_of(**{name: value}) is Code.AUTH_INVALID


@pytest.mark.parametrize("role", ["anon", "service_role", "", None, [], {}, ["authenticated"], ...])
def test_another_role_is_forbidden(role: Any) -> None:
    """An API key is a valid token without the right, whatever audience it has."""
    assert code_of(role=role) is Code.FORBIDDEN
    assert code_of(role=role, aud=..., iss="supabase") is Code.FORBIDDEN


def test_an_expired_key_is_invalid_before_it_is_forbidden() -> None:
    """A token that proves nothing is not told what it lacks."""
    assert code_of(role="anon", exp=0) is Code.AUTH_INVALID


def test_the_user_is_what_the_token_says() -> None:
    """Id, tier, the token itself and whether the sign-in had an identity."""
    user = user_from_claims(
        claims(app_metadata={"tier": "pro"}, is_anonymous=True), "the.token", DEFAULT_TIER_CLAIM
    )

    assert user.user_id == UUID(SUBJECT)
    assert user.tier is Tier.PRO
    assert user.jwt == "the.token"
    assert user.is_anonymous
    assert "the.token" not in repr(user)


@pytest.mark.parametrize("value", [..., None, False, "true", 1, [], {}])
def test_only_true_means_anonymous(value: Any) -> None:
    """A claim of another type does not turn a user into an anonymous one."""
    assert not user_from_claims(claims(is_anonymous=value), "t", DEFAULT_TIER_CLAIM).is_anonymous


@pytest.mark.parametrize(
    "subject",
    [
        ...,
        None,
        "",
        "alice",
        1,
        [],
        {},
        [SUBJECT],
        SUBJECT + "\n",
        f"{{{SUBJECT}}}",
        "\x00",
        "\ud800",
    ],
)
def test_a_subject_that_is_no_uuid_is_refused(subject: Any) -> None:
    """A token that names no user is invalid, whatever stands in its place."""
    with pytest.raises(EdgeError) as refused:
        user_from_claims(claims(sub=subject), "t", DEFAULT_TIER_CLAIM)
    assert refused.value.code is Code.AUTH_INVALID


@pytest.mark.parametrize("tier", list(Tier))
def test_the_tier_is_read_where_the_operator_says(tier: Tier) -> None:
    """The path of the claim is a setting, of any depth."""
    assert tier_from_claims({"app_metadata": {"tier": tier.value}}, "app_metadata.tier") is tier
    assert tier_from_claims({"user_metadata": {"tier": tier.value}}, "user_metadata.tier") is tier
    assert tier_from_claims({"tier": tier.value}, "tier") is tier
    assert tier_from_claims({"a": {"b": {"c": tier.value}}}, "a.b.c") is tier


def test_users_cannot_raise_their_own_tier() -> None:
    """By default ``user_metadata``, which users write themselves, is not looked at."""
    own = claims(user_metadata={"tier": "enterprise"}, tier="enterprise")

    assert tier_from_claims(own, DEFAULT_TIER_CLAIM) is Tier.FREE


ODD_TIERS: list[Any] = [
    None,
    "",
    "gold",
    "PRO",
    " pro",
    "pro\x00",
    1,
    True,
    1.5,
    [],
    ["pro"],
    {},
    {"pro": "pro"},
    {"tier": "pro"},
    "\ud800",
]


@pytest.mark.parametrize("value", ODD_TIERS, ids=range(len(ODD_TIERS)))
def test_a_tier_that_is_unknown_is_free(value: Any) -> None:
    """Unknown names and values of any other type, hashable or not, mean the free tier."""
    assert tier_from_claims({"app_metadata": {"tier": value}}, "app_metadata.tier") is Tier.FREE


@pytest.mark.parametrize("parent", [..., None, "pro", "tier", 1, [], ["tier"], [{"tier": "pro"}]])
def test_a_tier_whose_place_is_missing_is_free(parent: Any) -> None:
    """A path that leads nowhere, or through something that is no object, means the free tier."""
    found = {} if parent is ... else {"app_metadata": parent}

    assert tier_from_claims(found, "app_metadata.tier") is Tier.FREE
    assert tier_from_claims(found, "app_metadata.tier.deeper") is Tier.FREE
