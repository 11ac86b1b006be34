"""Fenced attempts, the queue and the news of ends, as the tables have them."""

from functools import partial
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.sql.conftest import Caller, MovableClock, Project, at_once


OUTCOME = {
    "p_mask_image_url": "https://s/m",
    "p_labels": Jsonb([]),
    "p_metadata": Jsonb({}),
}

FAILURE = {"p_error_code": "INFERENCE_FAILED", "p_error_message": "It broke."}


def _claim(service: Caller) -> list[tuple[Any, ...]]:
    return service.call_set("s3edge_claim_tasks", p_limit=10, p_lease_s=30)


def test_an_older_attempt_writes_nothing(project: Project, clock: MovableClock) -> None:
    """Once a task was claimed again, who held it before changes neither it nor its lease."""
    service, user = project.service(), project.user()
    task_id = user.reserve()["task"]["id"]
    clock.set(15)
    _claim(service)
    before, attempt = project.task(task_id), {"p_task_id": task_id, "p_attempt": 1}
    assert before["attempt"] == 2
    assert service.call("s3edge_start_attempt", **attempt) is False
    assert service.call("s3edge_complete_attempt", **attempt, **OUTCOME) is False
    assert service.call("s3edge_fail_attempt", **attempt, **FAILURE) is False
    held = {"p_task_ids": [UUID(task_id)], "p_attempts": [1], "p_lease_s": 0.0}
    service.call("s3edge_hold_attempts", **held)
    assert project.task(task_id) == before
    assert service.call("s3edge_start_attempt", p_task_id=task_id, p_attempt=2) is True
    assert (
        service.call("s3edge_complete_attempt", p_task_id=task_id, p_attempt=2, **OUTCOME) is True
    )
    project.assert_books()


def test_an_inference_server_needs_no_attempt(project: Project, clock: MovableClock) -> None:
    """It knows tasks only, and what it says of one is as good as any answer."""
    service, user = project.service(), project.user()
    task_id = user.reserve()["task"]["id"]
    clock.set(15)
    _claim(service)
    assert service.call("s3edge_start_task", p_task_id=task_id) is True
    assert service.call("s3edge_complete_task", p_task_id=task_id, **OUTCOME) is True
    assert (
        service.call("s3edge_complete_attempt", p_task_id=task_id, p_attempt=2, **OUTCOME) is False
    )


def test_an_answer_that_races_a_claim_is_one_of_two(project: Project, clock: MovableClock) -> None:
    """Either the answer comes first, and nothing is claimed; or the claim does, and it is too late."""
    service, user = project.service(), project.user()
    for number in range(1, 21):
        task_id = user.reserve()["task"]["id"]
        clock.set(100 * number)
        complete = partial(
            service.call, "s3edge_complete_attempt", p_task_id=task_id, p_attempt=1, **OUTCOME
        )
        answers, refusals = at_once([complete, partial(_claim, service)])
        assert refusals == []
        completed = True in answers
        claimed = sum(len(answer) for answer in answers if isinstance(answer, list))
        task = project.task(task_id)
        assert (task["status"], task["attempt"]) in (("done", 1), ("pending", 2))
        assert completed == (task["status"] == "done")
        assert claimed == task["attempt"] - 1
        service.call("s3edge_fail_task", p_task_id=task_id, **FAILURE)
    project.assert_books()


def test_the_backlog_is_counted_up_to_a_limit(project: Project) -> None:
    """What has ended is not in it."""
    service, user = project.service(), project.user()
    assert service.call("s3edge_backlog", p_limit=5) == 0
    tasks = [user.reserve()["task"]["id"] for _ in range(4)]
    service.call("s3edge_fail_task", p_task_id=tasks[0], **FAILURE)
    service.call("s3edge_start_task", p_task_id=tasks[1])
    assert [service.call("s3edge_backlog", p_limit=limit) for limit in (5, 3, 2)] == [3, 3, 2]


def test_ends_are_announced_once(project: Project) -> None:
    """Whoever listens hears each end when it is committed, whoever wrote it; nothing else is told."""
    service, user = project.service(), project.user()
    done, failed, patched, undone = (user.reserve()["task"]["id"] for _ in range(4))
    with psycopg.connect(project.database.url("authenticator"), autocommit=True) as listener:
        listener.execute("listen s3edge_task_ended")
        service.call("s3edge_start_task", p_task_id=done)
        service.trying().call("s3edge_fail_task", p_task_id=undone, **FAILURE)
        for _ in range(2):
            service.call("s3edge_complete_task", p_task_id=done, **OUTCOME)
            service.call("s3edge_fail_task", p_task_id=failed, **FAILURE)
            service.run(
                "update public.segmentation_results set status = 'error' where id = %s", patched
            )
        heard = [note.payload for note in listener.notifies(timeout=5, stop_after=3)]
        assert heard == [done, failed, patched]
        assert list(listener.notifies(timeout=0.1)) == []


@pytest.mark.parametrize("prompt", ["   ", "\t", "a\ncat", "a\x7fcat", "cat\x01", "\u2003"])
def test_a_prompt_that_the_gateway_refuses_is_refused_here(shared: Project, prompt: str) -> None:
    """Users can call this by themselves."""
    arguments = {"p_task_id": uuid4(), "p_image_url": "https://s/u", "p_text_prompt": prompt}
    error = shared.user().call_refused("s3edge_reserve_task", **arguments)
    assert (error.sqlstate, error.diag.message_primary) == ("PT400", "invalid_request")


def test_no_queue_is_used_that_is_not_there(project: Project) -> None:
    """Asking for it is refused, and tasks are leased as before."""
    with pytest.raises(psycopg.Error) as caught:
        project.rows("select s3edge.set_dispatch('procrastinate')")
    assert caught.value.sqlstate == "PT412"
    project.rows("select s3edge.set_dispatch('inline')")
    assert project.user().reserve()["replayed"] is False


def test_only_the_owner_says_who_dispatches(shared: Project) -> None:
    """Neither users nor servers may queue tasks, take them, or change who dispatches."""
    for caller in (shared.anon(), shared.user(), shared.service()):
        for call in (
            "s3edge.set_dispatch('inline')",
            f"s3edge.enqueue('{uuid4()}')",
            "s3edge.enqueue_forgotten(1)",
            f"s3edge.take_task('{uuid4()}')",
        ):
            assert caller.refused(f"select {call}").sqlstate == "42501"
