"""A call is one round trip, parsed once; a list walks an index, and looks up what it shows."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql

from s3edge.errors import Code
from s3edge.testing.contracts.database import OUTCOME, new_task
from s3edge.testing.contracts.refusal import refused
from s3edge.testing.programs import PGBOUNCER
from s3edge.testing.standins.pgbouncer_process import PgBouncerProcess
from s3edge.values import Position, ResultQuery, TaskStatus, User
from s3edge_postgres import statements
from tests.unit.postgres.conftest import Postgres


HOST = "127.0.0.1"

SYNC, QUERY = b"S", b"Q"
"""Messages that the server answers with ReadyForQuery, one a round trip."""


class Wire:
    """Passes bytes on to a server, and counts what clients waited for."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.round_trips = 0
        self.parsed = 0
        self._upstream_port = port

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Take connections."""
        async with await asyncio.start_server(self._serve, HOST, 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(HOST, self._upstream_port)
        answers = asyncio.create_task(self._pass_answers(there, writer))
        try:
            # What begins a connection has no type, only its length, itself included.
            while (length := await reader.readexactly(4)) is not None:
                rest = await reader.readexactly(int.from_bytes(length) - 4)
                back.write(length + rest)
                if int.from_bytes(rest[:4]) >> 16 == 3:
                    break
            while True:
                kind, length = await reader.readexactly(1), await reader.readexactly(4)
                back.write(kind + length + await reader.readexactly(int.from_bytes(length) - 4))
                self.round_trips += kind in (SYNC, QUERY)
                self.parsed += kind == b"P"
        except asyncio.IncompleteReadError:
            return
        finally:
            answers.cancel()
            back.close()
            writer.close()

    async def _pass_answers(
        self, there: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while chunk := await there.read(65536):
            writer.write(chunk)


@pytest.mark.anyio
async def test_a_call_is_one_round_trip(postgres: Postgres) -> None:
    """Each call of the port asks the server once, and has it parse nothing that it asked before."""
    port = postgres.server.database("plain").port
    wire, user = Wire(port), User(uuid4())
    async with wire.listening():
        url = postgres.url.replace(f":{port}/", f":{wire.port}/")
        # TLS, which the test server does not have, would be asked for in the same form.
        async with postgres.opened(url=f"{url}?sslmode=disable&pool_size=1") as database:
            task_id = (await database.reserve_task(user, new_task())).task.id
            position = Position(datetime.now(UTC), task_id)
            calls: list[Callable[[], Awaitable[object]]] = [
                partial(database.profile, user),
                partial(database.reserve_task, user, new_task(key="a key")),
                partial(database.task, user, task_id),
                partial(database.results, user, ResultQuery(limit=10)),
                partial(database.results, user, ResultQuery(limit=10, after=position)),
                partial(database.start_task, task_id, attempt=1),
                partial(database.complete_task, task_id, OUTCOME, attempt=1),
                partial(database.fail_task, task_id, Code.INFERENCE_FAILED, "No.", attempt=1),
                partial(database.claim_tasks, 5, 15.0),
                partial(database.extend_leases, {task_id: 1}, 15.0),
                database.backlog,
                database.settle_overdue,
                partial(database.grant_credits, user.user_id, 5),
                database.check,
            ]
            for call in calls:
                await call()
            for call in calls:
                before = (wire.round_trips, wire.parsed)
                await call()
                assert (wire.round_trips, wire.parsed) == (before[0] + 1, before[1])


@pytest.mark.anyio
async def test_a_list_reads_no_labels(postgres: Postgres) -> None:
    """What a list does not show is not read; the task itself has it."""
    user = User(uuid4())
    async with postgres.opened() as database:
        task = (await database.reserve_task(user, new_task())).task
        await database.complete_task(task.id, OUTCOME)
        [listed] = (await database.results(user, ResultQuery(limit=10))).tasks
        found = await database.task(user, task.id)
    assert found is not None
    assert (list(found.labels), dict(found.metadata)) == (
        list(OUTCOME.labels),
        dict(OUTCOME.metadata),
    )
    assert (list(listed.labels), dict(listed.metadata)) == ([], {})
    assert (listed.id, listed.mask_image_url) == (found.id, found.mask_image_url)


@pytest.mark.anyio
async def test_a_pooler_that_was_not_named_is_recognised(
    postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    """Prepared statements that get lost between sessions lead to a line that says what to set."""
    PGBOUNCER.require()
    with PgBouncerProcess(postgres.url) as pooler:
        async with postgres.opened(url=pooler.url) as one, postgres.opened(url=pooler.url) as other:
            # The pooler gives the second the session of the first, and what was prepared in it.
            await one.backlog()
            with refused(Code.SERVICE_UNAVAILABLE):
                await other.backlog()
    assert "add ?pooler=transaction to the URL" in caplog.text


@pytest.fixture(scope="module")
def owner(postgres: Postgres) -> UUID:
    """Make somebody who has many results among those of others, some in a project."""
    owner, others = uuid4(), [uuid4() for _ in range(20)]
    for user_id in (owner, *others):
        postgres.run("select s3edge.ensure_profile(%s)", user_id)
    postgres.run(
        "insert into projects (id, user_id, name) values (%s, %s, 'A project')",
        owner,
        owner,
    )
    for user_id, count in ((owner, 20_000), *((user_id, 500) for user_id in others)):
        postgres.run(
            "insert into segmentation_results"
            " (user_id, project_id, source_image_url, text_prompt, status, created_at)"
            " select %s, case when i %% 5 = 0 then %s::uuid end, 'u', 'p', 'done',"
            " now() - i * interval '1 s' from generate_series(1, %s) as i",
            user_id,
            owner if user_id == owner else None,
            count,
        )
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("vacuum analyze segmentation_results")
    return owner


@pytest.mark.parametrize(
    ("by_position", "of_project", "in_status"), list(product([False, True], repeat=3))
)
@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_a_list_walks_an_index(
    postgres: Postgres,
    owner: UUID,
    by_position: bool,
    of_project: bool,
    in_status: bool,
    mode: str,
) -> None:
    """Whether planned for its values or for any: in the list's order, and row by row from the table."""
    statement = statements.results(
        by_position=by_position, of_project=of_project, in_status=in_status
    )
    values = {
        "user_id": owner,
        "project_id": owner,
        "status": TaskStatus.DONE.value,
        "limit": 21,
        "offset": 1_000,
        "created_at": datetime.now(UTC),
        "id": owner,
    }
    plan = planned(postgres, statement, values, mode)
    index = "s3edge_results_newest_of_project" if of_project else "s3edge_results_newest"
    only = "" if in_status else " Only"
    # The count comes first, where there is one, and may read what it likes; tests/sql/test_plans.py has
    # what a count by runs reads.
    walk = plan[plan.rindex("Limit") :]
    assert re.search(rf"Index{only} Scan using {index} on segmentation_results", walk), plan
    assert "Index Scan using segmentation_results_pkey on segmentation_results t" in walk, plan
    assert "Seq Scan" not in walk, plan
    assert "Hash" not in plan, plan
    # Only what is shown is sorted, above everything else; the walk has the index's order.
    assert "Sort\n" not in walk, plan
    assert ("Aggregate" in plan) is not by_position, plan


def planned(postgres: Postgres, statement: str, values: Mapping[str, Any], mode: str) -> str:
    """Return the plan of a statement as the server keeps it prepared."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))
    numbered = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", statement)
    with psycopg.connect(postgres.url) as connection:
        connection.execute(f"set plan_cache_mode = {mode}".encode())
        connection.execute(f"prepare walk as {numbered}".encode())
        arguments = sql.SQL(", ").join(sql.Literal(values[name]) for name in names)
        explain = sql.SQL("explain (costs off) execute walk ({})").format(arguments)
        return "\n".join(line for (line,) in connection.execute(explain).fetchall())
