"""Results are counted in runs, exactly, whatever adds and removes them; offsets read the counts."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any
from uuid import UUID

import psycopg
import pytest

from s3edge_postgres import statements
from tests.sql.conftest import Project, at_once


SHORT_RUNS = """
create or replace function s3edge.run_length() returns integer
language sql immutable set search_path = ''
as 'select 4'
"""

MISCOUNTED = """
with runs as (
    select c.*, lead(c.since, 1, 'infinity') over (partition by c.user_id order by c.since) as before
    from s3edge.result_counts c
)
select r.user_id, r.since::text, r.count, counted.count
from runs r cross join lateral (
    select count(*) from public.segmentation_results t
    where t.user_id = r.user_id and t.created_at >= r.since and t.created_at < r.before
) counted
where r.count <> counted.count
union all
select t.user_id, null, 0, count(*) from public.segmentation_results t
where t.created_at is not null
    and not exists (select from runs r where r.user_id = t.user_id and r.since <= t.created_at)
group by t.user_id
"""
"""Runs whose count is not that of their rows, and users some of whose rows are in none."""

INSERT = """
insert into public.segmentation_results (user_id, source_image_url, text_prompt, created_at)
select user_id, 'https://s', 'p', created_at
from unnest(%s::uuid[], %s::timestamptz[]) added (user_id, created_at)
"""

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def counted(fresh: Project) -> Project:
    """Return a project that counts in runs of 4, so that a few rows make many."""
    fresh.rows(SHORT_RUNS)
    return fresh


def at(*seconds: float) -> Sequence[datetime]:
    """Return moments."""
    return [EPOCH + timedelta(seconds=second) for second in seconds]


def add(project: Project, user_id: UUID, moments: Sequence[datetime]) -> None:
    """Add rows of one user, as an inference server or an operator may."""
    project.rows(INSERT, [user_id] * len(moments), moments)


def runs_of(project: Project, user_id: UUID) -> list[int]:
    """Return how long a user's runs are, the oldest first."""
    rows = project.rows(
        "select count from s3edge.result_counts where user_id = %s order by since", user_id
    )
    return [count for (count,) in rows]


def listed(
    connection: psycopg.Connection[Any], user_id: UUID, offset: int, limit: int
) -> tuple[int, list[UUID]]:
    """Return the total and a page, by the statement that the adapter runs."""
    statement = statements.results(by_position=False, of_project=False, in_status=False)
    values = {"user_id": user_id, "offset": offset, "limit": limit}
    cursor = connection.execute(statement.encode(), values)
    assert cursor.description is not None
    names = [column.name for column in cursor.description]
    rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return rows[0]["total"], [row["id"] for row in rows if row["id"] is not None]


def assert_pages_are_exact(project: Project, user_id: UUID) -> None:
    """Check every offset against the whole list, in one glance."""
    everything = [
        task_id
        for (task_id,) in project.rows(
            "select id from public.segmentation_results where user_id = %s"
            " order by created_at desc, id desc",
            user_id,
        )
    ]
    for offset in range(len(everything) + 3):
        page = listed(project.owner, user_id, offset, 3)
        assert page == (len(everything), everything[offset : offset + 3])


def test_a_run_is_split_off_at_the_new_end(counted: Project) -> None:
    """One row after the other, as reservations come; those between go into the run that is there."""
    user_id = counted.sign_up()
    for second in range(10):
        add(counted, user_id, at(second))
    assert runs_of(counted, user_id) == [4, 4, 2]
    add(counted, user_id, at(1.5))
    add(counted, user_id, at(-7))
    assert runs_of(counted, user_id) == [6, 4, 2]
    assert_pages_are_exact(counted, user_id)


def test_many_rows_at_once_are_counted_anew(counted: Project) -> None:
    """So a run never becomes long; rows of one moment are in one run, however many."""
    user_id = counted.sign_up()
    add(counted, user_id, at(*range(18)))
    assert runs_of(counted, user_id) == [4, 4, 4, 4, 2]
    add(counted, user_id, at(*[6] * 9))
    assert counted.rows(MISCOUNTED) == []
    assert_pages_are_exact(counted, user_id)


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_exact_whatever_happens(counted: Project, seed: int) -> None:
    """Rows come at the end and between, at one moment, in bulk; they go, and are dated otherwise."""
    random = Random(seed)
    users = [counted.sign_up() for _ in range(3)]
    changes = {
        "delete": "delete from public.segmentation_results where user_id = %s and random() < 0.1",
        "move": "update public.segmentation_results set created_at = created_at + interval '17 s'"
        " where user_id = %s and random() < 0.1",
        "touch": "update public.segmentation_results set text_prompt = 'q' where user_id = %s",
    }
    for step in range(120):
        user_id = random.choice(users)
        what = random.choice(["append"] * 6 + ["between", "bulk", *changes])
        if what == "append":
            add(counted, user_id, at(step // 2))
        elif what == "between":
            add(counted, user_id, at(random.randrange(60)))
        elif what == "bulk":
            moments = at(*(random.randrange(90) for _ in range(random.randrange(30))))
            counted.rows(INSERT, [random.choice(users) for _ in moments], moments)
        else:
            counted.rows(changes[what], user_id)
        assert counted.rows(MISCOUNTED) == []
    for user_id in users:
        assert_pages_are_exact(counted, user_id)
    counted.as_auth("delete from auth.users where id = %s", users[0])
    assert runs_of(counted, users[0]) == []
    counted.rows("truncate public.segmentation_results cascade")
    assert counted.rows("select * from s3edge.result_counts") == []


def test_counts_are_exact_when_all_write_at_once(counted: Project) -> None:
    """Also of reservations, which end up in runs that others split off while they waited."""
    user = counted.user()
    user_id = UUID(str(user.claims["sub"]))

    def insert_or_delete(number: int) -> None:
        with psycopg.connect(counted.database.url("postgres")) as connection:
            for turn in range(6):
                if (number + turn) % 5 == 0:
                    connection.execute(
                        "delete from public.segmentation_results where id in ("
                        " select id from public.segmentation_results"
                        " where cost = 0 and user_id = %s limit 2 for update skip locked)",
                        (user_id,),
                    )
                else:
                    connection.execute(INSERT.encode(), ([user_id], [datetime.now(UTC)]))
                connection.commit()

    def reserve() -> None:
        user.reserve()

    calls: list[Callable[[], None]] = [partial(insert_or_delete, number) for number in range(8)]
    _, refusals = at_once([*calls, *[reserve] * 8])
    assert refusals == []
    assert counted.rows(MISCOUNTED) == []
    assert len(runs_of(counted, user_id)) > 5
    assert_pages_are_exact(counted, user_id)


def test_what_is_undone_is_not_counted(counted: Project) -> None:
    """Counts are of the transaction that changes the rows."""
    user = counted.user()
    user.reserve()
    user.trying().reserve()
    assert runs_of(counted, UUID(str(user.claims["sub"]))) == [1]


def test_rows_that_no_trigger_saw_are_listed(counted: Project) -> None:
    """Of a user without counts everything is walked through; counting anew makes up for the rest."""
    user_id, half = counted.sign_up(), counted.sign_up()
    add(counted, half, at(*range(6)))
    with psycopg.connect(counted.database.url("superuser")) as connection:
        connection.execute("set session_replication_role = replica")
        for unseen in (user_id, half):
            connection.execute(INSERT.encode(), ([unseen] * 7, at(*range(7))))
    assert_pages_are_exact(counted, user_id)
    assert counted.rows(MISCOUNTED) != []
    counted.rows("select s3edge.recount(null)")
    assert counted.rows(MISCOUNTED) == []
    assert_pages_are_exact(counted, half)
