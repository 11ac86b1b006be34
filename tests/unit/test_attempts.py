"""Several processes over one database: who lost a task changes nothing of it any more."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

import anyio
import pytest

from s3edge.errors import Code, EdgeError, invalid, unavailable
from s3edge.gateway import BACKLOG_RETRY_AFTER_S
from s3edge.memory import (
    MemoryDatabase,
    MemoryObjectStorage,
)
from s3edge.ports import Clock, EndNews
from s3edge.rules.lifecycle import LEASE_S, RECOVERY_INTERVAL_S
from s3edge.usecases.dispatch_task import dispatch_task
from s3edge.usecases.read_task import read_task
from s3edge.values import (
    BatchPrediction,
    BatchPredictRequest,
    ModelInfo,
    Outcome,
    Prediction,
    PredictRequest,
    Task,
    TaskStatus,
    User,
)
from tests.unit.dispatching import ALICE, gateway_of, reserved, stored


pytestmark = pytest.mark.anyio

DEADLINE_S = 1000

LATE = "changes nothing"


@pytest.fixture(scope="module")
def anyio_backend(jumping_loop: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Let time pass at once."""
    return jumping_loop


class Backend:
    """Does as it is told with each request, and counts them."""

    def __init__(self, answer: Callable[[], Awaitable[None]]) -> None:
        self._answer = answer
        self.requests = 0

    async def predict(self, request: PredictRequest) -> Prediction:
        """Implement ``InferenceBackend``."""
        self.requests += 1
        await self._answer()
        return Prediction(request.task_id, "https://gpu.test/m", [], 1.0, 1.0)

    async def predict_batch(self, request: BatchPredictRequest) -> BatchPrediction:
        """Implement ``InferenceBackend``."""
        return BatchPrediction(request.task_id, [], 0.0)

    async def model_info(self) -> ModelInfo:
        """Implement ``InferenceBackend``."""
        return ModelInfo("told", "1", 0, 0.0, "cpu", "uint8")

    async def check(self) -> None:
        """Implement ``Checked``."""


class Database(MemoryDatabase):
    """Loses heartbeats for a while, as for a process that stands still; counts looks at tasks."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, task_deadline_s=DEADLINE_S)
        self.loses_heartbeats = False
        self.looks = 0

    async def extend_leases(self, held: Mapping[UUID, int], lease_s: float) -> None:
        """Implement ``Database``."""
        if self.loses_heartbeats:
            raise unavailable("lost")
        await super().extend_leases(held, lease_s)

    async def task(self, user: User, task_id: UUID) -> Task | None:
        """Implement ``Database``."""
        self.looks += 1
        return await super().task(user, task_id)


class TellingDatabase(Database):
    """Announces the ends that a test tells it of, until it breaks."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.news: EndNews | None = None
        self.breaks = anyio.Event()

    async def announce_ends(self, news: EndNews) -> None:
        """Implement ``AnnouncesEnds``."""
        self.news = news
        await self.breaks.wait()
        raise RuntimeError("a fault of ours")


@pytest.fixture
def database(clock: Clock) -> Database:
    """Keep tasks in memory."""
    return Database(clock)


@pytest.fixture
def storage(clock: Clock) -> MemoryObjectStorage:
    """Keep images in memory."""
    return MemoryObjectStorage("https://edge.test", clock)


async def credits_of(database: Database) -> int:
    """Return what Alice has left of 100."""
    return (await database.profile(ALICE)).credits


async def run(
    task: Task, database: Database, storage: MemoryObjectStorage, backend: Backend
) -> bool:
    """Dispatch one task."""
    return await dispatch_task(
        task,
        database=database,
        storage=storage,
        backend=backend,
        random=lambda: 0.0,
        predict_timeout_s=DEADLINE_S,
    )


@pytest.mark.parametrize("fault", [None, invalid("image_url", "It cannot be read.")])
async def test_the_end_of_an_older_attempt_changes_nothing(
    database: Database,
    storage: MemoryObjectStorage,
    caplog: pytest.LogCaptureFixture,
    fault: EdgeError | None,
) -> None:
    """An answer, or a failure, of whoever lost the task meanwhile is only logged."""
    task = await reserved(database, storage)
    caplog.set_level(logging.INFO)

    async def lose_the_task() -> None:
        await anyio.sleep(LEASE_S + 1)
        [claimed] = await database.claim_tasks(10, LEASE_S)
        assert claimed.attempt == 2
        if fault is not None:
            raise fault

    assert await run(task, database, storage, Backend(lose_the_task)) is False
    found = await stored(database, task)
    assert (found.status, found.attempt) == (TaskStatus.PROCESSING, 2)
    assert await credits_of(database) == 99
    [line] = [record.message for record in caplog.records if LATE in record.message]
    assert f"attempt 1 of task {task.id}" in line

    async def answer() -> None:
        """Answer at once."""

    assert await run(found, database, storage, Backend(answer)) is True
    assert (await stored(database, task)).status is TaskStatus.DONE


async def test_an_older_attempt_does_not_reach_the_backend(
    database: Database, storage: MemoryObjectStorage
) -> None:
    """What was lost before it began is not begun."""
    task = await reserved(database, storage)
    await anyio.sleep(LEASE_S + 1)
    await database.claim_tasks(10, LEASE_S)
    backend = Backend(anyio.sleep_forever)

    assert await run(task, database, storage, backend) is False
    assert backend.requests == 0


async def test_a_process_that_stood_still_begins_anew(
    database: Database, storage: MemoryObjectStorage, clock: Clock
) -> None:
    """It lost its own task by its silence, claims it again, and only the later attempt counts."""
    answers = anyio.Event()
    backend = Backend(answers.wait)
    gateway = gateway_of(database, storage, backend, clock, predict_timeout_s=DEADLINE_S)

    async with gateway.running():
        task = await reserved(database, storage)
        gateway.submit(task)
        database.loses_heartbeats = True
        while backend.requests < 2:
            await anyio.sleep(1)
        database.loses_heartbeats = False
        assert (await stored(database, task)).attempt == 2
        answers.set()
        with gateway.signals.watch(task.id) as news:
            await news.wait(1)
    found = await stored(database, task)
    assert (found.status, found.attempt) == (TaskStatus.DONE, 2)
    assert await credits_of(database) == 99


async def test_a_stop_does_not_free_what_another_process_holds(
    database: Database, storage: MemoryObjectStorage, clock: Clock
) -> None:
    """A gateway that lost a task without noticing lets go of it in vain."""
    backend = Backend(anyio.sleep_forever)
    gateway = gateway_of(database, storage, backend, clock, grace_s=1)

    async with gateway.running():
        task = await reserved(database, storage)
        gateway.submit(task)
        while not backend.requests:
            await anyio.sleep(1)
        await database.extend_leases({task.id: 1}, 0)
        [claimed] = await database.claim_tasks(10, DEADLINE_S)
        assert claimed.attempt == 2
    assert await database.claim_tasks(10, LEASE_S) == []


async def test_with_a_queue_the_gateway_runs_no_task(
    database: Database, storage: MemoryObjectStorage, clock: Clock
) -> None:
    """Neither its own nor those that nobody holds; but it ends those that are overdue."""
    backend = Backend(anyio.sleep_forever)
    gateway = gateway_of(database, storage, backend, clock, dispatch="procrastinate")

    async with gateway.running():
        task = await reserved(database, storage)
        gateway.submit(task)
        await anyio.sleep(DEADLINE_S / 2)
        found = await stored(database, task)
        assert (found.status, found.attempt) == (TaskStatus.PENDING, 1)
        await anyio.sleep(DEADLINE_S / 2 + RECOVERY_INTERVAL_S)
        assert (await stored(database, task)).status is TaskStatus.ERROR
    assert backend.requests == 0
    assert await credits_of(database) == 100


async def test_new_tasks_are_refused_while_too_many_wait(
    database: Database, storage: MemoryObjectStorage, clock: Clock
) -> None:
    """Those of all processes count, and the refusal says when to come back."""
    backend = Backend(anyio.sleep_forever)
    gateway = gateway_of(database, storage, backend, clock, max_backlog=2)

    async with gateway.running():
        tasks = [await reserved(database, storage) for _ in range(2)]
        await anyio.sleep(RECOVERY_INTERVAL_S + 1)
        with pytest.raises(EdgeError) as caught:
            gateway.check_backlog()
        error = caught.value
        assert error.code is Code.SERVICE_UNAVAILABLE
        assert error.retry_after_s == BACKLOG_RETRY_AFTER_S
        await database.complete_task(tasks[0].id, Outcome("https://gpu.test/m"))
        await anyio.sleep(RECOVERY_INTERVAL_S + 1)
        gateway.check_backlog()


async def test_who_waits_looks_only_when_told(storage: MemoryObjectStorage, clock: Clock) -> None:
    """Where the database announces ends, a waiting user costs one look before and one after."""
    database = TellingDatabase(clock)
    gateway = gateway_of(database, storage, Backend(anyio.sleep_forever), clock)

    async with gateway.running():
        task = await reserved(database, storage)
        found: list[Task] = []

        async def wait() -> None:
            found.append(
                await read_task(
                    ALICE,
                    task.id,
                    database=database,
                    watch=gateway.signals.watch,
                    wait_s=30,
                    look_every_s=gateway.signals.look_every_s,
                )
            )

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.sleep(20)
            assert gateway.signals.awaited() == (task.id,)
            await database.complete_task(task.id, Outcome("https://gpu.test/m"))
            assert database.news is not None
            database.news.ended(task.id)
        assert [one.status for one in found] == [TaskStatus.DONE]
        assert database.looks == 2
        assert gateway.signals.awaited() == ()


async def test_who_waits_looks_again_when_nobody_tells(
    storage: MemoryObjectStorage, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A database that stops announcing ends, by a fault of its own, does not make anybody deaf."""
    database = TellingDatabase(clock)
    gateway = gateway_of(database, storage, Backend(anyio.sleep_forever), clock)

    async with gateway.running():
        await anyio.sleep(1)
        told = gateway.signals.look_every_s
        database.breaks.set()
        await anyio.sleep(1)
        assert gateway.signals.look_every_s < told
    assert "are not announced any more" in caplog.text
