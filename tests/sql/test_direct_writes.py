"""
What holds whoever writes: a server with the service key changes rows by itself.

An inference server may write ``processing``, then ``done`` with its result, without any function.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from tests.sql.conftest import INITIAL_CREDITS, Caller, MovableClock, Project


DONE: Mapping[str, object] = {
    "status": "done",
    "mask_image_url": "https://s/m",
    "labels": Jsonb([{"label": "car"}]),
    "metadata": Jsonb({"inference_time_ms": 3, "confidence": 0.5, "model_version": "1"}),
}


def _update(changes: Mapping[str, object]) -> sql.Composed:
    assignments = sql.SQL(", ").join(
        sql.SQL("{} = %s").format(sql.Identifier(column)) for column in changes
    )
    return sql.SQL("update public.segmentation_results set {} where id = %s").format(assignments)


def _patch(caller: Caller, task_id: object, changes: Mapping[str, object]) -> None:
    """Do what ``PATCH /rest/v1/segmentation_results?id=eq.<task_id>`` does."""
    with caller.transaction() as connection:
        cursor = connection.execute(_update(changes), [*changes.values(), task_id])
        assert cursor.rowcount == 1


def test_a_server_reports_by_itself(project: Project, clock: MovableClock) -> None:
    """It starts a task and completes it, and each step is dated; nothing is refunded."""
    service, user = project.service(), project.user()
    task_id = user.reserve()["task"]["id"]
    started = clock.set(1)
    _patch(service, task_id, {"status": "processing"})
    task = project.task(task_id)
    assert (task["status"], task["updated_at"]) == ("processing", started.isoformat())
    done = clock.set(2)
    _patch(service, task_id, DONE)
    task = project.task(task_id)
    assert (task["status"], task["updated_at"]) == ("done", done.isoformat())
    assert task["labels"] == [{"label": "car"}]
    assert project.usage(user) == [("segment", 1)]
    project.assert_books()


@pytest.mark.parametrize("started", [False, True])
def test_an_error_is_refunded_once(shared: Project, *, started: bool) -> None:
    """However often it is written, and whatever is written after it."""
    service, user = shared.service(), shared.user()
    task_id = user.reserve()["task"]["id"]
    if started:
        _patch(service, task_id, {"status": "processing"})
    _patch(service, task_id, {"status": "error", "error_message": "It broke."})
    failed = shared.task(task_id)
    for changes in ({"status": "error"}, {"status": "pending"}, DONE, {"status": "error"}):
        _patch(service, task_id, changes)
    assert shared.task(task_id) == failed
    assert shared.credits(user) == INITIAL_CREDITS
    assert shared.usage(user) == [("segment", 1), ("refund", -1)]


@pytest.mark.parametrize("end", ["done", "error"])
@pytest.mark.parametrize("writer", ["service", "owner"])
def test_an_outcome_is_final(project: Project, clock: MovableClock, end: str, writer: str) -> None:
    """No column of it changes any more, by whichever role."""
    service, user = project.service(), project.user()
    task_id = user.reserve()["task"]["id"]
    _patch(service, task_id, {**DONE, "status": end})
    ended, credits_left = project.task(task_id), project.credits(user)
    clock.set(1)
    others: dict[str, object] = {
        "mask_image_url": "https://s/other",
        "labels": Jsonb(["other"]),
        "metadata": Jsonb({"other": True}),
        "error_code": "X",
        "error_message": "x",
        "updated_at": clock.start + timedelta(days=9),
        "cost": 50,
    }
    for status in ("pending", "processing", "done", "error"):
        for column, value in {**others, "status": status}.items():
            changes = {"status": status, column: value}
            if writer == "service":
                _patch(service, task_id, changes)
            else:
                project.owner.execute(_update(changes), [*changes.values(), task_id])
    assert project.task(task_id) == ended
    assert project.credits(user) == credits_left
    project.assert_books()


@pytest.mark.parametrize("others", [False, True], ids=["cost", "user"])
def test_what_was_paid_is_refunded_to_who_paid(shared: Project, *, others: bool) -> None:
    """Neither the price of a task nor its user can be changed while it is under way."""
    service, user, other = shared.service(), shared.user(), shared.user()
    task_id = user.reserve()["task"]["id"]
    _patch(service, task_id, {"user_id": other.claims["sub"]} if others else {"cost": 50})
    _patch(service, task_id, {"status": "error"})
    assert (shared.credits(user), shared.credits(other)) == (INITIAL_CREDITS, INITIAL_CREDITS)
    assert shared.usage(user) == [("segment", 1), ("refund", -1)]
    assert shared.usage(other) == []


def test_many_tasks_end_in_one_statement(shared: Project) -> None:
    """Each is refunded."""
    service, user = shared.service(), shared.user()
    for _ in range(5):
        user.reserve()
    service.run(
        "update public.segmentation_results set status = 'error' where user_id = %s",
        user.claims["sub"],
    )
    assert shared.credits(user) == INITIAL_CREDITS
    assert sorted(shared.usage(user)) == [("refund", -1)] * 5 + [("segment", 1)] * 5


def test_a_change_without_a_new_status_is_not_dated(project: Project, clock: MovableClock) -> None:
    """``updated_at`` says when the status last changed: a lease or a note is no news to users."""
    service = project.service()
    before = project.user().reserve()["task"]
    clock.set(60)
    service.call_set("s3edge_claim_tasks", p_limit=1, p_lease_s=60)
    _patch(service, before["id"], {"metadata": Jsonb({"note": 1})})
    after = project.task(before["id"])
    assert after["metadata"] == {"note": 1}
    assert datetime.fromisoformat(after["updated_at"]) == clock.start


def test_a_status_is_one_of_four(shared: Project) -> None:
    """Anything else is refused, and the task goes on."""
    service = shared.service()
    task_id = shared.user().reserve()["task"]["id"]
    for status, sqlstate in (("failed", "23514"), (None, "23502")):
        error = service.refused(
            "update public.segmentation_results set status = %s where id = %s", status, task_id
        )
        assert error.sqlstate == sqlstate
    assert shared.task(task_id)["status"] == "pending"


def test_a_paid_task_is_not_deleted_by_itself(shared: Project) -> None:
    """The books would not add up; one that was not paid can go."""
    service, user = shared.service(), shared.user()
    task_id = user.reserve()["task"]["id"]
    delete = "delete from public.segmentation_results where id = %s"
    assert service.refused(delete, task_id).sqlstate == "23503"
    _patch(service, task_id, {"status": "error"})
    assert service.refused(delete, task_id).sqlstate == "23503"
    unpaid = service.value(
        "insert into public.segmentation_results (user_id, source_image_url, text_prompt)"
        " values (%s, 'https://s', 'p') returning id",
        user.claims["sub"],
    )
    service.run(delete, unpaid)
    found = user.run("select id::text from public.segmentation_results")
    assert found == [(task_id,)]


def test_a_row_that_a_server_makes_costs_nothing(shared: Project) -> None:
    """It was not paid, so it can fail without a refund; it is overdue after 15 minutes."""
    service, user = shared.service(), shared.user()
    task_id = service.value(
        "insert into public.segmentation_results (user_id, source_image_url, text_prompt)"
        " values (%s, 'https://s', 'p') returning id",
        user.claims["sub"],
    )
    task = shared.task(task_id)
    times = {name: datetime.fromisoformat(task[name]) for name in ("created_at", "deadline_at")}
    assert times["deadline_at"] - times["created_at"] == timedelta(minutes=15)
    _patch(service, task_id, {"status": "error"})
    assert shared.credits(user) == INITIAL_CREDITS
    assert shared.usage(user) == []


def test_profiles_and_projects_are_dated(project: Project, clock: MovableClock) -> None:
    """By whoever changes them, with the database's time and no other."""
    user = project.user()
    project_id = user.value("insert into public.projects (name) values ('x') returning id")
    now = clock.set(77)
    user.run("update public.users_profile set display_name = 'x' where true")
    user.run("update public.projects set name = 'y', updated_at = '2000-01-01' where true")
    assert project.value("select updated_at from public.users_profile") == now
    dated = project.value("select updated_at from public.projects where id = %s", project_id)
    assert dated == now


@pytest.mark.parametrize("amount", [0, 7])
def test_the_books_of_a_profile_begin_with_what_it_is_made_with(
    shared: Project, amount: int
) -> None:
    """An operator makes a profile with credits of its own; what it says was granted is not heard."""
    service, user = shared.service(), shared.user()
    profile: dict[str, Any] = {
        "id": user.claims["sub"],
        "credits": amount,
        "credits_granted": 10**6,
    }
    service.run("delete from public.users_profile where id = %s", profile["id"])
    service.run(
        "insert into public.users_profile (id, credits, credits_granted) values (%s, %s, %s)",
        *profile.values(),
    )
    granted = shared.value(
        "select credits_granted from public.users_profile where id = %s", profile["id"]
    )
    assert (shared.credits(user), granted) == (amount, amount)


def test_a_trigger_of_the_projects_own_may_give_more(fresh: Project) -> None:
    """The books begin with what all triggers together made of the profile."""
    fresh.database.apply("""
        create function public.welcome_bonus() returns trigger language plpgsql as $$
        begin
            new.credits := new.credits + 25;
            return new;
        end
        $$;
        create trigger welcome_bonus before insert on public.users_profile
        for each row execute function public.welcome_bonus();
    """)
    user = fresh.user()
    assert fresh.credits(user) == INITIAL_CREDITS + 25
    fresh.assert_books()


def test_an_unknown_task_is_not_logged(shared: Project) -> None:
    """A usage row names a task that is there, or none."""
    user = shared.user()
    error = shared.service().refused(
        "insert into public.usage_logs (user_id, action, task_id) values (%s, 'refund', %s)",
        user.claims["sub"],
        uuid4(),
    )
    assert error.sqlstate == "23503"


def test_a_task_is_charged_and_refunded_once_in_the_log(shared: Project) -> None:
    """The log itself refuses a second row of either kind."""
    service, user = shared.service(), shared.user()
    task_id = user.reserve()["task"]["id"]
    _patch(service, task_id, {"status": "error"})
    for action, amount in (("segment", 1), ("refund", -1)):
        error = service.refused(
            "insert into public.usage_logs (user_id, task_id, action, credits_used)"
            " values (%s, %s, %s, %s)",
            user.claims["sub"],
            task_id,
            action,
            amount,
        )
        assert error.sqlstate == "23505"
