"""While all GPU servers rest, a prediction waits for one, and not for ever."""

from collections.abc import Awaitable, Callable, Mapping
from uuid import UUID, uuid4

import anyio
import pytest

from s3edge.errors import Code, EdgeError
from s3edge.memory import MemoryDatabase, MemoryObjectStorage
from s3edge.ports import Clock
from s3edge.rules.keys import unsigned, upload_key
from s3edge.rules.lifecycle import MAX_PREDICT_TRIES
from s3edge.testing.standins.scripted_server import (
    Received,
    Reply,
    ScriptedServer,
    raw,
    reply,
)
from s3edge.usecases.dispatch_task import dispatch_task
from s3edge.values import NewTask, PredictRequest, TaskStatus, User
from s3edge_inference import servers
from s3edge_inference.http_backend import HttpBackend
from s3edge_inference.servers import FAILURES_TO_REST


pytestmark = pytest.mark.anyio

Refusal = Callable[[HttpBackend], Awaitable[EdgeError]]

KEY = "the-secret-key"

PREDICT = "/api/v1/predict"
INFO = "/api/v1/model/info"

REQUEST = PredictRequest(
    UUID("11111111-1111-4111-8111-111111111111"), UUID(int=2), "http://images.test/a", "x"
)

SHORT_REST_S = 0.2

LONG_S = 30.0
"""Nothing here takes nearly as long."""


@pytest.fixture(autouse=True)
def _short_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tests wait for several rests."""
    monkeypatch.setattr(servers, "REST_S", SHORT_REST_S)


async def rest(backend: HttpBackend, server: ScriptedServer, refusal: Refusal) -> None:
    """Have the only server of a backend rested, and stay down."""
    server.replies[PREDICT] = raw(b"")
    server.replies[INFO] = reply({}, 502)
    for _ in range(FAILURES_TO_REST):
        await refusal(backend)


async def test_predictions_wait_for_a_server_that_comes_back(
    server: ScriptedServer, refusal: Refusal, well: Mapping[str, Reply]
) -> None:
    """None is refused, over several rests; one tries it, then all are served."""
    async with HttpBackend([server.url], KEY, place_timeout_s=LONG_S) as backend:
        await rest(backend, server, refusal)
        sent = server.count(PREDICT)
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(backend.predict, REQUEST)
            while server.count(INFO) < 3:
                await anyio.sleep(0.01)
            assert server.count(PREDICT) == sent
            server.replies.update(well)
        assert server.count(PREDICT) == sent + 20


async def test_the_first_answer_of_any_server_ends_the_wait(
    server: ScriptedServer, other: ScriptedServer, well: Mapping[str, Reply]
) -> None:
    """Also that of a request which was sent before the servers were rested."""
    answered = anyio.Event()

    async def slow(received: Received) -> bytes:
        await answered.wait()
        return await well[PREDICT](received)

    async with (
        HttpBackend([server.url, other.url], KEY, place_timeout_s=LONG_S) as backend,
        anyio.create_task_group() as group,
    ):
        server.replies[PREDICT] = slow
        group.start_soon(backend.predict, REQUEST)
        while not server.count(PREDICT):
            await anyio.sleep(0.01)
        for each in (server, other):
            each.replies[PREDICT] = raw(b"")
            each.replies[INFO] = reply({}, 502)
        for _ in range(2 * FAILURES_TO_REST):
            with pytest.raises(EdgeError):
                await backend.predict(REQUEST)
        group.start_soon(backend.predict, REQUEST)
        while not (server.count(INFO) and other.count(INFO)):
            await anyio.sleep(0.01)
        server.replies[PREDICT] = well[PREDICT]
        answered.set()
    # The small question is answered by nobody, so that nothing else brings a server back.
    assert other.count(PREDICT) == FAILURES_TO_REST


async def test_the_wait_has_an_end(server: ScriptedServer, refusal: Refusal) -> None:
    """It says then when to come back, and that another try may succeed."""
    async with HttpBackend([server.url], KEY, place_timeout_s=15 * SHORT_REST_S) as backend:
        await rest(backend, server, refusal)
        with anyio.fail_after(LONG_S):
            error = await refusal(backend)
    assert (error.code, error.retryable) == (Code.SERVICE_UNAVAILABLE, True)
    assert (error.message, error.retry_after_s) == ("No GPU server can be used now; try again.", 1)
    assert server.count(INFO) >= 2


async def test_half_of_the_callers_time_is_left_for_the_answer(
    server: ScriptedServer, refusal: Refusal, well: Mapping[str, Reply]
) -> None:
    """The wait ends before; a server is never blamed for what it was given too late."""
    async with HttpBackend([server.url], KEY, place_timeout_s=LONG_S) as backend:
        await rest(backend, server, refusal)
        with anyio.fail_after(30 * SHORT_REST_S) as limit:
            error = await refusal(backend)
            assert anyio.current_time() <= limit.deadline - 10 * SHORT_REST_S
        assert error.message == "No GPU server can be used now; try again."
        server.replies.update(well)
        await backend.predict(REQUEST)


async def test_a_task_keeps_its_tries_while_all_servers_rest(
    server: ScriptedServer, clock: Clock, refusal: Refusal, well: Mapping[str, Reply]
) -> None:
    """More rests go by than it has tries, and it ends well all the same."""
    user = User(UUID(int=2))
    database = MemoryDatabase(clock)
    storage = MemoryObjectStorage("https://edge.test", clock)
    url = unsigned(storage.url_for(upload_key(user.user_id, uuid4())))
    task = (await database.reserve_task(user, NewTask(REQUEST.task_id, url, "x"))).task
    async with HttpBackend([server.url], KEY, place_timeout_s=LONG_S) as backend:
        await rest(backend, server, refusal)

        async def mend() -> None:
            while server.count(INFO) <= MAX_PREDICT_TRIES:
                await anyio.sleep(0.01)
            server.replies.update(well)

        async with anyio.create_task_group() as group:
            group.start_soon(mend)
            assert await dispatch_task(
                task, database=database, storage=storage, backend=backend, random=lambda: 1.0
            )
    ended = await database.task(user, task.id)
    assert ended is not None
    assert ended.status is TaskStatus.DONE
    assert server.count(PREDICT) == FAILURES_TO_REST + 1
