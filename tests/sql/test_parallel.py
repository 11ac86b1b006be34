"""Calls that arrive at once: nothing is paid twice, and nobody waits for somebody who waits for them."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from attrs import evolve

from tests.sql.conftest import (
    INITIAL_CREDITS,
    Caller,
    Connections,
    Project,
    at_once,
)


HASH = "a" * 64


@contextmanager
def _held(project: Project, query: str, *values: object) -> Iterator[psycopg.Connection]:
    """Hold the locks of a statement until the block ends."""
    with psycopg.connect(project.database.url("postgres")) as connection:
        connection.execute(query.encode(), values)
        yield connection


def _until_waiting(project: Project, count: int) -> None:
    """Return when so many sessions wait for a lock; Postgres has no event to wait for."""
    for _ in range(2000):
        if project.value("select count(distinct pid) from pg_locks where not granted") == count:
            return
        project.rows("select pg_sleep(0.005)")
    pytest.fail(f"never did {count} sessions wait for a lock")


def _planned(caller: Caller, *switches: str) -> Caller:
    """Return the caller over a connection on which the planner must do without something."""
    options = "%20".join(f"-c%20{switch}%3Doff" for switch in switches)
    return evolve(caller, connections=Connections(f"{caller.connections.url}?options={options}"))


def _users(project: Project, count: int) -> list[Caller]:
    return [project.user(user_id) for user_id in sorted(project.sign_up() for _ in range(count))]


def _later(project: Project, seconds: float) -> None:
    project.stop_clock(datetime.now(UTC) + timedelta(seconds=seconds))


def _let_afford(project: Project, user: Caller, count: int) -> None:
    """Leave a user so many credits, so that the books still add up."""
    project.rows(
        "update public.users_profile set credits = %s, credits_granted = %s where id = %s",
        count,
        count,
        user.claims["sub"],
    )


def test_reservations_share_what_there_is(project: Project) -> None:
    """Of 20 reservations on credits for 5, exactly 5 are made, each with a balance of its own."""
    user = project.user()
    _let_afford(project, user, 5)
    answers, refusals = at_once([user.reserve] * 20)
    assert sorted(answer["credits"] for answer in answers) == [0, 1, 2, 3, 4]
    assert [refusal.sqlstate for refusal in refusals] == ["PT402"] * 15
    assert project.credits(user) == 0
    assert project.usage(user) == [("segment", 1)] * 5
    assert project.value("select count(*) from public.segmentation_results") == 5
    project.assert_books()


def test_a_key_makes_one_task(project: Project) -> None:
    """Of 8 repeats at once, one is charged, and all get its task."""
    user = project.user()
    answers, refusals = at_once(
        [partial(user.reserve, p_idempotency_key="k", p_request_hash=HASH)] * 8
    )
    assert refusals == []
    assert sorted(answer["replayed"] for answer in answers) == [False] + [True] * 7
    assert len({answer["task"]["id"] for answer in answers}) == 1
    assert {answer["credits"] for answer in answers} == {INITIAL_CREDITS - 1}
    assert project.usage(user) == [("segment", 1)]
    project.assert_books()


def test_an_id_makes_one_task(project: Project) -> None:
    """A caller that sends a request again, while the first is still on its way, is charged once."""
    user, task_id = project.user(), uuid4()
    answers, refusals = at_once([partial(user.reserve, task_id)] * 8)
    assert refusals == []
    assert answers == [answers[0]] * 8
    assert answers[0]["replayed"] is False
    assert project.usage(user) == [("segment", 1)]
    project.assert_books()


def test_a_key_waits_for_the_first_request_to_be_refused(project: Project) -> None:
    """When the request that holds the key fails, the repeat that waited for it takes its place."""
    user = project.user()
    with ThreadPoolExecutor(1) as pool:
        with user.transaction() as first:
            first.execute(
                "select public.s3edge_reserve_task(%s, 'https://s', 'p', null, 'k', %s)",
                (uuid4(), HASH),
            )
            repeat = pool.submit(user.reserve, p_idempotency_key="k", p_request_hash=HASH)
            _until_waiting(project, 1)
            first.rollback()
        assert repeat.result()["replayed"] is False
    assert project.usage(user) == [("segment", 1)]


def test_a_first_request_makes_one_profile(project: Project) -> None:
    """Somebody whose profile is missing gets one, however many of their requests come first."""
    user = project.user()
    project.rows("delete from public.users_profile where id = %s", user.claims["sub"])
    answers, refusals = at_once([user.reserve] * 8)
    assert refusals == []
    assert {answer["credits"] for answer in answers} == set(range(INITIAL_CREDITS - 8, 100))
    project.assert_books()


def _finish(project: Project, task_id: object) -> Sequence[Callable[[], Any]]:
    """Return every way in which a task can end."""
    service = project.service()
    return [
        partial(
            service.call,
            "s3edge_complete_task",
            p_task_id=task_id,
            p_mask_image_url="https://s/m",
            p_labels="[]",
            p_metadata="{}",
        ),
        partial(
            service.call,
            "s3edge_fail_task",
            p_task_id=task_id,
            p_error_code="INFERENCE_FAILED",
            p_error_message="It broke.",
        ),
        partial(service.call_set, "s3edge_settle_overdue"),
        partial(
            service.run,
            "update public.segmentation_results set status = 'error' where id = %s",
            task_id,
        ),
        partial(
            service.run,
            "update public.segmentation_results set status = 'done' where id = %s",
            task_id,
        ),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_one_outcome_wins(project: Project, seed: int) -> None:
    """However many ends come at once, there is one, and at most one refund."""
    user = project.user()
    task_id = user.reserve()["task"]["id"]
    _later(project, 901)
    calls = [*_finish(project, task_id)] * 3
    Random(seed).shuffle(calls)
    _, refusals = at_once(calls)
    assert refusals == []
    ended = project.task(task_id)
    refunds = [row for row in project.usage(user) if row[0] == "refund"]
    assert (ended["status"], refunds) in [("done", []), ("error", [("refund", -1)])]
    assert project.credits(user) == INITIAL_CREDITS - 1 - sum(amount for _, amount in refunds)
    for call in calls:
        call()
    assert project.task(task_id) == ended
    project.assert_books()


def test_who_comes_second_hears_so(project: Project) -> None:
    """Of two reports of the same task, the one that waited for the other changes nothing."""
    task_id = project.user().reserve()["task"]["id"]
    complete, fail, *_ = _finish(project, task_id)
    with (
        _held(
            project, "select from public.segmentation_results where id = %s for update", task_id
        ) as held,
        ThreadPoolExecutor(2) as pool,
    ):
        first = pool.submit(complete)
        _until_waiting(project, 1)
        second = pool.submit(fail)
        _until_waiting(project, 2)
        held.rollback()
        assert (first.result(), second.result()) == (True, False)
    assert project.task(task_id)["status"] == "done"
    project.assert_books()


def test_claims_are_shared_out_once(project: Project) -> None:
    """Servers that look at once lease different tasks, and together all of them."""
    user = project.user()
    tasks = {user.reserve()["task"]["id"] for _ in range(40)}
    _later(project, 16)
    service = project.service()
    answers, refusals = at_once(
        [partial(service.call_set, "s3edge_claim_tasks", p_limit=10, p_lease_s=60)] * 8
    )
    claimed = [row[0] for rows in answers for row in rows]
    while rest := service.call_set("s3edge_claim_tasks", p_limit=10, p_lease_s=60):
        claimed += [row[0] for row in rest]
    assert refusals == []
    assert len(claimed) == len(set(claimed))
    assert {str(task_id) for task_id in claimed} == tasks


def test_a_claim_waits_for_nobody(project: Project) -> None:
    """A task that somebody is just changing is left out, also by a settlement."""
    user = project.user()
    busy, free = (UUID(user.reserve()["task"]["id"]) for _ in range(2))
    _later(project, 901)
    service = project.service()
    with _held(project, "select from public.segmentation_results where id = %s for update", busy):
        claimed = service.call_set("s3edge_claim_tasks", p_limit=9, p_lease_s=60)
        assert [row[0] for row in claimed] == [free]
        assert service.call_set("s3edge_settle_overdue") == [(free,)]
    assert service.call_set("s3edge_settle_overdue") == [(busy,)]


def test_settlements_wait_for_nobody(project: Project) -> None:
    """A task, or a user, whom somebody else holds just now is left for the next time; others are not."""
    a, b, c = _users(project, 3)
    of_a, of_b, of_c = (user.reserve()["task"]["id"] for user in (a, b, c))
    _later(project, 901)
    service = project.service()

    def settled() -> list[str]:
        return sorted(str(row[0]) for row in service.call_set("s3edge_settle_overdue"))

    with (
        _held(
            project,
            "select from public.users_profile where id = %s for no key update",
            c.claims["sub"],
        ) as profile_of_c,
        _held(
            project,
            "select from public.segmentation_results where id = %s for update",
            of_b,
        ) as task_of_b,
    ):
        assert settled() == [of_a]
        assert settled() == []
        profile_of_c.rollback()
        assert settled() == [of_c]
        task_of_b.rollback()
        assert settled() == [of_b]
    project.assert_books()


def test_leases_are_extended_in_one_order(project: Project) -> None:
    """Two servers that both believe they hold the same tasks do not wait for each other."""
    user = project.user()
    low, middle, high = sorted(uuid4() for _ in range(3))
    for task_id in (high, middle, low):
        user.reserve(task_id)
    for until, task_id in enumerate((high, middle, low)):
        project.rows(
            "update public.segmentation_results set lease_until = now() - make_interval(secs => %s),"
            " deadline_at = now() - make_interval(secs => %s) where id = %s",
            until,
            until,
            task_id,
        )
    by_index = _planned(project.service(), "enable_seqscan", "enable_bitmapscan")
    as_they_lie = _planned(project.service(), "enable_indexscan", "enable_bitmapscan")
    arguments = {"p_task_ids": [low, middle, high], "p_lease_s": 60}
    with (
        ThreadPoolExecutor(2) as pool,
        _held(
            project, "select from public.segmentation_results where id = %s for update", middle
        ) as held,
    ):
        calls: list[Future[Any]] = []
        for count, caller in enumerate((by_index, as_they_lie), start=1):
            calls.append(pool.submit(caller.call, "s3edge_extend_leases", **arguments))
            _until_waiting(project, count)
        held.rollback()
        assert [call.result() for call in calls] == [None, None]
    by_index.connections.close()
    as_they_lie.connections.close()


def test_a_mixed_load_ends(project: Project) -> None:
    """Everything at once, over the same few users and tasks: no call is chosen to die."""
    users = _users(project, 4)
    for user in users:
        _let_afford(project, user, 30)
    random = Random(7)
    tasks = [user.reserve()["task"]["id"] for user in users for _ in range(10)]
    project.rows(
        "update public.segmentation_results set deadline_at = now() where id = any (%s::uuid[])",
        tasks[::2],
    )
    service = project.service()
    calls: list[Callable[[], Any]] = []
    for number in range(200):
        user, task_id = random.choice(users), random.choice(tasks)
        choices: list[Callable[[], Any]] = [
            user.reserve,
            partial(user.reserve, p_idempotency_key=str(number % 9), p_request_hash=HASH),
            partial(user.call_set, "s3edge_settle_overdue"),
            partial(service.call, "s3edge_start_task", p_task_id=task_id),
            partial(service.call_set, "s3edge_claim_tasks", p_limit=5, p_lease_s=0),
            partial(
                service.call,
                "s3edge_extend_leases",
                p_task_ids=random.sample(tasks, 12),
                p_lease_s=1,
            ),
            partial(
                service.call,
                "s3edge_grant_credits",
                p_user_id=user.claims["sub"],
                p_amount=1,
            ),
            partial(user.run, "update public.users_profile set display_name = 'x' where true"),
            *_finish(project, task_id),
        ]
        calls.append(random.choice(choices))
    with ThreadPoolExecutor(16) as pool:
        futures = [pool.submit(call) for call in calls]
    failures = [future.exception() for future in futures]
    unexpected = [
        failure
        for failure in failures
        if failure is not None
        and not (isinstance(failure, psycopg.Error) and failure.sqlstate == "PT402")
    ]
    assert unexpected == []
    project.assert_books()
