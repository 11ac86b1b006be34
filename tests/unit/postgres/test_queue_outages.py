"""A worker whose database fails in other ways than by going away."""

import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlsplit
from uuid import uuid4

import anyio
import psycopg
import pytest

from s3edge.gateway import SystemClock
from s3edge.testing.contracts.database import OUTCOME, new_task
from s3edge.values import Task, User
from s3edge_postgres import queue
from s3edge_postgres.address import parse_address
from s3edge_postgres.database import PostgresDatabase
from s3edge_postgres.queue import ProcrastinateQueue
from s3edge_postgres.rows import Terms
from tests.unit.postgres.conftest import Postgres
from tests.unit.postgres.line import Line
from tests.waiting import until


pytestmark = pytest.mark.anyio

TERMS = Terms(initial_credits=50, segment_cost=1, task_deadline_s=900, dispatch="procrastinate")


@asynccontextmanager
async def working(
    database: PostgresDatabase, ran: list[Task], *, told: PostgresDatabase | None = None
) -> AsyncIterator[None]:
    """Work at a queue, whose tasks are kept; another way to the database may be told of their ends."""

    async def run(task: Task) -> None:
        await (told or database).complete_task(task.id, OUTCOME, attempt=task.attempt)
        ran.append(task)

    stop = anyio.Event()
    work = partial(ProcrastinateQueue(database).work, run, concurrency=1, grace_s=1, stop=stop)
    async with anyio.create_task_group() as group:
        group.start_soon(work)
        yield
        stop.set()


async def test_a_worker_notices_connections_that_fell_silent(postgres: Postgres) -> None:
    """Neither closed nor answered: it hangs up by itself, and takes tasks over new ones."""
    url = postgres.create_with_queue("silent")
    parts = urlsplit(url)
    ran: list[Task] = []
    async with (
        PostgresDatabase(parse_address(url), SystemClock(), TERMS) as direct,
        Line(parts.port or 0).opened() as line,
    ):
        through = parse_address(url.replace(f":{parts.port}/", f":{line.port}/"))

        async def ask_for_one() -> None:
            before = len(ran)
            await direct.reserve_task(User(uuid4()), new_task())
            await until(lambda: len(ran) > before)

        async with (
            PostgresDatabase(through, SystemClock(), TERMS) as database,
            working(database, ran, told=direct),
        ):
            await ask_for_one()
            line.fall_silent()
            await ask_for_one()


async def test_a_jobs_end_that_cannot_be_recorded_ends_its_worker_only(
    postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody awaits the library's record of an end: its failure is the worker's, and no stray error."""
    url = postgres.create_with_queue("endless")

    def rename(old: str, new: str) -> None:
        with psycopg.connect(url) as connection:
            connection.execute(f"alter function procrastinate.{old} rename to {new}".encode())

    finish = "procrastinate_finish_job_v1"
    ran: list[Task] = []
    async with PostgresDatabase(parse_address(url), SystemClock(), TERMS) as database:
        rename(finish, "away")
        await database.reserve_task(User(uuid4()), new_task())
        async with working(database, ran):
            await until(lambda: len(ran) == 1 and caplog.text.count("begins anew") >= 2)
            rename("away", finish)
            await database.reserve_task(User(uuid4()), new_task())
            await until(lambda: len(ran) == 2)
    assert finish in caplog.text
    gc.collect()  # an error that nobody awaited is told of now, and fails the test


async def test_a_worker_that_cannot_queue_its_upkeep_takes_its_time(
    postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    """Tables of another version, say: each new beginning is told of, with its reason, and waited for."""
    caplog.set_level("INFO", "procrastinate.worker")
    url = postgres.create_with_queue("older")
    with psycopg.connect(url) as connection:
        connection.execute("drop function procrastinate.procrastinate_defer_periodic_job_v2")

    def said(what: str) -> list[logging.LogRecord]:
        return [record for record in caplog.records if what in record.getMessage()]

    async with (
        PostgresDatabase(parse_address(url), SystemClock(), TERMS) as database,
        working(database, []),
    ):
        # Of either queue's worker.
        again = f"begins anew in {2 * queue.RESTART_DELAY_S:g} s"
        await until(lambda: len(said(again)) == 2)
    assert all("SQLSTATE 42883" in record.getMessage() for record in said("begins anew"))
    for name in (queue.TASKS, queue.UPKEEP):
        first, second, *_ = [
            record.created for record in said("Starting worker") if record.name.endswith(f".{name}")
        ]
        assert second - first > 0.9 * queue.RESTART_DELAY_S


async def test_a_worker_that_may_not_listen_says_so_and_recovers(
    postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    """A role without a connection to spare is the reason, and not the worker's last word."""
    url = postgres.create_with_queue("crowded")
    ran: list[Task] = []

    which = "usename = 'crowded' and query ~* '^listen'"
    async with (
        PostgresDatabase(parse_address(url), SystemClock(), TERMS) as database,
        working(database, ran),
    ):
        # One of each worker.
        await until(lambda: sessions(postgres, which) == 2)
        postgres.run_as_superuser("alter role crowded connection limit 1")
        postgres.run_as_superuser(
            f"select pg_terminate_backend(pid, 5000) from pg_stat_activity where {which}"
        )
        await until(lambda: "begins anew" in caplog.text)
        postgres.run_as_superuser("alter role crowded connection limit -1")
        await database.reserve_task(User(uuid4()), new_task())
        await until(lambda: len(ran) == 1)
    [first, *_] = [text for text in caplog.messages if "begins anew" in text]
    assert "too many connections for role" in first


async def test_a_worker_that_stops_by_itself_begins_anew(
    postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    """News that the library cannot read, which everybody in the database can send, are no database's."""
    url = postgres.create_with_queue("garbled")
    ran: list[Task] = []
    async with (
        PostgresDatabase(parse_address(url), SystemClock(), TERMS) as database,
        working(database, ran),
    ):
        await until(lambda: sessions(postgres, "usename = 'garbled' and query ~* '^listen'") == 2)
        with psycopg.connect(url) as connection:
            connection.execute("select pg_notify('procrastinate_any_queue_v1', 'no JSON')")
            connection.execute("select pg_notify('procrastinate_queue_v1#s3edge', 'no JSON')")
        await until(lambda: "a worker begins anew in 1 s, because it stopped by" in caplog.text)
        await database.reserve_task(User(uuid4()), new_task())
        await until(lambda: len(ran) == 1)


def sessions(postgres: Postgres, which: str) -> int:
    """Return how many of the server's sessions there are for which a condition holds."""
    [[count]] = postgres.run_as_superuser(f"select count(*) from pg_stat_activity where {which}")
    return int(count)


async def test_a_grant_changes_no_terms(postgres: Postgres) -> None:
    """It may come from a shell whose settings are not the servers': prices stay what they are."""
    url = postgres.create_with_queue("granted")
    dear = Terms(initial_credits=7, segment_cost=5, task_deadline_s=60, dispatch="procrastinate")
    user = User(uuid4())
    async with PostgresDatabase(parse_address(url), SystemClock(), dear) as database:
        await database.profile(user)
    async with PostgresDatabase(parse_address(url), SystemClock(), Terms(100, 1, 900)) as shell:
        assert await shell.grant_credits(user.user_id, 3) == 10
    with psycopg.connect(url) as connection:
        [terms] = connection.execute(
            "select initial_credits, segment_cost, task_deadline_s, dispatch from s3edge.settings"
        ).fetchall()
    assert terms == (7, 5, 60, "procrastinate")


async def test_what_is_missing_is_said(
    postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker without the queue's tables says what to run, and waits for them."""
    url = postgres.server.create_plain_database("missing")
    async with (
        PostgresDatabase(parse_address(url), SystemClock(), TERMS) as database,
        working(database, []),
    ):
        await until(lambda: "no task can be taken yet" in caplog.text)
    assert "run: s3edge migrate" in caplog.text
