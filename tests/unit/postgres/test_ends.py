"""Ends of tasks are heard, whoever wrote them, also when the connection that brings the news breaks."""

import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import partial
from uuid import UUID, uuid4

import anyio
import pytest

from s3edge.errors import Code
from s3edge.testing.contracts.database import OUTCOME, new_task
from s3edge.testing.programs import PGBOUNCER
from s3edge.testing.standins.fault_proxy import FaultProxy, Mode
from s3edge.testing.standins.pgbouncer_process import PgBouncerProcess
from s3edge.values import User
from s3edge_postgres.address import parse_address
from s3edge_postgres.connections import Connections
from s3edge_postgres.database import PostgresDatabase
from s3edge_postgres.ends import CHANNEL, announce_ends
from tests.unit.postgres.conftest import Postgres
from tests.waiting import until


pytestmark = pytest.mark.anyio

LISTENS = (
    f"select count(*) from pg_stat_activity where usename = 'plain' and query = 'listen {CHANNEL}'"
)


class News:
    """Keeps what is awaited and what was told."""

    def __init__(self) -> None:
        self.waiting: set[UUID] = set()
        self.told: list[UUID] = []

    def ended(self, task_id: UUID) -> None:
        """Implement ``EndNews``."""
        self.told.append(task_id)

    def awaited(self) -> Collection[UUID]:
        """Implement ``EndNews``."""
        return self.waiting

    async def heard(self, task_id: UUID) -> None:
        """Wait for the end of a task, and wait for it no more."""
        await until(lambda: task_id in self.told)
        self.waiting.discard(task_id)


@asynccontextmanager
async def announced(database: PostgresDatabase) -> AsyncIterator[News]:
    """Have the ends of tasks announced."""
    news = News()
    async with anyio.create_task_group() as group:
        group.start_soon(database.announce_ends, news)
        yield news
        group.cancel_scope.cancel()


async def awaited_task(database: PostgresDatabase, news: News) -> UUID:
    """Reserve a task, and wait for its end."""
    task = (await database.reserve_task(User(uuid4()), new_task())).task
    news.waiting.add(task.id)
    return task.id


async def test_ends_of_other_processes_are_heard(postgres: Postgres) -> None:
    """Well, in error or overdue; and nobody asks the database for them meanwhile."""
    async with postgres.opened() as ours, postgres.opened() as others, announced(ours) as news:
        await until(lambda: postgres.run_as_superuser(LISTENS) == [(1,)])
        done, failed, overdue = [await awaited_task(others, news) for _ in range(3)]
        assert await others.start_task(done)
        assert news.told == []
        assert await others.complete_task(done, OUTCOME, attempt=1)
        await news.heard(done)
        assert await others.fail_task(failed, Code.INFERENCE_FAILED, "It broke.")
        await news.heard(failed)
        postgres.run("update segmentation_results set deadline_at = now() where id = %s", overdue)
        assert overdue in await others.settle_overdue()
        await news.heard(overdue)
        # The last that was asked over this connection is what it began with.
        assert postgres.run_as_superuser(LISTENS) == [(1,)]
        assert news.told == [done, failed, overdue]


async def test_what_ended_before_is_made_up_for(postgres: Postgres) -> None:
    """Whoever is awaited when listening begins and has ended by then is told at once."""
    async with postgres.opened() as database:
        news = News()
        task_id = await awaited_task(database, news)
        await database.complete_task(task_id, OUTCOME)
        async with anyio.create_task_group() as group:
            group.start_soon(database.announce_ends, news)
            await news.heard(task_id)
            group.cancel_scope.cancel()


async def test_a_restart_loses_no_news(
    postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    """What ended while nobody could listen is told; an outage is one warning, and so is the next."""
    port = postgres.server.database("plain").port
    with (
        FaultProxy("127.0.0.1", port) as proxy,
        caplog.at_level(logging.INFO, "s3edge_postgres.ends"),
    ):
        url = postgres.url.replace(f":{port}/", f":{proxy.port}/")
        async with (
            postgres.opened(url=url) as ours,
            postgres.opened() as others,
            announced(ours) as news,
        ):
            await until(lambda: postgres.run_as_superuser(LISTENS) == [(1,)])
            for outage in range(2):
                missed = await awaited_task(others, news)
                proxy.mode = Mode.REFUSE
                await until_said(caplog, 2 * outage + 1)
                await anyio.to_thread.run_sync(postgres.server.restart)
                await others.complete_task(missed, OUTCOME)
                # For long enough that listening is tried again in vain.
                await anyio.sleep(2.5)
                assert missed not in news.told
                proxy.mode = Mode.PASS
                await news.heard(missed)
                await until_said(caplog, 2 * outage + 2)
    levels = [
        record.levelname for record in caplog.records if record.name == "s3edge_postgres.ends"
    ]
    assert levels == ["WARNING", "INFO"] * 2
    assert postgres.password not in caplog.text


async def until_said(caplog: pytest.LogCaptureFixture, count: int) -> None:
    """Wait until so much was said of the news."""

    def said() -> int:
        return sum(record.name == "s3edge_postgres.ends" for record in caplog.records)

    await until(lambda: said() >= count)


async def test_a_peer_that_fell_silent_is_noticed(postgres: Postgres) -> None:
    """A connection over which nothing comes any more is tried now and then, and left."""
    port = postgres.server.database("plain").port
    with FaultProxy("127.0.0.1", port) as proxy:
        news, address = News(), parse_address(postgres.url.replace(f":{port}/", f":{proxy.port}/"))
        async with (
            Connections(address) as connections,
            postgres.opened() as others,
            anyio.create_task_group() as group,
        ):
            group.start_soon(partial(announce_ends, address, connections, news, liveness_s=0.2))
            await until(lambda: postgres.run_as_superuser(LISTENS) != [(0,)])
            proxy.mode = Mode.HANG
            missed = await awaited_task(others, news)
            await others.complete_task(missed, OUTCOME)
            with anyio.move_on_after(1):
                await news.heard(missed)
                raise AssertionError("news came over a connection that is silent")
            proxy.mode = Mode.PASS
            await news.heard(missed)
            group.cancel_scope.cancel()


async def test_other_notices_are_passed_over(postgres: Postgres) -> None:
    """Anybody may send anything over the channel; the next end is heard all the same."""
    async with postgres.opened() as database, announced(database) as news:
        await until(lambda: postgres.run_as_superuser(LISTENS) == [(1,)])
        for payload in ("", "no id", "x" * 7000):
            postgres.run(f"select pg_notify('{CHANNEL}', %s)", payload)
        task_id = await awaited_task(database, news)
        await database.complete_task(task_id, OUTCOME)
        await news.heard(task_id)
        assert news.told == [task_id]


async def test_behind_a_pooler_ends_are_asked_for(postgres: Postgres) -> None:
    """In transaction mode nobody can listen, so one query a second asks for all that is awaited."""
    PGBOUNCER.require()
    with PgBouncerProcess(postgres.url) as pooler:
        url = f"{pooler.url}?pooler=transaction&pool_size=2"
        async with (
            postgres.opened(url=url) as ours,
            postgres.opened() as others,
            announced(ours) as news,
        ):
            task_ids = [await awaited_task(others, news) for _ in range(3)]
            for task_id in task_ids[:2]:
                await others.complete_task(task_id, OUTCOME)
            for task_id in task_ids[:2]:
                await news.heard(task_id)
            assert task_ids[2] not in news.told
            assert postgres.run_as_superuser(LISTENS) == [(0,)]
