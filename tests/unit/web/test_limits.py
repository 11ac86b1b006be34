"""Rate limits: counted, told, and not in the way when their store is down."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from s3edge.errors import unavailable
from s3edge.gateway import Gateway, GatewayOptions
from s3edge.memory import MemoryObjectStorage, MemoryRateLimiter
from s3edge.rules.limits import parse_rate_limits
from s3edge.testing.clock import ManualClock
from s3edge.values import Allowance, RateLimit, Tier, User
from s3edge.web.addresses import parse_networks
from s3edge.web.app import WebApp
from s3edge.web.http import Response


pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[Response]]
Check = Callable[..., dict[str, Any]]
Balance = Callable[[User], Awaitable[int]]

BAD_TOKEN = {"authorization": "Bearer nonsense"}


class DownLimiter(MemoryRateLimiter):
    """A store of limits that can be down."""

    is_down = True

    async def hit(self, subject: str, limit: RateLimit) -> Allowance:
        """Implement ``RateLimiter``."""
        if self.is_down:
            raise unavailable("The store of the limits is down.")
        return await super().hit(subject, limit)


def with_limits(gateway: Gateway, text: str) -> None:
    """Set the limits as an operator does."""
    gateway.options = GatewayOptions(rate_limits=parse_rate_limits(text))


async def test_answers_tell_the_limit(send: Send, clock: ManualClock) -> None:
    """Policy, what is left and when more returns, in the IETF draft's form."""
    clock.advance(18)

    headers = dict((await send("POST", "/api/v1/segment", body=b"{}")).headers)

    assert headers["ratelimit-policy"] == '"segment";q=10;w=60'
    assert headers["ratelimit"] == '"segment";r=9;t=42'


@pytest.mark.parametrize(
    ("method", "path", "policy"),
    [
        ("POST", "/api/v1/upload", '"upload";q=10;w=60'),
        ("POST", "/api/v1/segment", '"segment";q=10;w=60'),
        ("GET", "/api/v1/me", '"read";q=120;w=60'),
        ("GET", "/api/v1/results", '"read";q=120;w=60'),
        ("GET", "/api/v1/results/x", '"read";q=120;w=60'),
        ("GET", "/api/v1/tasks/x", '"read";q=120;w=60'),
    ],
)
async def test_every_endpoint_has_its_class(
    send: Send, method: str, path: str, policy: str
) -> None:
    """Errors are counted and told like successes."""
    assert dict((await send(method, path)).headers)["ratelimit-policy"] == policy


@pytest.mark.parametrize(("tier", "quota"), [(Tier.PRO, 100), (Tier.ENTERPRISE, 1000)])
async def test_every_tier_has_its_quota(send: Send, alice: User, tier: Tier, quota: int) -> None:
    """Who pays more may ask more."""
    user = User(alice.user_id, tier)

    response = await send("POST", "/api/v1/segment", user=user, body=b"{}")

    assert dict(response.headers)["ratelimit-policy"] == f'"segment";q={quota};w=60'


async def test_over_the_quota_is_429_with_the_time_to_come_back(
    send: Send,
    error_of: Check,
    data_of: Check,
    clock: ManualClock,
) -> None:
    """The eleventh request of a minute is refused, and the first of a later one is not."""
    for left in range(9, -1, -1):
        response = await send("POST", "/api/v1/segment", body=b"{}")
        error_of(response, 400, "INVALID_REQUEST")
        assert f"r={left};" in dict(response.headers)["ratelimit"]

    refused = await send("POST", "/api/v1/segment", body=b"{}")
    error_of(refused, 429, "RATE_LIMITED")
    headers = dict(refused.headers)
    assert int(headers["retry-after"]) >= 1
    assert headers["ratelimit-policy"] == '"segment";q=10;w=60'
    assert headers["ratelimit"].startswith('"segment";r=0;t=')

    # Other classes have quotas of their own.
    data_of(await send("GET", "/api/v1/me"))
    clock.advance(120)
    error_of(await send("POST", "/api/v1/segment", body=b"{}"), 400, "INVALID_REQUEST")


async def test_the_window_slides(send: Send, clock: ManualClock) -> None:
    """A burst at a window's end and another at the next one's beginning are not twice the quota."""
    clock.advance(59)
    for _ in range(10):
        await send("POST", "/api/v1/segment", body=b"{}")

    clock.advance(2)

    statuses = [(await send("POST", "/api/v1/segment", body=b"{}")).status for _ in range(10)]
    assert statuses.count(429) >= 9


async def test_users_do_not_share_a_quota(
    send: Send, gateway: Gateway, error_of: Check, data_of: Check, bob: User
) -> None:
    """One user's haste is nobody else's wait, also from one address."""
    with_limits(gateway, "free.read=1/minute")

    data_of(await send("GET", "/api/v1/me"))
    error_of(await send("GET", "/api/v1/me"), 429, "RATE_LIMITED")
    data_of(await send("GET", "/api/v1/me", user=bob))


async def test_a_users_quota_follows_them_from_address_to_address(
    send: Send, gateway: Gateway, error_of: Check
) -> None:
    """The limit is the user's, wherever they call from."""
    with_limits(gateway, "free.read=1/minute")

    await send("GET", "/api/v1/me", peer="192.0.2.1")

    error_of(await send("GET", "/api/v1/me", peer="192.0.2.2"), 429, "RATE_LIMITED")


async def test_a_refused_request_does_nothing(
    send: Send,
    gateway: Gateway,
    error_of: Check,
    storage: MemoryObjectStorage,
    credits_of: Balance,
    alice: User,
) -> None:
    """Over the limit nothing is read, stored or charged."""
    with_limits(gateway, "free.segment=1/minute,free.upload=1/minute")
    for path in ("/api/v1/segment", "/api/v1/upload"):
        await send("POST", path, body=b"{}")
        error_of(await send("POST", path, body=b"{}"), 429, "RATE_LIMITED")

    assert storage.keys() == []
    assert await credits_of(alice) == 100


async def test_limits_can_be_off(send: Send, gateway: Gateway, data_of: Check) -> None:
    """Without limits nothing is refused and nothing is told."""
    with_limits(gateway, "off")

    for _ in range(200):
        response = await send("GET", "/api/v1/me")
        assert "ratelimit" not in dict(response.headers)
        assert data_of(response)["rate_limits"] == {}


async def test_requests_without_a_token_are_counted_by_address(
    send: Send, gateway: Gateway, error_of: Check
) -> None:
    """Whoever guesses tokens is slowed down, and their neighbours are not."""
    with_limits(gateway, "anonymous=3/minute")

    for headers in ({}, BAD_TOKEN, {}):
        assert (await send("GET", "/api/v1/me", user=None, headers=headers)).status == 401
    refused = await send("GET", "/api/v1/me", user=None)

    error_of(refused, 429, "RATE_LIMITED")
    assert "retry-after" in dict(refused.headers)
    other = await send("GET", "/api/v1/me", user=None, peer="192.0.2.8")
    error_of(other, 401, "AUTH_REQUIRED")


async def test_an_address_over_its_limit_does_not_shut_out_its_users(
    send: Send, gateway: Gateway, data_of: Check
) -> None:
    """A valid token is served whatever others did from the same address."""
    with_limits(gateway, "anonymous=1/minute")
    for _ in range(3):
        await send("GET", "/api/v1/me", user=None)

    data_of(await send("GET", "/api/v1/me"))


async def test_readiness_is_limited_and_health_is_not(
    send: Send, gateway: Gateway, error_of: Check, data_of: Check
) -> None:
    """What asks every dependency is limited by address; what touches none is free."""
    with_limits(gateway, "anonymous=1/minute")

    data_of(await send("GET", "/health/ready", user=None))
    error_of(await send("GET", "/health/ready", user=None), 429, "RATE_LIMITED")
    for _ in range(5):
        data_of(await send("GET", "/health", user=None))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", "203.0.113.5", "203.0.113.5"),
        ("10.0.0.1", "1.1.1.1, 203.0.113.5", "203.0.113.5"),
        ("10.0.0.1", "203.0.113.5, 10.0.0.2", "203.0.113.5"),
        ("10.0.0.1", "203.0.113.5,10.0.0.2,10.9.9.9", "203.0.113.5"),
        ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "203.0.113.5", "203.0.113.5"),
        ("fd00::1", "203.0.113.5", "203.0.113.5"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.5, junk", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.2", "10.0.0.1"),
        ("192.0.2.7", "203.0.113.5", "192.0.2.7"),
        (None, "203.0.113.5", None),
    ],
)
async def test_a_trusted_proxy_names_the_client(
    send: Send,
    gateway: Gateway,
    error_of: Check,
    peer: str | None,
    forwarded: str,
    client: str | None,
) -> None:
    """Only what a trusted proxy added is believed, and what a client wrote itself is not."""
    with_limits(gateway, "anonymous=1/minute")
    web = WebApp(gateway, trusted_proxies=parse_networks("10.0.0.0/8, fd00::/8"))

    # Behind no proxy the address that is counted is the peer's own.
    await send("GET", "/api/v1/me", user=None, peer=client)
    second = await send(
        "GET",
        "/api/v1/me",
        user=None,
        app=web,
        peer=peer,
        headers={"x-forwarded-for": forwarded},
    )
    other = await send("GET", "/api/v1/me", user=None, peer="198.51.100.9")

    error_of(second, 429, "RATE_LIMITED")
    error_of(other, 401, "AUTH_REQUIRED")


async def test_without_trusted_proxies_nobody_is_believed(
    send: Send, gateway: Gateway, error_of: Check
) -> None:
    """By default a client cannot change its address by a header."""
    with_limits(gateway, "anonymous=1/minute")

    await send("GET", "/api/v1/me", user=None)
    for address in ("203.0.113.5", "203.0.113.6"):
        response = await send("GET", "/api/v1/me", user=None, headers={"x-forwarded-for": address})
        error_of(response, 429, "RATE_LIMITED")


@pytest.mark.parametrize("text", ["10.0.0.300", "proxy.local", "10.0.0.0/33", "10.0.0.1;10.0.0.2"])
def test_a_network_that_cannot_be_read_is_named(text: str) -> None:
    """A misspelt setting stops the start."""
    with pytest.raises(ValueError, match=r"10\.0\.0|proxy"):
        parse_networks(text)


async def test_a_store_that_is_down_lets_requests_pass(
    send: Send,
    gateway: Gateway,
    clock: ManualClock,
    data_of: Check,
    error_of: Check,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Limits fail open: requests are served without their headers, with one warning a minute."""
    gateway.rate_limiter = DownLimiter(clock)

    def warnings() -> int:
        return sum("rate limits are not applied" in text for text in caplog.messages)

    for _ in range(50):
        response = await send("GET", "/api/v1/me")
        data_of(response)
        assert "ratelimit" not in dict(response.headers)
        error_of(await send("GET", "/api/v1/me", user=None), 401, "AUTH_REQUIRED")
    assert warnings() == 1
    clock.advance(59)
    data_of(await send("GET", "/api/v1/me"))
    assert warnings() == 1
    clock.advance(1)
    data_of(await send("GET", "/api/v1/me"))
    assert warnings() == 2


async def test_a_store_that_comes_back_counts_again(
    send: Send, gateway: Gateway, clock: ManualClock
) -> None:
    """Nothing has to be restarted when the store works again."""
    limiter = DownLimiter(clock)
    gateway.rate_limiter = limiter
    await send("GET", "/api/v1/me")

    limiter.is_down = False

    assert "ratelimit" in dict((await send("GET", "/api/v1/me")).headers)


async def test_limits_may_fail_closed(
    send: Send,
    gateway: Gateway,
    clock: ManualClock,
    error_of: Check,
    data_of: Check,
    credits_of: Balance,
    alice: User,
) -> None:
    """An operator who would rather serve nothing than without limits gets 503 with Retry-After."""
    gateway.rate_limiter = DownLimiter(clock)
    gateway.options = GatewayOptions(limits_fail_open=False)

    for method, path in (("GET", "/api/v1/me"), ("POST", "/api/v1/segment")):
        response = await send(method, path)
        error_of(response, 503, "SERVICE_UNAVAILABLE")
        assert "retry-after" in dict(response.headers)
    error_of(await send("GET", "/api/v1/me", user=None), 503, "SERVICE_UNAVAILABLE")
    data_of(await send("GET", "/health", user=None))
    assert await credits_of(alice) == 100


async def test_a_quota_comes_back_again_and_again(
    send: Send, gateway: Gateway, clock: ManualClock, data_of: Check, error_of: Check
) -> None:
    """However often a user ran out of quota, they have it whole after a while."""
    with_limits(gateway, "free.read=2/second")

    for _ in range(6):
        for _ in range(2):
            data_of(await send("GET", "/api/v1/me"))
        error_of(await send("GET", "/api/v1/me"), 429, "RATE_LIMITED")
        clock.advance(2)
