"""What a backend of GPU servers says of itself: its settings, its checks, its examination."""

import math
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from s3edge.errors import Code, EdgeError
from s3edge.gateway import RandomIds, SystemClock
from s3edge.ports import Examinable, Finding, Wiring
from s3edge.testing import ManualClock
from s3edge.testing.standins.scripted_server import Reply, ScriptedServer, raw, reply, silence
from s3edge.values import PredictRequest
from s3edge_inference import http_backend
from s3edge_inference.http_backend import HttpBackend, from_url
from s3edge_inference.servers import FAILURES_TO_REST, REST_S


pytestmark = pytest.mark.anyio

Refusal = Callable[[HttpBackend], Awaitable[EdgeError]]

KEY = "the-secret-key"

PREDICT = "/api/v1/predict"
INFO = "/api/v1/model/info"
HEALTH_PATH = "/health"

REQUEST = PredictRequest(
    UUID("11111111-1111-4111-8111-111111111111"), UUID(int=2), "http://images.test/a", "x"
)

SHORT_S = 0.5
"""As long as the tests wait for what never comes."""


def health(**changes: Any) -> dict[str, Any]:
    """Return how a server says it is."""
    answer = {
        "status": "ok",
        "model_loaded": True,
        "gpu_available": True,
        "gpu_name": "NVIDIA L4",
        "vram_used_mb": 5120,
        "vram_total_mb": 23034,
    }
    return answer | changes


@pytest.mark.parametrize(
    ("health", "fault"),
    [
        (raw(b""), "1 without an answer"),
        (silence, "1 without an answer"),
        (reply(b"<html>"), "1 without a sound answer"),
        (reply({"status": "ok"}), "1 without a sound answer"),
        (reply(health(), 500), "1 not well"),
        (reply(health(status="loading")), "1 not well"),
        (reply(health(model_loaded=False)), "1 without its model loaded"),
    ],
)
async def test_a_server_that_would_not_segment_fails_the_check(
    backend: HttpBackend,
    server: ScriptedServer,
    health: Reply,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The message says why, without an address: anybody can read it."""
    monkeypatch.setattr(http_backend, "CHECK_TIMEOUT_S", SHORT_S)
    server.replies[HEALTH_PATH] = health
    with pytest.raises(EdgeError) as caught:
        await backend.check()
    assert caught.value.code is Code.SERVICE_UNAVAILABLE
    assert caught.value.message == f"No GPU server can be used: {fault}."


async def test_health_may_lack_what_decides_nothing(
    backend: HttpBackend, server: ScriptedServer
) -> None:
    """A server without a GPU has nothing to say of one."""
    server.replies[HEALTH_PATH] = reply(
        {"status": "ok", "model_loaded": True, "gpu_name": None, "vram_used_mb": None}
    )
    await backend.check()


async def test_one_server_that_works_is_enough(
    both: HttpBackend, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check passes at once, also beside one that hangs."""
    monkeypatch.setattr(http_backend, "CHECK_TIMEOUT_S", math.inf)
    server.replies[HEALTH_PATH] = silence
    await both.check()


async def test_without_any_the_check_counts_them(
    both: HttpBackend, server: ScriptedServer, other: ScriptedServer
) -> None:
    """So that the operator sees where to look."""
    server.replies[HEALTH_PATH] = raw(b"")
    other.replies[HEALTH_PATH] = reply(health(model_loaded=False))
    with pytest.raises(EdgeError, match="1 without an answer") as caught:
        await both.check()
    assert "1 without its model loaded" in caught.value.message


async def test_a_rested_server_fails_the_check(
    backend: HttpBackend,
    server: ScriptedServer,
    time: ManualClock,
    refusal: Refusal,
    well: Mapping[str, Reply],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its health is well, but no prediction works; afterwards the key must be good, too."""
    server.replies[PREDICT] = reply({}, 401)
    for _ in range(FAILURES_TO_REST):
        await refusal(backend)
    with pytest.raises(EdgeError, match="1 resting after failures"):
        await backend.check()
    time.advance(REST_S)
    server.replies[INFO] = reply({}, 401)
    with pytest.raises(EdgeError, match="1 resting after failures"):
        await backend.check()
    monkeypatch.setattr(http_backend, "CHECK_TIMEOUT_S", SHORT_S)
    server.replies[INFO] = silence
    with pytest.raises(EdgeError, match="1 without an answer"):
        await backend.check()
    monkeypatch.undo()
    server.replies[INFO] = well[INFO]
    await backend.check()


async def test_a_check_says_nothing_of_predictions(
    backend: HttpBackend, server: ScriptedServer
) -> None:
    """It rests no server, and brings none back."""
    server.replies[HEALTH_PATH] = raw(b"")
    for _ in range(FAILURES_TO_REST):
        with pytest.raises(EdgeError):
            await backend.check()
    await backend.predict(REQUEST)


def wiring(tmp_path: Path, **vendor: str) -> Wiring:
    """Return what the composition root says."""
    return Wiring(
        data_dir=tmp_path,
        public_url="http://edge.test",
        clock=SystemClock(),
        ids=RandomIds(),
        initial_credits=100,
        segment_cost=1,
        task_deadline_s=900,
        tier_claim="app_metadata.tier",
        vendor=vendor,
    )


async def test_several_servers_are_named_by_comma(
    server: ScriptedServer, other: ScriptedServer, tmp_path: Path
) -> None:
    """Blanks and slashes at the ends make no difference."""
    value = f" {server.url}/ , {other.url}"
    backend = from_url(value, wiring(tmp_path, API_SECRET_KEY=KEY))
    assert isinstance(backend, HttpBackend)
    assert isinstance(backend, Examinable)
    assert KEY not in repr(backend)
    async with backend:
        for _ in range(4):
            await backend.predict(REQUEST)
    assert (server.count(PREDICT), other.count(PREDICT)) == (2, 2)


@pytest.mark.parametrize(
    "value",
    [
        "http://gpu1:8000",
        "https://gpu.example.com",
        "http://gpu_1:8000/base/path",
        "http://[::1]:8000,http://10.0.0.1",
        "HTTP://gpu1",
    ],
)
def test_usual_addresses_are_taken(value: str, tmp_path: Path) -> None:
    """Names, numbers, ports and base paths."""
    assert isinstance(from_url(value, wiring(tmp_path, API_SECRET_KEY=KEY)), HttpBackend)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("http://", "URL 1 is malformed; write http://host:port"),
        ("http://gpu1,", "URL 2 is malformed"),
        ("http://gpu1,gpu2:8000", "URL 2 is malformed"),
        ("http://gpu1:port", "URL 1 is malformed"),
        ("http://gpu1:99999", "URL 1 is malformed"),
        ("http://gpu1:", "URL 1 is malformed"),
        ("http://gpu1:0", "URL 1 is malformed"),
        ("http://[::1", "URL 1 is malformed"),
        ("http://gpu 1", "URL 1 is malformed"),
        ("http://gpu1/a b", "URL 1 is malformed"),
        ("http://gpü1", "URL 1 is malformed"),
        ("http:gpu1", "URL 1 is malformed"),
        ("http://gpu1,ftp://gpu2", "URL 2 is malformed"),
        ("http://user:hunter2@gpu1", "URL 1 holds credentials; leave them out"),
        ("http://gpu1/?key=hunter2", "URL 1 has a query or a fragment; leave it out"),
        ("http://gpu1/#hunter2", "URL 1 has a query or a fragment; leave it out"),
        ("http://gpu1,http://gpu1/", "named twice; name each once"),
        (",".join(f"http://gpu{n}" for n in range(65)), "name 64 at the most"),
    ],
)
def test_malformed_addresses_stop_the_start(value: str, message: str, tmp_path: Path) -> None:
    """One line says which, what to do, and no secret."""
    with pytest.raises(ValueError, match=message) as caught:
        from_url(value, wiring(tmp_path, API_SECRET_KEY=KEY))
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("vendor", [{}, {"API_SECRET_KEY": ""}])
def test_a_key_is_needed(vendor: Mapping[str, str], tmp_path: Path) -> None:
    """The contract leaves no choice."""
    with pytest.raises(ValueError, match="set API_SECRET_KEY"):
        from_url("http://gpu1", wiring(tmp_path, **vendor))


@pytest.mark.parametrize("key", ["hun ter2", "hunter2ü", "hun\x00ter2"])
def test_a_key_that_no_header_carries_stops_the_start(key: str, tmp_path: Path) -> None:
    """It would be refused by every server, or end the request."""
    with pytest.raises(ValueError, match="API_SECRET_KEY") as caught:
        from_url("http://gpu1", wiring(tmp_path, API_SECRET_KEY=key))
    assert "hun" not in str(caught.value)


async def test_a_backend_that_is_not_open_serves_nothing(
    server: ScriptedServer,
) -> None:
    """That is our fault, and no server's."""
    backend = HttpBackend([server.url], KEY)
    for _ in range(FAILURES_TO_REST + 1):
        with pytest.raises(EdgeError, match="not open"):
            await backend.predict(REQUEST)


async def findings(backend: HttpBackend) -> list[Finding]:
    """Return what an examination finds, having looked that no secret is in it."""
    found = [finding async for finding in backend.examine()]
    assert not any(KEY in f"{one.name}{one.message}" or "\n" in one.message for one in found)
    return found


async def test_a_sound_server_is_told_of(backend: HttpBackend, server: ScriptedServer) -> None:
    """Its health, its model and its GPU, and that it takes the key."""
    name = f"GPU server 1 ({server.url.removeprefix('http://')})"
    assert await findings(backend) == [
        Finding(name, ok=True, message="it answers"),
        Finding(f"{name}, model", ok=True, message="loaded; NVIDIA L4, 5120 of 23034 MB in use"),
        Finding(f"{name}, key", ok=True, message="accepted; sam3 3.0 on cuda:0"),
    ]
    assert "x-api-key" not in server.received[0].headers


@pytest.mark.parametrize(
    ("path", "answer", "verdicts", "advice"),
    [
        ("/health", raw(b""), [False], "start it, or correct its address"),
        ("/health", silence, [False], "start it, or correct its address"),
        ("/health", reply(b"<html>"), [False], "correct its address"),
        ("/health", reply(health(), 404), [False], "correct its address"),
        (
            "/health",
            reply(health(status="failing")),
            [False, True, True],
            "it says that it is not well",
        ),
        (
            "/health",
            reply(health(model_loaded=False)),
            [True, False, True],
            "wait until it is, or see the server's log",
        ),
        (
            INFO,
            reply({}, 401),
            [True, True, False],
            "API_SECRET_KEY differs from the server's",
        ),
        (
            INFO,
            reply({}, 403),
            [True, True, False],
            "API_SECRET_KEY differs from the server's",
        ),
        (INFO, reply({}, 404), [True, True, False], "status 404"),
        (INFO, reply(b"<html>"), [True, True, False], "see the server's log"),
        (INFO, raw(b""), [True, True, False], "see the server's log"),
        (INFO, reply({}, 503), [True, True, True], "not refused"),
    ],
)
async def test_each_fault_is_told_with_its_fix(
    backend: HttpBackend,
    server: ScriptedServer,
    path: str,
    answer: Reply,
    verdicts: list[bool],
    advice: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One line each."""
    monkeypatch.setattr("s3edge_inference.examination.EXAMINATION_TIMEOUT_S", SHORT_S)
    server.replies[path] = answer
    found = await findings(backend)
    assert [finding.ok for finding in found] == verdicts
    assert any(advice in finding.message for finding in found)


async def test_every_server_is_looked_at(both: HttpBackend, server: ScriptedServer) -> None:
    """Also behind one that is away; a terminal gets no control characters of theirs."""
    server.replies[HEALTH_PATH] = raw(b"")
    found = await findings(both)
    assert [finding.name.split(" (")[0] for finding in found] == ["GPU server 1"] + [
        "GPU server 2"
    ] * 3
    server.replies[HEALTH_PATH] = reply(health(gpu_name="\x1b[31mL4\n"))
    assert (await findings(both))[1].message.startswith("loaded; [31mL4, ")


async def test_a_server_without_a_gpu_says_so(backend: HttpBackend, server: ScriptedServer) -> None:
    """It works, more slowly."""
    server.replies[HEALTH_PATH] = reply(health(gpu_available=False))
    assert (await findings(backend))[1].message == "loaded; no GPU"
