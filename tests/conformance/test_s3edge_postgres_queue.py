"""The queue of ``s3edge_postgres`` keeps every promise, on a plain Postgres."""

from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import psycopg
import pytest

from s3edge.gateway import SystemClock
from s3edge.testing import TaskQueueContract, TaskQueueHarness
from s3edge.testing.contracts.database import new_task
from s3edge.testing.standins.postgres import PostgresServer
from s3edge.values import User
from s3edge_postgres.address import parse_address
from s3edge_postgres.applying import apply
from s3edge_postgres.database import PostgresDatabase
from s3edge_postgres.queue import ProcrastinateQueue
from s3edge_postgres.queue_schema import with_queue
from s3edge_postgres.rows import Terms


TERMS = Terms(initial_credits=50, segment_cost=1, task_deadline_s=900, dispatch="procrastinate")


END_ALL = """
update public.segmentation_results set status = 'error' where status in ('pending', 'processing')
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a Postgres with the schema and the queue."""
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        url = server.create_plain_database("queue")
        apply(parse_address(url), with_queue)
        yield url


class TestProcrastinateQueue(TaskQueueContract):
    """``ProcrastinateQueue``."""

    @pytest.fixture
    async def harness(self, url: str) -> AsyncIterator[TaskQueueHarness]:
        """Return the queue, without what earlier tests left in it."""

        async def new_user() -> User:
            return User(uuid4())

        with psycopg.connect(url) as connection:
            connection.execute(END_ALL.encode())
        async with PostgresDatabase(parse_address(url), SystemClock(), TERMS) as database:
            yield TaskQueueHarness(ProcrastinateQueue(database), database, new_user)


@pytest.mark.anyio
async def test_jobs_have_no_lock(url: str) -> None:
    """With one, handing out a job takes the square of those that wait: 8 s when they are 10,000."""
    async with PostgresDatabase(parse_address(url), SystemClock(), TERMS) as database:
        reservation = await database.reserve_task(User(uuid4()), new_task())
    with psycopg.connect(url) as connection:
        jobs = connection.execute(
            "select queue_name, lock from procrastinate.procrastinate_jobs where queueing_lock = %s",
            (str(reservation.task.id),),
        ).fetchall()
    assert jobs == [("s3edge", None)]
