"""Background dispatch: whatever the backend, the database or the process does, no task is lost."""

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Self
from uuid import UUID, uuid4

import anyio
import pytest
from attrs import evolve

from s3edge.errors import Code, EdgeError, invalid, unavailable
from s3edge.gateway import Gateway
from s3edge.memory import (
    MemoryDatabase,
    MemoryObjectStorage,
)
from s3edge.ports import Clock
from s3edge.rules.keys import mask_key, upload_key
from s3edge.rules.lifecycle import (
    HEARTBEAT_S,
    LEASE_S,
    MAX_PREDICT_TRIES,
    MAX_RECORD_TRIES,
    RECOVERY_INTERVAL_S,
)
from s3edge.rules.money import faults_of
from s3edge.usecases.dispatch_task import dispatch_task
from s3edge.values import (
    BatchPrediction,
    BatchPredictRequest,
    ModelInfo,
    NewTask,
    Outcome,
    Prediction,
    PredictRequest,
    Task,
    TaskStatus,
    User,
)
from tests.unit.dispatching import ALICE, gateway_of, reserved, stored


pytestmark = pytest.mark.anyio

BOB = User(UUID("b0b00000-0000-4000-8000-000000000002"))

MASK_URL = "https://gpu.test/masks/mask"

Step = Exception | Callable[[PredictRequest], Awaitable[Prediction]]


@pytest.fixture(scope="module")
def anyio_backend(jumping_loop: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Let time pass at once."""
    return jumping_loop


async def answer(request: PredictRequest) -> Prediction:
    """Answer well, at once."""
    return Prediction(request.task_id, f"{MASK_URL}?signature=1", ["a cat"], 12.5, 0.75, "v1")


async def hang(request: PredictRequest) -> Prediction:
    """Never answer."""
    await anyio.sleep_forever()
    return await answer(request)


class ScriptedBackend:
    """Does one thing after the other, and goes on with the last; remembers what it was asked."""

    def __init__(self, *script: Step) -> None:
        self._script = deque(script)
        self.requests: list[PredictRequest] = []

    async def predict(self, request: PredictRequest) -> Prediction:
        """Implement ``InferenceBackend``."""
        self.requests.append(request)
        step = self._script.popleft() if len(self._script) > 1 else self._script[0]
        if isinstance(step, Exception):
            raise step
        return await step(request)

    async def predict_batch(self, request: BatchPredictRequest) -> BatchPrediction:
        """Implement ``InferenceBackend``."""
        return BatchPrediction(request.task_id, [], 0.0)

    async def model_info(self) -> ModelInfo:
        """Implement ``InferenceBackend``."""
        return ModelInfo("scripted", "1", 0, 0.0, "cpu", "uint8")

    async def check(self) -> None:
        """Implement ``Checked``."""


class Gate:
    """A step that says when it was reached and goes on when it is opened."""

    def __init__(self) -> None:
        self.reached = anyio.Event()
        self.opened = anyio.Event()

    async def __call__(self, request: PredictRequest) -> Prediction:
        """Wait to be opened, then answer."""
        self.reached.set()
        await self.opened.wait()
        return await answer(request)


class FaultyDatabase(MemoryDatabase):
    """Raises what is queued for a method before it does its work."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, task_deadline_s=100_000)
        self.faults: dict[str, deque[Exception]] = {}
        self.calls: dict[str, int] = {}

    def fail(self, method: str, *faults: Exception) -> None:
        """Have the next calls of a method fail."""
        self.faults[method] = deque(faults)

    def _call(self, method: str) -> None:
        self.calls[method] = self.calls.get(method, 0) + 1
        queued = self.faults.get(method)
        if queued:
            raise queued.popleft()

    async def start_task(self, task_id: UUID, *, attempt: int | None = None) -> bool:
        """Implement ``Database``."""
        self._call("start_task")
        return await super().start_task(task_id, attempt=attempt)

    async def complete_task(
        self, task_id: UUID, outcome: Outcome, *, attempt: int | None = None
    ) -> bool:
        """Implement ``Database``."""
        self._call("complete_task")
        return await super().complete_task(task_id, outcome, attempt=attempt)

    async def fail_task(
        self, task_id: UUID, code: Code, message: str, *, attempt: int | None = None
    ) -> bool:
        """Implement ``Database``."""
        self._call("fail_task")
        return await super().fail_task(task_id, code, message, attempt=attempt)

    async def settle_overdue(self) -> Sequence[UUID]:
        """Implement ``Database``."""
        self._call("settle_overdue")
        return await super().settle_overdue()

    async def extend_leases(self, held: Mapping[UUID, int], lease_s: float) -> None:
        """Implement ``Database``."""
        self._call("extend_leases")
        await super().extend_leases(held, lease_s)


class OpenedDatabase(MemoryDatabase):
    """Says when it is opened and closed."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.events: list[str] = []

    async def __aenter__(self) -> Self:
        """Open."""
        self.events.append("open")
        return self

    async def __aexit__(self, *error: object) -> None:
        """Close."""
        self.events.append("close")

    async def complete_task(
        self, task_id: UUID, outcome: Outcome, *, attempt: int | None = None
    ) -> bool:
        """Implement ``Database``."""
        self.events.append("complete")
        return await super().complete_task(task_id, outcome, attempt=attempt)


class HangingLeases(MemoryDatabase):
    """Never answers when a lease is to be changed."""

    async def extend_leases(self, held: Mapping[UUID, int], lease_s: float) -> None:
        """Implement ``Database``."""
        await anyio.sleep_forever()


@pytest.fixture
def database(clock: Clock) -> FaultyDatabase:
    """Keep tasks in memory."""
    return FaultyDatabase(clock)


@pytest.fixture
def storage(clock: Clock) -> MemoryObjectStorage:
    """Keep images in memory."""
    return MemoryObjectStorage("https://edge.test", clock)


async def used_by(database: MemoryDatabase, user: User = ALICE) -> int:
    """Return what a user has paid, after a look through all the books."""
    async for account in database.accounts():
        assert faults_of(account) == []
    return 100 - (await database.profile(user)).credits


async def run(
    task: Task,
    database: MemoryDatabase,
    storage: MemoryObjectStorage,
    backend: ScriptedBackend,
    **options: Any,
) -> bool:
    """Dispatch one task, without delays between attempts."""
    return await dispatch_task(
        task, database=database, storage=storage, backend=backend, random=lambda: 0.0, **options
    )


async def until_ended(gateway: Gateway, task: Task) -> Task:
    """Wait until the task has ended, hearing of it or looking now and then."""
    with gateway.signals.watch(task.id) as news:
        for _ in range(2000):
            assert isinstance(gateway.database, MemoryDatabase)
            found = await stored(gateway.database, task)
            if found.status in (TaskStatus.DONE, TaskStatus.ERROR):
                return found
            await news.wait(1.0)
    pytest.fail("the task never ended")


async def test_an_answer_becomes_the_tasks_result(
    database: FaultyDatabase, storage: MemoryObjectStorage
) -> None:
    """What the model said is recorded, without the signature of the mask's URL."""
    task = await reserved(database, storage)
    backend = ScriptedBackend(answer)

    assert await run(task, database, storage, backend)

    found = await stored(database, task)
    assert found.status is TaskStatus.DONE
    assert found.mask_image_url == MASK_URL
    assert found.labels == ["a cat"]
    assert found.metadata == {
        "inference_time_ms": 12.5,
        "confidence": 0.75,
        "model_version": "v1",
    }
    assert (found.error_code, found.error_message) == (None, None)
    assert await used_by(database) == 1


async def test_what_else_a_model_says_is_kept(
    database: FaultyDatabase, storage: MemoryObjectStorage
) -> None:
    """Boxes and the like are in the result's metadata; no name of ours can be taken by a model."""
    task = await reserved(database, storage)

    async def talkative(request: PredictRequest) -> Prediction:
        said = {"instances": [{"box": [0, 0, 9, 9], "score": 0.5}], "confidence": "high"}
        return evolve(await answer(request), metadata=said)

    assert await run(task, database, storage, ScriptedBackend(talkative))

    assert (await stored(database, task)).metadata == {
        "inference_time_ms": 12.5,
        "confidence": 0.75,
        "model_version": "v1",
        "instances": [{"box": [0, 0, 9, 9], "score": 0.5}],
    }


async def test_a_model_that_does_not_say_its_version_has_none(
    database: FaultyDatabase, storage: MemoryObjectStorage
) -> None:
    """What the backend left out is left out of the metadata, not null."""

    async def unversioned(request: PredictRequest) -> Prediction:
        return evolve(await answer(request), model_version=None)

    task = await reserved(database, storage)
    await run(task, database, storage, ScriptedBackend(unversioned))

    assert set((await stored(database, task)).metadata) == {"inference_time_ms", "confidence"}


async def test_the_backend_is_given_what_it_needs(
    database: FaultyDatabase, storage: MemoryObjectStorage
) -> None:
    """It gets the task's and the user's id, the prompt, and a signed URL of the user's image."""
    task = await reserved(database, storage)
    backend = ScriptedBackend(answer)

    await run(task, database, storage, backend)

    (request,) = backend.requests
    assert (request.task_id, request.user_id) == (task.id, ALICE.user_id)
    assert request.text_prompt == "a cat"
    assert "?" not in task.source_image_url
    assert request.image_url.startswith(task.source_image_url + "?")


async def test_the_task_is_processing_while_the_model_runs(
    database: FaultyDatabase, storage: MemoryObjectStorage
) -> None:
    """Who reads the task meanwhile sees that it is being worked on."""
    task = await reserved(database, storage)
    gate = Gate()

    async with anyio.create_task_group() as group:
        group.start_soon(run, task, database, storage, ScriptedBackend(gate))
        await gate.reached.wait()
        assert (await stored(database, task)).status is TaskStatus.PROCESSING
        gate.opened.set()

    assert (await stored(database, task)).status is TaskStatus.DONE


@pytest.mark.parametrize(
    "fault",
    [
        unavailable("The backend is down."),
        EdgeError(Code.MODEL_NOT_LOADED, "Still loading.", retryable=True),
        EdgeError(Code.RATE_LIMITED, "Too fast.", retryable=True),
    ],
    ids=lambda fault: fault.code,
)
async def test_passing_failures_are_tried_again(
    database: FaultyDatabase, storage: MemoryObjectStorage, fault: EdgeError
) -> None:
    """A failure that says it may pass costs the user nothing but time."""
    task = await reserved(database, storage)
    backend = ScriptedBackend(fault, fault, answer)

    assert await run(task, database, storage, backend)

    assert (await stored(database, task)).status is TaskStatus.DONE
    assert [request.task_id for request in backend.requests] == [task.id] * 3
    assert await used_by(database) == 1


async def test_an_exhausted_budget_ends_in_one_refund(
    database: FaultyDatabase, storage: MemoryObjectStorage
) -> None:
    """A backend that stays down is asked so often and no more; the user gets the credit back once."""
    task = await reserved(database, storage)
    backend = ScriptedBackend(EdgeError(Code.MODEL_NOT_LOADED, "Still loading.", retryable=True))

    assert await run(task, database, storage, backend)
    assert not await run(task, database, storage, backend)

    found = await stored(database, task)
    assert len(backend.requests) == MAX_PREDICT_TRIES
    assert found.status is TaskStatus.ERROR
    assert (found.error_code, found.error_message) == ("MODEL_NOT_LOADED", "Still loading.")
    assert await used_by(database) == 0


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (invalid("image_url", "The image cannot be read."), "INVALID_REQUEST"),
        (EdgeError(Code.INFERENCE_FAILED, "The model broke."), "INFERENCE_FAILED"),
        (EdgeError(Code.AUTH_INVALID, "The API key is wrong."), "INFERENCE_FAILED"),
        (EdgeError(Code.NOT_FOUND, "There is no such path."), "INFERENCE_FAILED"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.code,
)
async def test_a_refusal_ends_the_task_at_once(
    database: FaultyDatabase, storage: MemoryObjectStorage, fault: EdgeError, code: str
) -> None:
    """What will not pass is not tried again; codes that mean nothing to the user are replaced."""
    task = await reserved(database, storage)
    backend = ScriptedBackend(fault)

    assert await run(task, database, storage, backend)

    found = await stored(database, task)
    assert len(backend.requests) == 1
    assert (found.status, found.error_code) == (TaskStatus.ERROR, code)
    assert found.error_message == fault.message
    assert await used_by(database) == 0


async def test_an_unforeseen_error_is_refunded_and_not_shown(
    database: FaultyDatabase, storage: MemoryObjectStorage, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of the adapter itself is the log's business; the user gets the credit back."""
    task = await reserved(database, storage)

    assert await run(task, database, storage, ScriptedBackend(KeyError("secret detail")))

    found = await stored(database, task)
    assert (found.status, found.error_code) == (TaskStatus.ERROR, "INFERENCE_FAILED")
    assert "secret" not in (found.error_message or "")
    assert "secret detail" in caplog.text
    assert await used_by(database) == 0


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.test/cat.png",
        "http://169.254.169.254/latest/meta-data/",
        "http://localhost:8080/",
        "file:///etc/passwd",
        "gopher://edge.test/",
        f"https://edge.test/media/{upload_key(BOB.user_id, UUID(int=7))}",
        f"https://edge.test/media/{mask_key(ALICE.user_id, UUID(int=7))}",
        f"https://edge.test/media/uploads/{ALICE.user_id}/../{BOB.user_id}/{UUID(int=7)}",
        f"https://edge.test@evil.test/media/{upload_key(ALICE.user_id, UUID(int=7))}",
        f"https://allowed.test@evil.test/{UUID(int=7)}",
        "https://allowed.test:444/cat.png",
        "https://allowed.test\t/cat.png",
        "https://allowed.test\\@evil.test/cat.png",
        "ftp://allowed.test/cat.png",
        "https://[::1/cat.png",
        "\ud800",
        "",
    ],
)
async def test_a_foreign_image_is_never_handed_to_the_backend(
    database: FaultyDatabase, storage: MemoryObjectStorage, url: str
) -> None:
    """A row that reached the database another way ends in error, refunded, and is not fetched."""
    reservation = await database.reserve_task(ALICE, NewTask(uuid4(), url, "a cat"))
    backend = ScriptedBackend(answer)

    assert await run(reservation.task, database, storage, backend, image_hosts={"allowed.test"})

    found = await stored(database, reservation.task)
    assert backend.requests == []
    assert (found.status, found.error_code) == (TaskStatus.ERROR, "INVALID_REQUEST")
    assert await used_by(database) == 0


@pytest.mark.parametrize("url", ["https://allowed.test/cat.png?x=1", "http://ALLOWED.test/cat.png"])
async def test_an_image_on_an_allowed_host_is_handed_on_as_it_is(
    database: FaultyDatabase, storage: MemoryObjectStorage, url: str
) -> None:
    """The operator can allow further hosts."""
    reservation = await database.reserve_task(ALICE, NewTask(uuid4(), url, "a cat"))
    backend = ScriptedBackend(answer)

    await run(reservation.task, database, storage, backend, image_hosts={"allowed.test"})

    assert [request.image_url for request in backend.requests] == [url]


async def test_a_model_that_does_not_answer_is_asked_again(
    database: FaultyDatabase, storage: MemoryObjectStorage
) -> None:
    """One attempt takes no longer than the operator allows, and the next may succeed."""
    task = await reserved(database, storage)
    backend = ScriptedBackend(hang, answer)

    assert await run(task, database, storage, backend, predict_timeout_s=120)

    assert (await stored(database, task)).status is TaskStatus.DONE
    assert len(backend.requests) == 2


async def test_a_model_that_never_answers_ends_in_a_refund(
    database: FaultyDatabase, storage: MemoryObjectStorage
) -> None:
    """Timeouts use up the same budget as other failures."""
    task = await reserved(database, storage)
    backend = ScriptedBackend(hang)
    began = anyio.current_time()

    assert await run(task, database, storage, backend, predict_timeout_s=7)

    found = await stored(database, task)
    assert anyio.current_time() == pytest.approx(began + 7 * MAX_PREDICT_TRIES)
    assert (found.status, found.error_code) == (TaskStatus.ERROR, "INFERENCE_FAILED")
    assert "7 seconds" in (found.error_message or "")
    assert await used_by(database) == 0


@pytest.mark.parametrize("status", [TaskStatus.DONE, TaskStatus.ERROR])
async def test_a_task_that_has_ended_is_not_run(
    database: FaultyDatabase, storage: MemoryObjectStorage, status: TaskStatus
) -> None:
    """Who comes too late changes nothing and does not use the GPU."""
    task = await reserved(database, storage)
    if status is TaskStatus.DONE:
        await database.complete_task(task.id, Outcome("https://gpu.test/first"))
    else:
        await database.fail_task(task.id, Code.INFERENCE_FAILED, "first")
    before = await stored(database, task)
    backend = ScriptedBackend(answer)

    assert not await run(task, database, storage, backend)

    assert backend.requests == []
    assert await stored(database, task) == before


async def test_the_first_outcome_stays(
    database: FaultyDatabase, storage: MemoryObjectStorage
) -> None:
    """A server that wrote the result itself has said it; the gateway's record changes nothing."""
    task = await reserved(database, storage)

    async def writes_itself(request: PredictRequest) -> Prediction:
        await database.complete_task(request.task_id, Outcome("https://gpu.test/first"))
        return await answer(request)

    assert not await run(task, database, storage, ScriptedBackend(writes_itself))

    assert (await stored(database, task)).mask_image_url == "https://gpu.test/first"
    assert await used_by(database) == 1


async def test_a_late_answer_of_a_refunded_task_changes_nothing(
    database: FaultyDatabase, storage: MemoryObjectStorage
) -> None:
    """A task that was settled meanwhile stays in error, and its refund stays one."""
    task = await reserved(database, storage)

    async def too_late(request: PredictRequest) -> Prediction:
        await database.fail_task(request.task_id, Code.INFERENCE_FAILED, "too late")
        return await answer(request)

    assert not await run(task, database, storage, ScriptedBackend(too_late))

    assert (await stored(database, task)).status is TaskStatus.ERROR
    assert await used_by(database) == 0


@pytest.mark.parametrize(
    ("method", "step", "status"),
    [
        ("complete_task", answer, TaskStatus.DONE),
        ("fail_task", invalid("image_url", "no"), TaskStatus.ERROR),
    ],
)
async def test_a_passing_fault_of_the_database_loses_no_outcome(
    database: FaultyDatabase,
    storage: MemoryObjectStorage,
    method: str,
    step: Step,
    status: TaskStatus,
) -> None:
    """An outcome is written again, without asking the model again."""
    task = await reserved(database, storage)
    backend = ScriptedBackend(step)
    database.fail(method, *[unavailable("down")] * (MAX_RECORD_TRIES - 1))

    assert await run(task, database, storage, backend)

    assert (await stored(database, task)).status is status
    assert len(backend.requests) == 1


async def test_a_database_that_stays_down_leaves_the_task_to_recovery(
    database: FaultyDatabase, storage: MemoryObjectStorage
) -> None:
    """An outcome that cannot be written is not made up; the task stays open for the next attempt."""
    task = await reserved(database, storage)
    database.fail("complete_task", *[unavailable("down")] * MAX_RECORD_TRIES)

    with pytest.raises(EdgeError) as raised:
        await run(task, database, storage, ScriptedBackend(answer))

    assert raised.value.code is Code.SERVICE_UNAVAILABLE
    assert (await stored(database, task)).status is TaskStatus.PROCESSING
    assert await used_by(database) == 1


async def test_a_database_that_refuses_for_good_is_not_asked_again(
    database: FaultyDatabase, storage: MemoryObjectStorage
) -> None:
    """A failure that will not pass is not repeated."""
    task = await reserved(database, storage)
    database.fail("complete_task", EdgeError(Code.FORBIDDEN, "no right"))

    with pytest.raises(EdgeError):
        await run(task, database, storage, ScriptedBackend(answer))

    assert database.calls["complete_task"] == 1


async def test_a_submitted_task_is_run_in_the_background(
    database: FaultyDatabase, storage: MemoryObjectStorage, clock: Clock
) -> None:
    """Submitting returns at once; whoever waits for the task hears of its end."""
    gate = Gate()
    gateway = gateway_of(database, storage, ScriptedBackend(gate), clock)

    async with gateway.running():
        task = await reserved(database, storage)
        gateway.submit(task)
        await gate.reached.wait()
        with gateway.signals.watch(task.id) as news:
            began = anyio.current_time()
            gate.opened.set()
            assert await news.wait(1000)
            assert anyio.current_time() == began
        assert (await stored(database, task)).status is TaskStatus.DONE


async def test_only_so_many_tasks_run_at_once(
    database: FaultyDatabase, storage: MemoryObjectStorage, clock: Clock
) -> None:
    """The backend never sees more requests at once than the operator allows."""
    now = highest = 0

    async def counted(request: PredictRequest) -> Prediction:
        nonlocal now, highest
        now += 1
        highest = max(highest, now)
        await anyio.sleep(1)
        now -= 1
        return await answer(request)

    gateway = gateway_of(database, storage, ScriptedBackend(counted), clock, dispatch_concurrency=3)
    async with gateway.running():
        tasks = [await reserved(database, storage) for _ in range(10)]
        for task in tasks:
            gateway.submit(task)
        ended = [await until_ended(gateway, task) for task in tasks]

    assert {task.status for task in ended} == {TaskStatus.DONE}
    assert highest == 3


async def test_a_task_that_is_submitted_twice_runs_once(
    database: FaultyDatabase, storage: MemoryObjectStorage, clock: Clock
) -> None:
    """What this process already holds is not taken again."""
    backend = ScriptedBackend(answer)
    gateway = gateway_of(database, storage, backend, clock)

    async with gateway.running():
        task = await reserved(database, storage)
        gateway.submit(task)
        gateway.submit(task)
        await until_ended(gateway, task)

    assert len(backend.requests) == 1


async def test_the_lease_of_a_long_run_is_kept_alive(
    database: FaultyDatabase, storage: MemoryObjectStorage, clock: Clock
) -> None:
    """A task that takes longer than its lease is offered to nobody else meanwhile."""
    gate = Gate()
    backend = ScriptedBackend(gate)
    gateway = gateway_of(database, storage, backend, clock, predict_timeout_s=10_000)

    async with gateway.running():
        task = await reserved(database, storage)
        gateway.submit(task)
        await gate.reached.wait()
        for _ in range(20):
            await anyio.sleep(LEASE_S / 2)
            assert await database.claim_tasks(10, LEASE_S) == []
        gate.opened.set()
        await until_ended(gateway, task)

    assert len(backend.requests) == 1


@pytest.mark.parametrize("fault", [unavailable("down"), RuntimeError("a bug")])
async def test_a_lost_heartbeat_does_not_lose_the_lease(
    database: FaultyDatabase, storage: MemoryObjectStorage, clock: Clock, fault: Exception
) -> None:
    """One heartbeat that fails, however it fails, is made up for by the next."""
    gate = Gate()
    gateway = gateway_of(database, storage, ScriptedBackend(gate), clock, predict_timeout_s=10_000)

    async with gateway.running():
        task = await reserved(database, storage)
        gateway.submit(task)
        await gate.reached.wait()
        database.fail("extend_leases", fault)
        await anyio.sleep(LEASE_S * 1.5)
        assert database.calls["extend_leases"] >= 3
        assert await database.claim_tasks(10, LEASE_S) == []
        gate.opened.set()
        await until_ended(gateway, task)


async def test_a_task_that_nobody_holds_is_found(
    database: FaultyDatabase, storage: MemoryObjectStorage, clock: Clock
) -> None:
    """A task left pending by a crash is dispatched once its lease has run out."""
    task = await reserved(database, storage)
    began = anyio.current_time()
    gateway = gateway_of(database, storage, ScriptedBackend(answer), clock)

    async with gateway.running():
        ended = await until_ended(gateway, task)

    assert ended.status is TaskStatus.DONE
    assert LEASE_S <= anyio.current_time() - began <= LEASE_S + 2 * RECOVERY_INTERVAL_S
    assert await used_by(database) == 1


async def test_several_processes_share_lost_tasks(
    database: FaultyDatabase, storage: MemoryObjectStorage, clock: Clock
) -> None:
    """Each lost task is run once, whichever process finds it."""
    tasks = [await reserved(database, storage) for _ in range(30)]
    backends = [ScriptedBackend(answer), ScriptedBackend(answer)]
    first, second = (
        gateway_of(database, storage, backend, clock, dispatch_concurrency=4)
        for backend in backends
    )

    async with first.running(), second.running():
        for task in tasks:
            await until_ended(first, task)

    asked = [request.task_id for backend in backends for request in backend.requests]
    assert sorted(asked) == sorted(task.id for task in tasks)


@pytest.mark.parametrize("method", ["start_task", "complete_task"])
@pytest.mark.parametrize("fault", [unavailable("down"), RuntimeError("a bug")])
async def test_a_dispatch_that_fails_is_recovered(
    database: FaultyDatabase,
    storage: MemoryObjectStorage,
    clock: Clock,
    method: str,
    fault: Exception,
) -> None:
    """A database that is down for a while, or a fault of its adapter, loses no task."""
    database.fail(method, *[fault] * MAX_RECORD_TRIES)
    gateway = gateway_of(database, storage, ScriptedBackend(answer), clock)

    async with gateway.running():
        task = await reserved(database, storage)
        gateway.submit(task)
        ended = await until_ended(gateway, task)

    assert ended.status is TaskStatus.DONE
    assert await used_by(database) == 1


async def test_recovery_survives_a_database_that_is_down(
    database: FaultyDatabase, storage: MemoryObjectStorage, clock: Clock
) -> None:
    """Recovery that fails, however it fails, comes again."""
    database.fail("settle_overdue", *[unavailable("down"), RuntimeError("a bug")] * 10)
    gateway = gateway_of(database, storage, ScriptedBackend(answer), clock)

    async with gateway.running():
        task = await reserved(database, storage)
        ended = await until_ended(gateway, task)

    assert ended.status is TaskStatus.DONE


async def test_a_full_queue_leaves_tasks_to_recovery(
    storage: MemoryObjectStorage, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """More tasks than a process holds are not refused and not lost: they wait in the database."""
    database = MemoryDatabase(clock, initial_credits=2000)
    gateway = gateway_of(database, storage, ScriptedBackend(answer), clock)

    async with gateway.running():
        tasks = [await reserved(database, storage) for _ in range(1002)]
        for task in tasks:
            gateway.submit(task)
        warnings = [record for record in caplog.records if "no room" in record.getMessage()]
        ended = [await until_ended(gateway, task) for task in tasks]

    assert len(warnings) == 2
    assert {task.status for task in ended} == {TaskStatus.DONE}


async def test_a_gateway_that_does_not_run_leaves_tasks_to_others(
    database: FaultyDatabase, storage: MemoryObjectStorage, clock: Clock
) -> None:
    """A task that is submitted before the start or after the end is found by whoever runs."""
    idle = gateway_of(database, storage, ScriptedBackend(answer), clock)
    task = await reserved(database, storage)
    idle.submit(task)
    async with idle.running():
        pass
    late = await reserved(database, storage)
    idle.submit(late)

    other = gateway_of(database, storage, ScriptedBackend(answer), clock)
    async with other.running():
        assert (await until_ended(other, task)).status is TaskStatus.DONE
        assert (await until_ended(other, late)).status is TaskStatus.DONE


async def test_an_overdue_task_is_settled(storage: MemoryObjectStorage, clock: Clock) -> None:
    """A task past its deadline ends in error with a refund, and the late answer changes nothing."""
    database = MemoryDatabase(clock, task_deadline_s=60)
    gate = Gate()
    gateway = gateway_of(database, storage, ScriptedBackend(gate), clock, predict_timeout_s=10_000)

    async with gateway.running():
        task = await reserved(database, storage)
        gateway.submit(task)
        with gateway.signals.watch(task.id) as news:
            assert await news.wait(60 + 2 * RECOVERY_INTERVAL_S)
        settled = await stored(database, task)
        gate.opened.set()

    assert (settled.status, settled.error_code) == (TaskStatus.ERROR, "INFERENCE_FAILED")
    assert await stored(database, task) == settled
    assert await used_by(database) == 0


async def test_a_running_task_may_finish_when_the_process_stops(
    database: FaultyDatabase, storage: MemoryObjectStorage, clock: Clock
) -> None:
    """What runs has the time of grace; what waits is let go of, for others to claim at once."""
    gate = Gate()
    backend = ScriptedBackend(gate)
    gateway = gateway_of(database, storage, backend, clock, dispatch_concurrency=1, grace_s=10.0)

    async def open_later() -> None:
        await anyio.sleep(5)
        gate.opened.set()

    async with anyio.create_task_group() as group:
        async with gateway.running():
            running, waiting = [await reserved(database, storage) for _ in range(2)]
            gateway.submit(running)
            gateway.submit(waiting)
            await gate.reached.wait()
            group.start_soon(open_later)
            began = anyio.current_time()
        assert anyio.current_time() == pytest.approx(began + 5)

    assert (await stored(database, running)).status is TaskStatus.DONE
    assert [task.id for task in await database.claim_tasks(10, LEASE_S)] == [waiting.id]
    assert [request.task_id for request in backend.requests] == [running.id]


async def test_a_task_that_outlasts_the_grace_is_let_go_of(
    database: FaultyDatabase, storage: MemoryObjectStorage, clock: Clock
) -> None:
    """A run that is broken off stays paid and open, and another process may take it at once."""
    gate = Gate()
    gateway = gateway_of(database, storage, ScriptedBackend(gate), clock, grace_s=3.0)

    async with gateway.running():
        task = await reserved(database, storage)
        gateway.submit(task)
        await gate.reached.wait()
        began = anyio.current_time()

    assert anyio.current_time() == pytest.approx(began + 3)
    assert (await stored(database, task)).status is TaskStatus.PROCESSING
    assert [found.id for found in await database.claim_tasks(10, LEASE_S)] == [task.id]
    assert await used_by(database) == 1


async def test_an_idle_gateway_stops_at_once(
    database: FaultyDatabase, storage: MemoryObjectStorage, clock: Clock
) -> None:
    """Without anything running nobody waits for the grace to end."""
    gateway = gateway_of(database, storage, ScriptedBackend(answer), clock)

    async with gateway.running():
        task = await reserved(database, storage)
        gateway.submit(task)
        await until_ended(gateway, task)
        began = anyio.current_time()

    assert anyio.current_time() == began
    assert gateway.signals.is_closed


async def test_a_database_that_hangs_does_not_hold_up_the_stop(
    storage: MemoryObjectStorage, clock: Clock
) -> None:
    """Leases that cannot be given back run out by themselves; the process stops all the same."""
    database = HangingLeases(clock)
    gate = Gate()
    gateway = gateway_of(
        database, storage, ScriptedBackend(gate), clock, dispatch_concurrency=1, grace_s=1.0
    )

    async with gateway.running():
        for _ in range(3):
            gateway.submit(await reserved(database, storage))
        await gate.reached.wait()
        began = anyio.current_time()

    assert anyio.current_time() <= began + 1.0 + 2 * HEARTBEAT_S


async def test_a_cancelled_gateway_lets_go_of_its_tasks(
    database: FaultyDatabase, storage: MemoryObjectStorage, clock: Clock
) -> None:
    """A server that is cancelled rather than asked to stop ends at once, and others may go on."""
    gate = Gate()
    gateway = gateway_of(database, storage, ScriptedBackend(gate), clock)
    task = await reserved(database, storage)

    async def serve() -> None:
        async with gateway.running():
            gateway.submit(task)
            await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(serve)
        await gate.reached.wait()
        began = anyio.current_time()
        group.cancel_scope.cancel()

    assert anyio.current_time() == began
    assert [found.id for found in await database.claim_tasks(10, LEASE_S)] == [task.id]


async def test_ports_are_open_as_long_as_anything_runs(
    storage: MemoryObjectStorage, clock: Clock
) -> None:
    """A port that holds a pool is opened first and closed last, after the running tasks."""
    database = OpenedDatabase(clock)
    gate = Gate()
    gateway = gateway_of(database, storage, ScriptedBackend(gate), clock)

    async with gateway.running():
        gateway.submit(await reserved(database, storage))
        await gate.reached.wait()
        gate.opened.set()

    assert database.events == ["open", "complete", "close"]


async def test_a_backlog_is_worked_off_without_pauses(
    database: FaultyDatabase, storage: MemoryObjectStorage, clock: Clock
) -> None:
    """A gateway that has capacity does not wait a round of recovery for each few lost tasks."""
    tasks = [await reserved(database, storage) for _ in range(90)]
    await database.extend_leases({task.id: task.attempt for task in tasks}, 0)
    gateway = gateway_of(database, storage, ScriptedBackend(answer), clock, dispatch_concurrency=2)

    async with gateway.running():
        with anyio.fail_after(3 * RECOVERY_INTERVAL_S):
            for task in tasks:
                await until_ended(gateway, task)
