"""Waiting ends with a result, or says why there is none; handles outlive their process."""

import pickle
from collections.abc import Callable
from uuid import UUID

import httpx
import pytest

from s3edge.client import (
    ConfigurationError,
    NotFound,
    Result,
    ServiceUnavailable,
    Task,
    TaskFailed,
    TaskState,
    Timeout,
    WaitTimeout,
)
from s3edge.testing.scripted_api import ScriptedApi, ok, refused


TASK_ID = UUID("6b6f2c1e-2222-4222-8222-222222222222")
RESULT = {
    "id": str(TASK_ID),
    "project_id": None,
    "source_image_url": "http://media.test/i?signature=s3cret",
    "mask_image_url": "http://media.test/m?signature=s3cret",
    "text_prompt": "red",
    "labels": ["red"],
    "metadata": {"confidence": 0.5},
    "status": "done",
    "created_at": "2026-01-01T00:00:00Z",
    "updated_at": "2026-01-01T00:00:01Z",
}

pytestmark = pytest.mark.anyio


def state(status: str, **more: str) -> httpx.Response:
    """Return how a task stands."""
    return ok({"task_id": str(TASK_ID), "status": status, **more})


def held(api: ScriptedApi, status: str) -> Callable[[httpx.Request], httpx.Response]:
    """Return an answer that is held as long as the request asks."""

    def answer(request: httpx.Request) -> httpx.Response:
        api.time.advance(float(request.url.params["wait"]))
        return state(status)

    return answer


def waits(api: ScriptedApi) -> list[float]:
    """Return how long each poll asked to be held."""
    polls = [request.url.params.get("wait") for request in api.requests]
    return [float(wait) for wait in polls if wait is not None]


async def test_a_wait_returns_a_finished_result(api: ScriptedApi) -> None:
    """It polls with ``?wait=``, tells each change once, and reads the result, in both clients."""
    for _ in range(2):
        api.answer(held(api, "pending"), held(api, "pending"), held(api, "processing"))
        api.answer(state("done"), ok(RESULT))
    seen: list[str] = []

    async def note(update: TaskState) -> None:
        seen.append(update.status)

    result = api.client().task(TASK_ID).wait(on_update=lambda update: seen.append(update.status))
    async with api.async_client() as client:
        awaited = await client.task(TASK_ID).wait(on_update=note)
    assert (result.status, result.labels, awaited.metadata) == ("done", ["red"], RESULT["metadata"])
    assert seen == ["pending", "processing", "done"] * 2
    assert waits(api) == [20, 20, 20, 20] * 2
    assert api.time.pauses == []


def test_a_wait_is_finite(api: ScriptedApi) -> None:
    """When the time is up, ``WaitTimeout`` has the handle; it can be waited for again."""
    api.answer(held(api, "pending"), held(api, "pending"), held(api, "processing"))
    task = api.client().task(TASK_ID)
    with pytest.raises(WaitTimeout, match="processing") as late:
        task.wait(timeout=45)
    assert waits(api) == [20, 20, 5]
    assert api.time.elapsed_s == 45
    assert late.value.task == task
    assert (task.status, late.value.retryable) == ("processing", True)
    api.answer(state("done"), ok(RESULT))
    assert task.wait().status == "done"


def test_a_wait_of_nothing_looks_once(api: ScriptedApi) -> None:
    """``timeout=0`` asks how the task stands."""
    api.answer(state("pending"), state("done"), ok(RESULT))
    with pytest.raises(WaitTimeout):
        api.client().task(TASK_ID).wait(timeout=0)
    assert api.client().task(TASK_ID).wait(timeout=0).id == TASK_ID


def test_a_server_that_says_nothing_ends_the_wait(api: ScriptedApi) -> None:
    """Silence is a time-out of the wait, once that is up."""

    def silent(request: httpx.Request) -> httpx.Response:
        api.time.advance(request.extensions["timeout"]["read"])
        message = "silence"
        raise httpx.ReadTimeout(message)

    api.answer(*[silent] * 5)
    with pytest.raises(WaitTimeout, match="not known"):
        api.client().task(TASK_ID).wait(timeout=100)
    assert 100 <= api.time.elapsed_s <= 105


def test_a_failed_task_is_raised(api: ScriptedApi) -> None:
    """With the API's own code and words."""
    api.answer(state("error", error_code="INFERENCE_FAILED", error_message="No memory."))
    with pytest.raises(TaskFailed, match="No memory") as failed:
        api.client().task(TASK_ID).wait()
    assert failed.value.code == "INFERENCE_FAILED"
    assert failed.value.task.status == "error"


def test_an_unknown_status_is_waited_through(api: ScriptedApi) -> None:
    """A newer server may have more of them."""
    api.answer(held(api, "warming-up"), state("done"), ok(RESULT))
    seen: list[str] = []
    api.client().task(TASK_ID).wait(on_update=lambda update: seen.append(update.status))
    assert seen == ["warming-up", "done"]


def test_a_server_that_holds_nothing_is_not_hammered(api: ScriptedApi) -> None:
    """After an answer that came at once there is a pause."""
    api.answer(*[state("pending")] * 3, state("done"), ok(RESULT))
    api.client().task(TASK_ID).wait()
    assert api.time.pauses == [1, 1, 1]


def test_polls_are_shorter_than_the_patience(api: ScriptedApi) -> None:
    """A poll is held for half of the read time-out at the most, or it would end in one."""
    api.answer(held(api, "pending"), state("done"), ok(RESULT))
    api.client(timeout=Timeout(read=8)).task(TASK_ID).wait()
    assert waits(api) == [4, 4]


def test_an_outage_has_the_retries_of_any_call(api: ScriptedApi) -> None:
    """A poll that fails is tried again; a lasting outage is raised, and the task goes on."""
    api.answer(httpx.ReadError("x"), refused(503, "X"), state("done"), ok(RESULT))
    assert api.client().task(TASK_ID).wait().status == "done"
    api.answer(*[refused(503, "SERVICE_UNAVAILABLE")] * 3)
    with pytest.raises(ServiceUnavailable):
        api.client(max_retries=2).task(TASK_ID).wait()


def test_a_task_is_found_after_a_restart(api: ScriptedApi) -> None:
    """By its id alone, as text too; nothing is sent for the handle."""
    task = api.client().task(str(TASK_ID))
    assert (task.id, task.state, api.requests) == (TASK_ID, None, [])
    api.answer(state("processing"))
    assert task.refresh().status == task.status == "processing"
    with pytest.raises(NotFound):
        api.client().task("not-an-id")


async def test_handles_pickle(api: ScriptedApi) -> None:
    """A task comes back as it was, without connections and token, and goes on with another client."""
    api.answer(ok({"task_id": str(TASK_ID), "status": "pending"}, 202), state("done"), ok(RESULT))
    task = api.client(token="s3cret").segment(TASK_ID, "red")
    pickled = pickle.dumps(task)
    assert b"s3cret" not in pickled
    again: Task = pickle.loads(pickled)
    assert again == task
    assert len({again, task}) == 1
    assert (again.idempotency_key, again.state) == (task.idempotency_key, task.state)
    with pytest.raises(ConfigurationError, match=r"client\.task\(task\)"):
        again.wait()
    async with api.async_client() as client:
        result = await client.task(again).wait()
    assert client.task(again).idempotency_key == task.idempotency_key
    assert pickle.loads(pickle.dumps(result)) == result


def test_a_result_pickles_with_the_mask_that_it_has(api: ScriptedApi) -> None:
    """What was downloaded needs no client any more."""
    api.answer(ok(RESULT), httpx.Response(200, content=b"png"))
    result = api.client().result(TASK_ID)
    assert result.mask.read() == b"png"
    again: Result = pickle.loads(pickle.dumps(result))
    assert again.mask.read() == b"png"
