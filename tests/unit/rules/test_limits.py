"""Which rate limit applies to whom, and how it is said."""

import pytest

from s3edge.rules.limits import (
    DEFAULT_RATE_LIMITS,
    allowance_header,
    parse_rate_limits,
    policy_header,
)
from s3edge.values import Allowance, RateLimit, RequestKind, Tier


@pytest.mark.parametrize(
    ("tier", "writes", "reads"),
    [(Tier.FREE, 10, 120), (Tier.PRO, 100, 600), (Tier.ENTERPRISE, 1000, 6000)],
)
def test_the_defaults_are_the_contracts_table(tier: Tier, writes: int, reads: int) -> None:
    """Each tier has its quota a minute for each class of endpoint."""
    limits = DEFAULT_RATE_LIMITS

    assert limits.of(tier, RequestKind.UPLOAD) == RateLimit("upload", writes, 60)
    assert limits.of(tier, RequestKind.SEGMENT) == RateLimit("segment", writes, 60)
    assert limits.of(tier, RequestKind.READ) == RateLimit("read", reads, 60)


@pytest.mark.parametrize("text", ["off", "OFF", " Off "])
def test_limits_can_be_off(text: str) -> None:
    """``off`` means no limits at all."""
    assert parse_rate_limits(text) is None


@pytest.mark.parametrize("text", ["", " ", ",", " , "])
def test_nothing_leaves_the_defaults(text: str) -> None:
    """An empty setting changes nothing."""
    assert parse_rate_limits(text) == DEFAULT_RATE_LIMITS


def test_overrides_change_what_they_name_and_nothing_else() -> None:
    """Each item sets one limit; the last of several for one limit counts."""
    limits = parse_rate_limits(
        " free.segment=5/minute, pro.read=7/hour,anonymous=1/second ,free.segment=6/day"
    )

    assert limits is not None
    assert limits.of(Tier.FREE, RequestKind.SEGMENT) == RateLimit("segment", 6, 86400)
    assert limits.of(Tier.PRO, RequestKind.READ) == RateLimit("read", 7, 3600)
    assert limits.anonymous == RateLimit("anonymous", 1, 1)
    changed = {(Tier.FREE, RequestKind.SEGMENT), (Tier.PRO, RequestKind.READ)}
    assert {place: limit for place, limit in limits.users.items() if place not in changed} == {
        place: limit for place, limit in DEFAULT_RATE_LIMITS.users.items() if place not in changed
    }


def test_the_defaults_are_not_changed_by_reading_overrides() -> None:
    """The table is a value; reading a setting twice gives the same twice."""
    before = dict(DEFAULT_RATE_LIMITS.users)
    parse_rate_limits("free.segment=1/minute")

    assert DEFAULT_RATE_LIMITS.users == before


@pytest.mark.parametrize(
    "text",
    [
        "free.segment",
        "free.segment=",
        "free.segment=5",
        "free.segment=0/minute",
        "free.segment=-1/minute",
        "free.segment=1.5/minute",
        "free.segment=1e3/minute",
        "free.segment=5/fortnight",
        "free.segment=9999999999/minute",
        "gold.segment=5/minute",
        "free.delete=5/minute",
        "free.anonymous=5/minute",
        "segment=5/minute",
        "free.segment=5/minute;pro.read=6/minute",
        "on",
        "free.segment=5/minute,oops",
    ],
)
def test_an_override_that_cannot_be_read_is_named(text: str) -> None:
    """A misspelt setting stops the start, with the item that is wrong in the message."""
    with pytest.raises(ValueError, match=text.rpartition(",")[2].replace(".", r"\.")):
        parse_rate_limits(text)


def test_headers_follow_the_ietf_draft() -> None:
    """The policy and what is left of it are Structured Fields."""
    limit = RateLimit("segment", 10, 60)
    allowance = Allowance(allowed=True, limit=limit, remaining=9, reset_s=42)

    assert policy_header(limit) == '"segment";q=10;w=60'
    assert allowance_header(allowance) == '"segment";r=9;t=42'
