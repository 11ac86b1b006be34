"""The queue's connections: bounded in time, and what failed is noted."""

from datetime import UTC, datetime
from urllib.parse import urlsplit

import anyio
import psycopg
import pytest
from procrastinate import App

from s3edge_postgres.address import parse_address
from s3edge_postgres.queue_connector import QueueConnector, cause_of
from tests.unit.postgres.conftest import Postgres
from tests.unit.postgres.line import Line
from tests.waiting import WITHIN_S


pytestmark = pytest.mark.anyio


async def test_an_answer_is_not_the_end_of_a_call(postgres: Postgres) -> None:
    """A server that falls silent before it was told to keep what it answered is not waited for."""
    url = postgres.create_with_queue("unkept")
    parts = urlsplit(url)
    async with Line(parts.port or 0).opened() as line:
        connector = QueueConnector(parse_address(url.replace(f":{parts.port}/", f":{line.port}/")))
        await connector.open_async()

        async def answered_and_silent() -> None:
            async with connector.pool.connection() as connection:
                await connection.execute("select 1")
                line.fall_silent()

        try:
            with anyio.fail_after(WITHIN_S), pytest.raises(psycopg.OperationalError):
                await answered_and_silent()
        finally:
            await connector.close_async()


async def test_what_could_not_be_recorded_is_noted(postgres: Postgres) -> None:
    """Nobody awaits the record of a job's end: that it failed is known to who ends the worker."""
    url = postgres.create_with_queue("unrecorded")
    connector = QueueConnector(parse_address(url))
    await connector.open_async()
    try:
        await connector.execute_query_async("select pg_terminate_backend(pg_backend_pid())")
        assert connector.failed.is_set()
        assert connector.failure is not None
        assert cause_of(connector.failure).startswith("SQLSTATE 57P01")
    finally:
        await connector.close_async()


async def test_what_another_worker_has_recorded_is_no_failure(
    postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    """It took this one for dead, or its upkeep was quicker: the worker works on."""
    caplog.set_level("INFO", "s3edge_postgres")
    url = postgres.create_with_queue("recorded")
    connector = QueueConnector(parse_address(url))
    app = App(connector=connector)
    async with app.open_async():
        await app.job_manager.retry_job_by_id_async(1, datetime.now(UTC))
    assert connector.failure is None
    assert not connector.failed.is_set()
    assert "another worker has dealt with a job meanwhile: SQLSTATE P0001" in caplog.text
