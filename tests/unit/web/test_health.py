"""Whether the process is up, and whether it can do its work."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, NoReturn

import anyio
import pytest

import s3edge
from s3edge.errors import unavailable
from s3edge.gateway import Gateway
from s3edge.memory import (
    MemoryAuthenticator,
    MemoryDatabase,
    MemoryObjectStorage,
    MemoryRateLimiter,
    ThresholdBackend,
)
from s3edge.ports import Clock
from s3edge.usecases.check_health import CHECK_TIMEOUT_S
from s3edge.values import Allowance, RateLimit
from s3edge.web.http import Response


pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[Response]]
Check = Callable[..., dict[str, Any]]

NAMES = ["database", "storage", "backend", "auth"]


async def down() -> None:
    """Fail as a dependency that is down."""
    raise unavailable("It is down.")


async def broken() -> None:
    """Fail as an adapter that has a bug."""
    raise RuntimeError("postgres://root:hunter2@db/")


async def hanging() -> None:
    """Never answer."""
    await anyio.sleep_forever()


class SickDatabase(MemoryDatabase):
    """A database whose check ends as it is told to."""

    def __init__(self, clock: Clock, check: Callable[[], Awaitable[None]]) -> None:
        super().__init__(clock)
        self._check = check

    async def check(self) -> None:
        """Implement ``Checked``."""
        await self._check()


class SickStorage(MemoryObjectStorage):
    """A storage whose check ends as it is told to."""

    def __init__(self, clock: Clock, check: Callable[[], Awaitable[None]]) -> None:
        super().__init__("https://edge.test", clock)
        self._check = check

    async def check(self) -> None:
        """Implement ``Checked``."""
        await self._check()


class SickBackend(ThresholdBackend):
    """A backend whose check ends as it is told to."""

    def __init__(self, clock: Clock, check: Callable[[], Awaitable[None]]) -> None:
        super().__init__(MemoryObjectStorage("https://edge.test", clock))
        self._check = check

    async def check(self) -> None:
        """Implement ``Checked``."""
        await self._check()


class SickAuthenticator(MemoryAuthenticator):
    """An authenticator whose check ends as it is told to."""

    def __init__(self, clock: Clock, check: Callable[[], Awaitable[None]]) -> None:
        super().__init__(clock)
        self._check = check

    async def check(self) -> None:
        """Implement ``Checked``."""
        await self._check()


class UntouchableLimiter(MemoryRateLimiter):
    """Fails the test when it is asked anything."""

    async def hit(self, subject: str, limit: RateLimit) -> Allowance:
        """Implement ``RateLimiter``."""
        return untouched()


def untouched() -> NoReturn:
    """Fail the test."""
    pytest.fail("a dependency was touched")


async def touched() -> None:
    """Fail the test when a check is made."""
    untouched()


def make_sick(
    gateway: Gateway, clock: Clock, names: Sequence[str], check: Callable[[], Awaitable[None]]
) -> None:
    """Replace dependencies by ones whose check ends so."""
    if "database" in names:
        gateway.database = SickDatabase(clock, check)
    if "storage" in names:
        gateway.storage = SickStorage(clock, check)
    if "backend" in names:
        gateway.backend = SickBackend(clock, check)
    if "auth" in names:
        gateway.authenticator = SickAuthenticator(clock, check)


async def test_health_says_that_the_process_is_up(send: Send, data_of: Check, clock: Clock) -> None:
    """Status, time and version, exactly."""
    data = data_of(await send("GET", "/health", user=None))

    assert data.keys() == {"status", "timestamp", "version"}
    assert (data["status"], data["version"]) == ("ok", s3edge.__version__)
    assert datetime.fromisoformat(data["timestamp"]) == clock.now()


async def test_health_touches_no_dependency(
    send: Send, gateway: Gateway, clock: Clock, data_of: Check
) -> None:
    """A load balancer's question is answered with everything else down."""
    make_sick(gateway, clock, NAMES, touched)
    gateway.rate_limiter = UntouchableLimiter(clock)

    for _ in range(200):
        data_of(await send("GET", "/health", user=None))


async def test_ready_asks_every_dependency(send: Send, data_of: Check) -> None:
    """When all work, the status is ok and each has its latency."""
    data = data_of(await send("GET", "/health/ready", user=None))

    assert data["status"] == "ok"
    assert list(data["checks"]) == NAMES
    for check in data["checks"].values():
        assert check.keys() == {"ok", "latency_ms"}
        assert check["ok"] is True
        assert check["latency_ms"] >= 0


@pytest.mark.parametrize(
    ("sick", "status", "says"),
    [
        (["database"], 503, "unavailable"),
        (["storage"], 503, "unavailable"),
        (["backend"], 200, "degraded"),
        (["auth"], 200, "degraded"),
        (["backend", "auth"], 200, "degraded"),
        (["storage", "backend"], 503, "unavailable"),
        (NAMES, 503, "unavailable"),
    ],
)
async def test_readiness_depends_on_what_is_down(
    send: Send,
    gateway: Gateway,
    clock: Clock,
    data_of: Check,
    sick: list[str],
    status: int,
    says: str,
) -> None:
    """Without database or storage nothing works; without the backend tasks only wait."""
    make_sick(gateway, clock, sick, down)

    response = await send("GET", "/health/ready", user=None)

    data = data_of(response, status)
    assert data["status"] == says
    assert [name for name, check in data["checks"].items() if not check["ok"]] == sick
    assert {data["checks"][name]["message"] for name in sick} == {"It is down."}
    assert ("retry-after" in dict(response.headers)) == (status == 503)


async def test_a_check_that_breaks_hides_its_internals(
    send: Send,
    gateway: Gateway,
    clock: Clock,
    data_of: Check,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An unforeseen error counts as down; what it was is in the log."""
    make_sick(gateway, clock, NAMES, broken)

    data = data_of(await send("GET", "/health/ready", user=None), 503)

    assert "hunter2" not in str(data)
    assert "hunter2" in caplog.text


async def test_checks_that_hang_end_together(
    send: Send, gateway: Gateway, clock: Clock, data_of: Check
) -> None:
    """Dependencies are asked all at once, and none for longer than its time."""
    make_sick(gateway, clock, NAMES, hanging)
    began = anyio.current_time()

    data = data_of(await send("GET", "/health/ready", user=None), 503)

    assert anyio.current_time() == pytest.approx(began + CHECK_TIMEOUT_S)
    assert {"2 seconds" in check["message"] for check in data["checks"].values()} == {True}
