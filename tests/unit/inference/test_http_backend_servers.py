"""Which of several GPU servers is asked, and when one is left alone."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from uuid import UUID

import anyio
import pytest

from s3edge.errors import Code, EdgeError
from s3edge.testing import ManualClock
from s3edge.testing.standins.fault_proxy import FaultProxy, Mode
from s3edge.testing.standins.scripted_server import (
    Received,
    Reply,
    ScriptedServer,
    raw,
    reply,
    silence,
)
from s3edge.values import PredictRequest
from s3edge_inference import http_backend
from s3edge_inference.http_backend import SILENCE_S, HttpBackend
from s3edge_inference.servers import FAILURES_TO_REST, PATIENCE_S, REST_S


pytestmark = pytest.mark.anyio

Refusal = Callable[[HttpBackend], Awaitable[EdgeError]]
Logged = Callable[[], list[tuple[int, str]]]

KEY = "the-secret-key"

PREDICT = "/api/v1/predict"
INFO = "/api/v1/model/info"

REQUEST = PredictRequest(
    UUID("11111111-1111-4111-8111-111111111111"), UUID(int=2), "http://images.test/a", "x"
)

SHORT_S = 0.2
"""As long as the tests wait for what never comes."""


async def fail_until_rested(backend: HttpBackend, refusal: Refusal) -> None:
    """Have a failing server rested."""
    for _ in range(FAILURES_TO_REST):
        await refusal(backend)


def is_resting(error: EdgeError) -> bool:
    """Tell whether a request was refused because all servers rest."""
    return error.message == "No GPU server can be used now; try again."


async def test_servers_share_the_work(
    both: HttpBackend, server: ScriptedServer, other: ScriptedServer, well: Mapping[str, Reply]
) -> None:
    """The least busy is next."""
    answered = asyncio.Event()

    async def slow(received: Received) -> bytes:
        await answered.wait()
        return await well[PREDICT](received)

    server.replies[PREDICT] = slow
    async with anyio.create_task_group() as group:
        group.start_soon(both.predict, REQUEST)
        while not server.received:
            await anyio.lowlevel.checkpoint()
        for _ in range(3):
            await both.predict(REQUEST)
        assert (server.count(PREDICT), other.count(PREDICT)) == (1, 3)
        answered.set()


async def test_a_failing_server_is_rested_and_comes_back(
    backend: HttpBackend,
    server: ScriptedServer,
    time: ManualClock,
    refusal: Refusal,
    well: Mapping[str, Reply],
) -> None:
    """Nothing is sent to it meanwhile; after the rest it serves as before."""
    server.replies[PREDICT] = raw(b"")
    await fail_until_rested(backend, refusal)
    server.replies[PREDICT] = well[PREDICT]
    time.advance(REST_S - 1.5)
    error = await refusal(backend)
    assert is_resting(error)
    assert (error.code, error.retryable, error.retry_after_s) == (Code.SERVICE_UNAVAILABLE, True, 2)
    assert server.count(PREDICT) == FAILURES_TO_REST
    time.advance(1.5)
    for _ in range(5):
        await backend.predict(REQUEST)


@pytest.mark.parametrize(
    ("answer", "rests"),
    [
        (raw(b""), True),
        (reply(b"<html>"), True),
        (reply({}, 500), False),
        (reply({}, 501), True),
        (reply({}, 502), True),
        (reply({}, 503), True),
        (reply({}, 504), True),
        (reply({}, 401), True),
        (reply({}, 404), True),
        (reply({}, 302), True),
        (reply({}, 400), False),
        (reply({}, 422), False),
        (reply({}, 429), False),
        (reply({}, 503, Retry_After="1"), False),
        (reply({"error": "MODEL_NOT_LOADED"}, 503), False),
    ],
)
async def test_what_rests_a_server(
    backend: HttpBackend, server: ScriptedServer, answer: Reply, rests: bool
) -> None:
    """Whatever makes it useless; not a bad image, nor that it asks for time."""
    server.replies[PREDICT] = answer
    for _ in range(FAILURES_TO_REST):
        with suppress(EdgeError):
            await backend.predict(REQUEST)
    sent = server.count(PREDICT)
    with suppress(EdgeError):
        await backend.predict(REQUEST)
    assert (server.count(PREDICT) == sent) is rests


async def test_the_others_take_the_work_of_a_failing_one(
    both: HttpBackend, server: ScriptedServer, other: ScriptedServer, time: ManualClock
) -> None:
    """One request is lost to it at a time, not every second one."""
    server.replies[PREDICT] = reply({}, 502)
    failed = 0
    for _ in range(20):
        try:
            await both.predict(REQUEST)
        except EdgeError:
            failed += 1
    assert (failed, other.count(PREDICT)) == (1, 19)
    for _ in range(FAILURES_TO_REST - 1):
        time.advance(REST_S)
        for _ in range(2):
            with suppress(EdgeError):
                await both.predict(REQUEST)
    sent = server.count(PREDICT)
    assert sent == FAILURES_TO_REST
    for _ in range(5):
        await both.predict(REQUEST)
    assert server.count(PREDICT) == sent


async def test_a_server_that_loads_its_model_leaves_the_work_to_others(
    both: HttpBackend, server: ScriptedServer, other: ScriptedServer
) -> None:
    """It answers at once, and so would always look the least busy."""
    server.replies[PREDICT] = reply({"error": "MODEL_NOT_LOADED"}, 503)
    with pytest.raises(EdgeError):
        await both.predict(REQUEST)
    for _ in range(5):
        await both.predict(REQUEST)
    assert (server.count(PREDICT), other.count(PREDICT)) == (1, 5)


@pytest.mark.parametrize(
    "info", [raw(b""), reply({}, 401), reply({}, 502), reply(b"<html>"), silence]
)
async def test_a_rested_server_must_answer_a_small_question_first(
    backend: HttpBackend,
    server: ScriptedServer,
    time: ManualClock,
    info: Reply,
    monkeypatch: pytest.MonkeyPatch,
    refusal: Refusal,
    well: Mapping[str, Reply],
) -> None:
    """No task waits for a server that is silent or still refuses the key."""
    monkeypatch.setattr(http_backend, "PROBE_TIMEOUT_S", SHORT_S)
    server.replies[PREDICT] = raw(b"")
    await fail_until_rested(backend, refusal)
    server.replies[INFO] = info
    time.advance(REST_S)
    assert is_resting(await refusal(backend))
    assert server.count(PREDICT) == FAILURES_TO_REST
    monkeypatch.undo()
    server.replies[PREDICT] = well[PREDICT]
    server.replies[INFO] = well[INFO]
    time.advance(REST_S)
    await backend.predict(REQUEST)


async def test_a_trial_that_finds_no_model_says_so(
    backend: HttpBackend, server: ScriptedServer, time: ManualClock, refusal: Refusal
) -> None:
    """A server that was restarted is back before its model is."""
    server.replies[PREDICT] = raw(b"")
    await fail_until_rested(backend, refusal)
    not_loaded = reply({"error": "MODEL_NOT_LOADED"}, 503)
    server.replies[INFO] = not_loaded
    server.replies[PREDICT] = not_loaded
    time.advance(REST_S)
    assert (await refusal(backend)).code is Code.MODEL_NOT_LOADED


async def test_a_trial_does_not_cost_a_task_while_another_serves(
    both: HttpBackend,
    server: ScriptedServer,
    other: ScriptedServer,
    time: ManualClock,
    refusal: Refusal,
    well: Mapping[str, Reply],
) -> None:
    """The small question fails, and the task goes to the other."""
    server.replies[PREDICT] = raw(b"")
    other.replies[PREDICT] = raw(b"")
    for _ in range(2 * FAILURES_TO_REST):
        await refusal(both)
    other.replies[PREDICT] = well[PREDICT]
    server.replies[INFO] = raw(b"")
    time.advance(REST_S)
    for _ in range(5):
        await both.predict(REQUEST)
    assert server.count(PREDICT) == FAILURES_TO_REST


async def test_one_request_tries_a_server_and_the_others_follow(
    backend: HttpBackend,
    server: ScriptedServer,
    time: ManualClock,
    refusal: Refusal,
    well: Mapping[str, Reply],
) -> None:
    """At once when it is answered; after a second when the model takes its time."""
    server.replies[PREDICT] = raw(b"")
    await fail_until_rested(backend, refusal)
    answered = asyncio.Event()

    async def slow(received: Received) -> bytes:
        await answered.wait()
        return await well[PREDICT](received)

    server.replies[PREDICT] = slow
    time.advance(REST_S)
    async with anyio.create_task_group() as group:
        group.start_soon(backend.predict, REQUEST)
        while server.count(PREDICT) == FAILURES_TO_REST:
            await anyio.lowlevel.checkpoint()
        assert is_resting(await refusal(backend))
        time.advance(PATIENCE_S)
        server.replies[PREDICT] = well[PREDICT]
        await backend.predict(REQUEST)
        answered.set()


async def give_up(backend: HttpBackend, after_s: float | None = SHORT_S) -> None:
    """Ask for a prediction that never comes, with a time limit as the use case has it."""
    with pytest.raises(TimeoutError), anyio.fail_after(after_s):
        await backend.predict(REQUEST)


async def test_a_silent_server_is_rested(
    backend: HttpBackend, server: ScriptedServer, logged: Logged, refusal: Refusal
) -> None:
    """Three predictions that ran into the caller's time limit are three failures."""
    server.replies[PREDICT] = silence
    async with anyio.create_task_group() as group:
        for _ in range(FAILURES_TO_REST):
            group.start_soon(give_up, backend)
    assert is_resting(await refusal(backend))
    assert {line.partition(") ")[2] for _, line in logged()} == {
        "did not answer a prediction in time"
    }


async def ask_and_stop(
    backend: HttpBackend, server: ScriptedServer, waited_s: float, time: ManualClock
) -> None:
    """Ask for a prediction, and cancel that as a stop of the process does."""
    sent = server.count(PREDICT)
    async with anyio.create_task_group() as group:
        group.start_soon(backend.predict, REQUEST)
        while server.count(PREDICT) == sent:
            await anyio.lowlevel.checkpoint()
        time.advance(waited_s)
        group.cancel_scope.cancel()


@pytest.mark.parametrize("has_limit", [True, False])
async def test_a_stop_is_no_failure(
    backend: HttpBackend,
    server: ScriptedServer,
    time: ManualClock,
    has_limit: bool,
    well: Mapping[str, Reply],
) -> None:
    """A gateway that is told to stop says nothing of its servers."""
    server.replies[PREDICT] = silence
    for _ in range(FAILURES_TO_REST):
        with anyio.fail_after(60 if has_limit else None):
            await ask_and_stop(backend, server, SILENCE_S - 1, time)
    server.replies[PREDICT] = well[PREDICT]
    await backend.predict(REQUEST)


async def test_a_stop_before_it_began_is_no_failure(
    backend: HttpBackend, server: ScriptedServer
) -> None:
    """Nothing was even sent."""
    for _ in range(FAILURES_TO_REST):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await backend.predict(REQUEST)
    await backend.predict(REQUEST)


async def test_giving_up_after_a_long_wait_is_a_failure(
    backend: HttpBackend, server: ScriptedServer, time: ManualClock, refusal: Refusal
) -> None:
    """A caller without a deadline of anyio's is believed after half a minute."""
    server.replies[PREDICT] = silence
    for _ in range(FAILURES_TO_REST):
        await ask_and_stop(backend, server, SILENCE_S, time)
    assert is_resting(await refusal(backend))


async def test_a_trial_that_is_stopped_does_not_block_the_server(
    backend: HttpBackend,
    server: ScriptedServer,
    time: ManualClock,
    refusal: Refusal,
    well: Mapping[str, Reply],
) -> None:
    """Neither while the small question is out, nor later."""
    server.replies[PREDICT] = raw(b"")
    await fail_until_rested(backend, refusal)
    time.advance(REST_S)
    server.replies[INFO] = silence
    sent = len(server.received)
    async with anyio.create_task_group() as group:
        group.start_soon(backend.predict, REQUEST)
        while len(server.received) == sent:
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    server.replies[INFO] = well[INFO]
    server.replies[PREDICT] = silence
    await ask_and_stop(backend, server, 0, time)
    server.replies[PREDICT] = well[PREDICT]
    await backend.predict(REQUEST)


@pytest.mark.parametrize("mode", [Mode.REFUSE, Mode.ERROR, Mode.GARBAGE, Mode.HANG])
async def test_service_is_full_after_the_rest(
    server: ScriptedServer,
    time: ManualClock,
    mode: Mode,
    refusal: Refusal,
) -> None:
    """However the server went, when it is back every prediction works."""
    _, _, port = server.url.rpartition(":")
    with FaultProxy("127.0.0.1", int(port)) as proxy:
        async with HttpBackend(
            [proxy.url], KEY, now=lambda: time.now().timestamp(), place_timeout_s=0
        ) as backend:
            await backend.predict(REQUEST)
            await anyio.to_thread.run_sync(setattr, proxy, "mode", mode)
            for _ in range(FAILURES_TO_REST):
                with pytest.raises((EdgeError, TimeoutError)), anyio.fail_after(SHORT_S):
                    await backend.predict(REQUEST)
            assert is_resting(await refusal(backend))
            with pytest.raises(EdgeError):
                await backend.check()
            await anyio.to_thread.run_sync(setattr, proxy, "mode", Mode.PASS)
            time.advance(REST_S)
            await backend.check()
            for _ in range(5):
                await backend.predict(REQUEST)
