"""What a Postgres that gives statements up costs the inference server that writes into it."""

from uuid import uuid4

import anyio
import psycopg
import pytest

from s3edge.testing.contracts.database import new_task
from s3edge.values import User
from s3edge_inference.server.metrics import Metrics
from s3edge_inference.server.records import Records
from tests.unit.postgres.conftest import Postgres


pytestmark = pytest.mark.anyio

PATIENCE_S = 20.0


async def test_a_locked_table_is_waited_for_once_in_a_while(postgres: Postgres) -> None:
    """The adapter answers by itself that it got no answer, and late: that is a database that hangs."""
    metrics = Metrics()
    async with postgres.opened() as database:
        reservation = await database.reserve_task(User(uuid4()), new_task())
        records = Records(database, metrics)
        with psycopg.connect(postgres.url) as connection:
            connection.execute("lock table public.segmentation_results")
            with anyio.fail_after(PATIENCE_S):
                await records.started(reservation.task.id)
        # It could be written now; nobody asks yet.
        await records.started(reservation.task.id)
    status = "select status::text from public.segmentation_results where id = %s"
    assert postgres.run(status, reservation.task.id) == [("pending",)]
    text = metrics.text(is_loaded=True, memory=None).decode()
    assert "s3edge_inference_unrecorded_total 2.0" in text
