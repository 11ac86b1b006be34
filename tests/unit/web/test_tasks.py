"""How a task stands, now or when it has ended."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest

from s3edge.errors import Code
from s3edge.gateway import Gateway, GatewayOptions
from s3edge.memory import MemoryDatabase
from s3edge.rules.limits import DEFAULT_RATE_LIMITS
from s3edge.signals import LOOK_EVERY_S
from s3edge.testing.clock import ManualClock
from s3edge.values import Outcome, Task, User
from s3edge.web.http import Response


pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[Response]]
Check = Callable[..., dict[str, Any]]
MakeTask = Callable[..., Awaitable[Task]]

OUTCOME = Outcome("https://gpu.test/masks/x", ["a cat"], {"confidence": 0.5})


class CountingDatabase(MemoryDatabase):
    """Counts how often a task is read."""

    reads = 0

    async def task(self, user: User, task_id: UUID) -> Task | None:
        """Implement ``Database``."""
        self.reads += 1
        assert self.reads < 1000, "the task is read on and on"
        return await super().task(user, task_id)


@pytest.fixture
def database(clock: ManualClock) -> CountingDatabase:
    """Count reads."""
    return CountingDatabase(clock)


class Poll:
    """A request that is under way."""

    def __init__(self, send: Send, target: str) -> None:
        self._send = send
        self._target = target
        self.response: Response | None = None

    async def __call__(self) -> None:
        """Send it and keep the answer."""
        self.response = await self._send("GET", self._target)


async def test_a_task_is_told_as_it_stands(
    send: Send,
    data_of: Check,
    task_of: MakeTask,
    database: MemoryDatabase,
    alice: User,
    clock: ManualClock,
) -> None:
    """Optional fields appear when they apply and are left out when they do not."""
    task = await task_of(alice)
    always = {"task_id", "status", "created_at", "updated_at"}

    pending = data_of(await send("GET", f"/api/v1/tasks/{task.id}"))
    assert pending.keys() == always
    assert (pending["task_id"], pending["status"]) == (str(task.id), "pending")
    assert datetime.fromisoformat(pending["created_at"]) == task.created_at

    clock.advance(1)
    await database.start_task(task.id)
    processing = data_of(await send("GET", f"/api/v1/tasks/{task.id}"))
    assert processing.keys() == always
    assert processing["status"] == "processing"
    assert processing["updated_at"] > pending["updated_at"]

    await database.complete_task(task.id, OUTCOME)
    done = data_of(await send("GET", f"/api/v1/tasks/{task.id}"))
    assert done.keys() == always | {"result_id"}
    assert (done["status"], done["result_id"]) == ("done", str(task.id))


@pytest.mark.parametrize(
    ("code", "shown"),
    [(Code.INVALID_REQUEST, "INVALID_REQUEST"), (Code.INFERENCE_FAILED, "INFERENCE_FAILED")],
)
async def test_a_failed_task_says_why(
    send: Send,
    data_of: Check,
    task_of: MakeTask,
    database: MemoryDatabase,
    alice: User,
    code: Code,
    shown: str,
) -> None:
    """``error_code`` and ``error_message`` appear on error alone."""
    task = await task_of(alice)
    await database.fail_task(task.id, code, "The image cannot be read.")

    data = data_of(await send("GET", f"/api/v1/tasks/{task.id}"))

    assert data.keys() == {
        "task_id",
        "status",
        "created_at",
        "updated_at",
        "error_code",
        "error_message",
    }
    assert (data["status"], data["error_code"]) == ("error", shown)
    assert data["error_message"] == "The image cannot be read."


async def test_times_are_utc_with_a_z(
    send: Send, data_of: Check, task_of: MakeTask, alice: User
) -> None:
    """Times end in Z, as the wire contract says."""
    task = await task_of(alice)

    data = data_of(await send("GET", f"/api/v1/tasks/{task.id}"))

    assert data["created_at"].endswith("Z")
    assert data["updated_at"].endswith("Z")


NO_UUIDS = [
    "1",
    "x",
    "-1",
    "not-a-uuid",
    "%00",
    "\x00",
    "\ud800",
    "é",
    "..",
    "1b4e28ba2fa14d2a883f0016d3cca427",
    "{1b4e28ba-2fa1-4d2a-883f-0016d3cca427}",
    "urn:uuid:1b4e28ba-2fa1-4d2a-883f-0016d3cca427",
    "1b4e28ba-2fa1-4d2a-883f-0016d3cca427\n",
    "'; drop table tasks; --",
    "x" * 10_000,
]


@pytest.mark.parametrize("kind", ["tasks", "results"])
@pytest.mark.parametrize("name", NO_UUIDS)
async def test_an_id_that_is_no_uuid_is_not_found(
    send: Send, error_of: Check, kind: str, name: str
) -> None:
    """What is no UUID names nothing; that is no bad request."""
    error_of(await send("GET", f"/api/v1/{kind}/{name}"), 404, "NOT_FOUND")


@pytest.mark.parametrize("kind", ["tasks", "results"])
async def test_another_users_task_does_not_exist(
    send: Send, error_of: Check, task_of: MakeTask, bob: User, kind: str
) -> None:
    """404 for somebody else's as for none, in the same words, waiting or not."""
    theirs, absent = (await task_of(bob)).id, uuid4()

    for query in ("", "?wait=30"):
        errors = [
            error_of(await send("GET", f"/api/v1/{kind}/{task_id}{query}"), 404, "NOT_FOUND")
            for task_id in (theirs, absent)
        ]
        assert errors[0] == errors[1]


async def test_an_id_in_capitals_is_the_same(
    send: Send, data_of: Check, task_of: MakeTask, alice: User
) -> None:
    """UUIDs are read in either case."""
    task = await task_of(alice)

    data_of(await send("GET", f"/api/v1/tasks/{str(task.id).upper()}"))


@pytest.mark.parametrize(
    "query",
    [
        "wait=-1",
        "wait=-0.1",
        "wait=31",
        "wait=30.1",
        "wait=nan",
        "wait=inf",
        "wait=soon",
        "wait=",
        "wait",
        "wait=1,5",
        "wait=%00",
        "wait=1&wait=x",
        "wait=\u0661",
        "wait=999999999999999999999999",
        "wait=" + "9" * 5000,
        "&".join(f"a{number}=1" for number in range(100)),
    ],
)
async def test_a_wait_that_is_no_time_is_refused(
    send: Send, error_of: Check, task_of: MakeTask, alice: User, query: str
) -> None:
    """0 to 30 seconds, in plain digits."""
    task = await task_of(alice)

    error_of(await send("GET", f"/api/v1/tasks/{task.id}?{query}"), 400, "INVALID_REQUEST")


@pytest.mark.parametrize(
    ("query", "waited_s"),
    [
        ("", 0),
        ("wait=0", 0),
        ("wait=0.5", 0.5),
        ("wait=7", 7),
        ("wait=30", 30),
        ("wait=1e1", 10),
        ("wait=x&wait=2", 2),
        ("other=1", 0),
    ],
)
async def test_a_wait_ends_when_its_time_is_up(
    send: Send, data_of: Check, task_of: MakeTask, alice: User, query: str, waited_s: float
) -> None:
    """A task that does not end is told as usual after the time that was asked for."""
    task = await task_of(alice)
    began = anyio.current_time()

    data = data_of(await send("GET", f"/api/v1/tasks/{task.id}?{query}"))

    assert data["status"] == "pending"
    assert anyio.current_time() == pytest.approx(began + waited_s)


@pytest.mark.parametrize("fails", [True, False])
async def test_a_wait_is_woken_by_the_tasks_end(
    send: Send,
    data_of: Check,
    task_of: MakeTask,
    database: CountingDatabase,
    gateway: Gateway,
    alice: User,
    fails: bool,
) -> None:
    """The answer comes with the end of the task, not with the next look."""
    task = await task_of(alice)
    poll = Poll(send, f"/api/v1/tasks/{task.id}?wait=30")

    async with anyio.create_task_group() as group:
        group.start_soon(poll)
        await anyio.wait_all_tasks_blocked()
        assert poll.response is None
        if fails:
            await database.fail_task(task.id, Code.INFERENCE_FAILED, "no")
        else:
            await database.complete_task(task.id, OUTCOME)
        ended_at = anyio.current_time()
        gateway.signals.ended(task.id)

    assert poll.response is not None
    assert data_of(poll.response)["status"] == ("error" if fails else "done")
    assert anyio.current_time() == ended_at


async def test_an_end_that_another_process_wrote_is_found(
    send: Send, data_of: Check, task_of: MakeTask, database: CountingDatabase, alice: User
) -> None:
    """A waiter looks by itself now and then."""
    task = await task_of(alice)
    poll = Poll(send, f"/api/v1/tasks/{task.id}?wait=30")

    async with anyio.create_task_group() as group:
        group.start_soon(poll)
        await anyio.wait_all_tasks_blocked()
        await database.complete_task(task.id, OUTCOME)
        ended_at = anyio.current_time()

    assert poll.response is not None
    assert data_of(poll.response)["status"] == "done"
    assert anyio.current_time() <= ended_at + LOOK_EVERY_S


async def test_a_false_alarm_does_not_set_off_a_storm_of_reads(
    send: Send,
    data_of: Check,
    task_of: MakeTask,
    database: CountingDatabase,
    gateway: Gateway,
    alice: User,
) -> None:
    """A dispatch that ended without an outcome is looked at once, and waited for again."""
    task = await task_of(alice)
    poll = Poll(send, f"/api/v1/tasks/{task.id}?wait=30")

    async with anyio.create_task_group() as group:
        group.start_soon(poll)
        await anyio.wait_all_tasks_blocked()
        gateway.signals.ended(task.id)

    assert poll.response is not None
    assert data_of(poll.response)["status"] == "pending"
    assert database.reads <= 30 / LOOK_EVERY_S + 3


async def test_all_waits_end_when_the_process_stops(
    send: Send, data_of: Check, task_of: MakeTask, gateway: Gateway, alice: User
) -> None:
    """Long polls do not hold up a stop: they are answered as the tasks stand."""
    polls = [Poll(send, f"/api/v1/tasks/{(await task_of(alice)).id}?wait=30") for _ in range(3)]

    async with anyio.create_task_group() as group:
        for poll in polls:
            group.start_soon(poll)
        await anyio.wait_all_tasks_blocked()
        stopped_at = anyio.current_time()
        gateway.stop_waiting()

    for poll in polls:
        assert poll.response is not None
        assert data_of(poll.response)["status"] == "pending"
    late = Poll(send, f"/api/v1/tasks/{(await task_of(alice)).id}?wait=30")
    await late()
    assert anyio.current_time() == stopped_at


async def test_a_task_that_ended_is_not_waited_for(
    send: Send, data_of: Check, task_of: MakeTask, database: CountingDatabase, alice: User
) -> None:
    """There is nothing to wait for after the end."""
    task = await task_of(alice)
    await database.complete_task(task.id, OUTCOME)
    began = anyio.current_time()

    data_of(await send("GET", f"/api/v1/tasks/{task.id}?wait=30"))

    assert anyio.current_time() == began
    assert database.reads == 1


async def test_a_segmentation_runs_from_upload_to_mask(
    send: Send,
    data_of: Check,
    gateway: Gateway,
    image_of: Callable[[User], Awaitable[UUID]],
    alice: User,
) -> None:
    """With the gateway running, a task that was asked for ends, and its mask can be read."""
    gateway.options = GatewayOptions(rate_limits=DEFAULT_RATE_LIMITS)
    image_id = await image_of(alice)

    async with gateway.running():
        body = {"image_id": str(image_id), "text_prompt": "a cat"}
        task_id = data_of(await send("POST", "/api/v1/segment", json=body), 202)["task_id"]
        state = data_of(await send("GET", f"/api/v1/tasks/{task_id}?wait=30"))
        result = data_of(await send("GET", f"/api/v1/results/{state['result_id']}"))
        mask = await send(
            "GET", result["mask_image_url"].removeprefix("https://edge.test"), user=None
        )

    assert state["status"] == "done"
    assert mask.status == 200
    assert dict(mask.headers)["content-type"] == "image/png"
