"""What the functions answer, and what they leave in the tables."""

import json
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg.types.json import Jsonb

from tests.sql.conftest import INITIAL_CREDITS, Caller, MovableClock, Project, reservation


HASH, OTHER_HASH = "a" * 64, "b" * 64

LABELS = [{"label": "貓", "score": 0.5}, "plain", None]


def _complete(caller: Caller, task_id: object, **changes: object) -> Any:
    arguments = {
        "p_task_id": task_id,
        "p_mask_image_url": "https://s/m",
        "p_labels": Jsonb(LABELS),
        "p_metadata": Jsonb({"model_version": "1"}),
    }
    return caller.call("s3edge_complete_task", **{**arguments, **changes})


def _fail(caller: Caller, task_id: object) -> Any:
    return caller.call(
        "s3edge_fail_task",
        p_task_id=task_id,
        p_error_code="INFERENCE_FAILED",
        p_error_message="It broke.",
    )


def _ids(rows: list[tuple[Any, ...]]) -> list[str]:
    return [str(row[0]) for row in rows]


def test_a_reservation_is_answered_whole(project: Project, clock: MovableClock) -> None:
    """The answer holds the task as it is in the table, and the balance that is left."""
    user, now = project.user(), clock.set(0)
    project_id = user.value("insert into public.projects (name) values ('x') returning id")
    arguments = reservation(p_project_id=project_id, p_idempotency_key="k", p_request_hash=HASH)
    answer = user.call("s3edge_reserve_task", **arguments)
    task = project.task(arguments["p_task_id"])
    assert answer == {"replayed": False, "task": task, "credits": INITIAL_CREDITS - 1}
    times = {
        name: datetime.fromisoformat(task.pop(name))
        for name in ("created_at", "updated_at", "lease_until", "deadline_at")
    }
    assert times == {
        "created_at": now,
        "updated_at": now,
        "lease_until": now + timedelta(seconds=15),
        "deadline_at": now + timedelta(seconds=900),
    }
    assert task == {
        "id": str(arguments["p_task_id"]),
        "user_id": user.claims["sub"],
        "project_id": str(project_id),
        "source_image_url": arguments["p_image_url"],
        "text_prompt": arguments["p_text_prompt"],
        "mask_image_url": None,
        "labels": [],
        "metadata": {},
        "status": "pending",
        "cost": 1,
        "attempt": 1,
        "idempotency_key": "k",
        "request_hash": HASH,
        "error_code": None,
        "error_message": None,
    }
    assert project.rows(
        "select user_id::text, task_id::text, action, credits_used from usage_logs"
    ) == [(user.claims["sub"], task["id"], "segment", 1)]
    project.assert_books()


def test_a_reservation_is_undone_with_its_transaction(project: Project) -> None:
    """Debit, task and usage row are there together or not at all."""
    user = project.user()
    before = project.snapshot()
    assert user.trying().reserve()["credits"] == INITIAL_CREDITS - 1
    assert project.snapshot() == before


def test_a_repeated_id_is_the_same_answer(shared: Project) -> None:
    """A caller that got no answer asks again, is charged once, and hears that it is no replay."""
    user = shared.user()
    for key in ({}, {"p_idempotency_key": "k", "p_request_hash": HASH}):
        task_id = uuid4()
        first = user.reserve(task_id, **key)
        assert user.reserve(task_id, **key) == first
        assert first["replayed"] is False
    assert shared.usage(user) == [("segment", 1)] * 2


def test_a_repeated_key_is_a_replay(shared: Project) -> None:
    """It gets the first task, as it is by now, and pays nothing, also with nothing left."""
    user, key = shared.user(), {"p_idempotency_key": "k", "p_request_hash": HASH}
    first = user.reserve(**key)
    assert user.reserve(**key) == {**first, "replayed": True}
    while shared.credits(user):
        user.reserve()
    _fail(shared.service(), first["task"]["id"])
    later = user.reserve(**key)
    assert later == {"replayed": True, "task": shared.task(first["task"]["id"]), "credits": 1}
    assert later["task"]["status"] == "error"


def test_a_key_is_replayed_whatever_became_of_the_project(shared: Project) -> None:
    """The project of the first request may be gone by then."""
    user = shared.user()
    project_id = user.value("insert into public.projects (name) values ('x') returning id")
    key = {"p_idempotency_key": "k", "p_request_hash": HASH, "p_project_id": project_id}
    first = user.reserve(**key)
    user.run("delete from public.projects where id = %s", project_id)
    assert user.reserve(**key)["task"]["id"] == first["task"]["id"]


def test_a_reused_key_is_refused(shared: Project) -> None:
    """With another request it is an error; nothing changes and nothing is charged."""
    user = shared.user()
    user.reserve(p_idempotency_key="k", p_request_hash=HASH)
    reused = reservation(p_idempotency_key="k", p_request_hash=OTHER_HASH)
    error = user.call_refused("s3edge_reserve_task", **reused)
    assert (error.sqlstate, error.diag.message_primary) == ("PT422", "idempotency_key_reused")
    assert shared.usage(user) == [("segment", 1)]


def test_keys_are_per_user(shared: Project) -> None:
    """Two users choose the same key for different requests."""
    for request_hash in (HASH, OTHER_HASH):
        assert not shared.user().reserve(p_idempotency_key="k", p_request_hash=request_hash)[
            "replayed"
        ]


def test_an_empty_balance_is_refused(shared: Project) -> None:
    """The error says what it costs and what there is; it leaves no row and frees the key."""
    user, service = shared.user(), shared.service()
    for _ in range(INITIAL_CREDITS):
        user.reserve()
    first = reservation(p_idempotency_key="k", p_request_hash=HASH)
    error = user.call_refused("s3edge_reserve_task", **first)
    assert (error.sqlstate, error.diag.message_primary) == ("PT402", "insufficient_credits")
    assert json.loads(error.diag.message_detail or "") == {"cost": 1, "credits": 0}
    found = user.run("select * from public.segmentation_results where id = %s", first["p_task_id"])
    assert found == []
    assert len(shared.usage(user)) == INITIAL_CREDITS
    service.call("s3edge_grant_credits", p_user_id=user.claims["sub"], p_amount=1)
    answer = user.reserve(p_idempotency_key="k", p_request_hash=OTHER_HASH)
    assert (answer["replayed"], answer["credits"]) == (False, 0)


def test_prices_are_the_settings(project: Project, clock: MovableClock) -> None:
    """What a task costs, how long it may take and what a newcomer has are read at that moment."""
    service, earlier = project.service(), project.user()
    service.call("s3edge_configure", p_initial_credits=10, p_segment_cost=4, p_task_deadline_s=60)
    newcomer = project.user()
    assert earlier.reserve()["credits"] == INITIAL_CREDITS - 4
    answer = newcomer.reserve()
    assert (answer["credits"], answer["task"]["cost"]) == (6, 4)
    deadline = datetime.fromisoformat(answer["task"]["deadline_at"])
    assert deadline == clock.set(60)
    newcomer.reserve()
    error = newcomer.call_refused("s3edge_reserve_task", **reservation())
    assert json.loads(error.diag.message_detail or "") == {"cost": 4, "credits": 2}
    # What was paid is given back, not what it would cost by now.
    service.call("s3edge_configure", p_initial_credits=10, p_segment_cost=9, p_task_deadline_s=60)
    _fail(service, answer["task"]["id"])
    assert project.credits(newcomer) == 6
    project.assert_books()


def test_a_free_task_is_never_refunded(project: Project) -> None:
    """Where a segmentation costs nothing, a failure earns nothing."""
    service, user = project.service(), project.user()
    service.call("s3edge_configure", p_initial_credits=0, p_segment_cost=0, p_task_deadline_s=60)
    _fail(service, user.reserve()["task"]["id"])
    assert project.credits(user) == INITIAL_CREDITS
    assert project.usage(user) == [("segment", 0)]
    project.assert_books()


def test_a_task_is_started_and_completed(project: Project, clock: MovableClock) -> None:
    """Starting may be repeated; completing says whether it was the first; the rest is refused."""
    service, user = project.service(), project.user()
    task_id = user.reserve()["task"]["id"]
    clock.set(1)
    assert service.call("s3edge_start_task", p_task_id=task_id) is True
    started = project.task(task_id)
    assert started["status"] == "processing"
    clock.set(2)
    assert service.call("s3edge_start_task", p_task_id=task_id) is True
    assert project.task(task_id) == started
    now = clock.set(3)
    assert _complete(service, task_id) is True
    done = project.task(task_id)
    assert datetime.fromisoformat(done["updated_at"]) == now
    assert (done["status"], done["labels"]) == ("done", LABELS)
    assert (done["mask_image_url"], done["metadata"]) == ("https://s/m", {"model_version": "1"})
    clock.set(4)
    assert _complete(service, task_id, p_mask_image_url="https://s/other") is False
    assert _fail(service, task_id) is False
    assert service.call("s3edge_start_task", p_task_id=task_id) is False
    assert project.task(task_id) == done
    assert project.usage(user) == [("segment", 1)]


def test_a_failure_is_refunded_once(project: Project, clock: MovableClock) -> None:
    """With a usage row of its own; what comes later changes nothing."""
    service, user = project.service(), project.user()
    task_id = user.reserve()["task"]["id"]
    now = clock.set(1)
    assert _fail(service, task_id) is True
    failed = project.task(task_id)
    assert datetime.fromisoformat(failed["updated_at"]) == now
    assert (failed["status"], failed["error_code"], failed["error_message"]) == (
        "error",
        "INFERENCE_FAILED",
        "It broke.",
    )
    clock.set(2)
    assert (_fail(service, task_id), _complete(service, task_id)) == (False, False)
    assert project.task(task_id) == failed
    assert project.credits(user) == INITIAL_CREDITS
    assert project.usage(user) == [("segment", 1), ("refund", -1)]
    project.assert_books()


def test_tasks_that_are_not_there_are_not_changed(shared: Project) -> None:
    """Every function says so."""
    service = shared.service()
    assert service.call("s3edge_start_task", p_task_id=uuid4()) is False
    assert _complete(service, uuid4()) is False
    assert _fail(service, uuid4()) is False


def test_nothing_is_done_without_a_mask(shared: Project) -> None:
    """``done`` without its result would be paid for nothing; absent labels are none."""
    service = shared.service()
    task_id = shared.user().reserve()["task"]["id"]
    error = service.call_refused(
        "s3edge_complete_task",
        p_task_id=task_id,
        p_mask_image_url=None,
        p_labels=None,
        p_metadata=None,
    )
    assert (error.sqlstate, error.diag.message_primary) == ("PT400", "invalid_request")
    assert _complete(service, task_id, p_labels=None, p_metadata=None) is True
    task = shared.task(task_id)
    assert (task["labels"], task["metadata"]) == ([], {})


@pytest.mark.parametrize("first_status", ["pending", "processing"])
def test_a_lease_keeps_others_away(
    project: Project, clock: MovableClock, first_status: str
) -> None:
    """For 15 seconds from the reservation, then for as long as who claimed it said."""
    service = project.service()
    task_id = project.user().reserve()["task"]["id"]
    if first_status == "processing":
        service.call("s3edge_start_task", p_task_id=task_id)

    def claimed(lease_s: float) -> list[str]:
        return _ids(service.call_set("s3edge_claim_tasks", p_limit=10, p_lease_s=lease_s))

    before = project.task(task_id)
    clock.set(14.9)
    assert claimed(30) == []
    until = clock.set(15) + timedelta(seconds=30)
    assert claimed(30) == [task_id]
    assert project.task(task_id) == {**before, "lease_until": until.isoformat(), "attempt": 2}
    clock.set(44.9)
    assert claimed(30) == []
    service.call("s3edge_extend_leases", p_task_ids=[UUID(task_id), uuid4()], p_lease_s=0.2)
    clock.set(45)
    assert claimed(30) == []
    clock.set(45.1)
    assert claimed(30) == [task_id]


def test_claims_are_oldest_first_and_limited(project: Project, clock: MovableClock) -> None:
    """Nobody waits for those who came later, and what ended is not claimed."""
    service, user = project.service(), project.user()
    tasks = []
    for second in range(6):
        clock.set(second)
        tasks.append(user.reserve()["task"]["id"])
    _complete(service, tasks[0])
    _fail(service, tasks[1])
    # The newest has been free for longest.
    for lease_s, task_id in enumerate(reversed(tasks)):
        service.call("s3edge_extend_leases", p_task_ids=[UUID(task_id)], p_lease_s=lease_s)
    clock.set(60)
    for expected in (tasks[2:5], tasks[5:], []):
        rows = service.call_set("s3edge_claim_tasks", p_limit=3, p_lease_s=60)
        assert _ids(rows) == expected
    ended = project.task(tasks[0])
    service.call("s3edge_extend_leases", p_task_ids=[UUID(tasks[0])], p_lease_s=600)
    assert project.task(tasks[0]) == ended


def test_deadlines_end_tasks_with_a_refund(project: Project, clock: MovableClock) -> None:
    """At the deadline and not before, whatever the lease says; ended tasks are left alone."""
    service, user = project.service(), project.user()
    pending, processing, done = (user.reserve()["task"]["id"] for _ in range(3))
    service.call("s3edge_start_task", p_task_id=processing)
    _complete(service, done)
    service.call("s3edge_extend_leases", p_task_ids=[UUID(pending)], p_lease_s=10_000)
    clock.set(899.9)
    assert service.call_set("s3edge_settle_overdue") == []
    clock.set(900)
    settled = _ids(service.call_set("s3edge_settle_overdue"))
    assert sorted(settled) == sorted([pending, processing])
    assert project.task(pending)["error_code"] == "INFERENCE_FAILED"
    assert project.task(done)["status"] == "done"
    assert service.call_set("s3edge_settle_overdue") == []
    assert project.credits(user) == INITIAL_CREDITS - 1
    assert sorted(project.usage(user)) == [("refund", -1)] * 2 + [("segment", 1)] * 3
    project.assert_books()


def test_a_grant_is_in_the_books(shared: Project) -> None:
    """It adds to what was given, with a usage row that says how much and that charges nothing."""
    service, user = shared.service(), shared.user()
    grant = {"p_user_id": user.claims["sub"], "p_amount": 1_000_000_000}
    assert service.call("s3edge_grant_credits", **grant) == INITIAL_CREDITS + 1_000_000_000
    assert user.run("select action, credits_used, metadata from public.usage_logs") == [
        ("grant", 0, {"amount": 1_000_000_000})
    ]
    accounts = service.call_set("s3edge_accounts", p_after=None, p_limit=500)
    total = INITIAL_CREDITS + 1_000_000_000
    assert (UUID(str(user.claims["sub"])), total, total, 0, 0) in accounts


def test_a_grant_needs_a_user(shared: Project) -> None:
    """Credits for nobody are an error."""
    error = shared.service().call_refused("s3edge_grant_credits", p_user_id=uuid4(), p_amount=1)
    assert (error.sqlstate, error.diag.message_primary) == ("PT404", "unknown_user")


def test_accounts_come_page_by_page(project: Project) -> None:
    """In the order of their ids, each once, whatever size a page has."""
    service = project.service()
    users = sorted(project.sign_up() for _ in range(5))
    for size in (1, 2, 5, 500):
        seen: list[UUID] = []
        after = None
        while page := service.call_set("s3edge_accounts", p_after=after, p_limit=size):
            assert len(page) <= size
            seen += [row[0] for row in page]
            after = seen[-1]
        assert seen == users
