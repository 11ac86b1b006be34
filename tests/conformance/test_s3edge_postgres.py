"""``s3edge_postgres`` keeps every promise on a plain Postgres, directly and behind a pooler."""

from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import ClassVar
from uuid import UUID, uuid4

import psycopg
import pytest

from s3edge.gateway import SystemClock
from s3edge.testing import DatabaseContract, DatabaseHarness
from s3edge.testing.contracts.database_machine import database_machine
from s3edge.testing.programs import PGBOUNCER
from s3edge.testing.standins.pgbouncer_process import PgBouncerProcess
from s3edge.testing.standins.postgres import PostgresServer
from s3edge.values import User
from s3edge_postgres.address import PostgresAddress, parse_address
from s3edge_postgres.applying import apply, own_scripts
from s3edge_postgres.database import PostgresDatabase
from s3edge_postgres.rows import Terms


TERMS = Terms(initial_credits=50, segment_cost=3, task_deadline_s=900)

MACHINE_EXAMPLES = 25
"""Fewer than for a database in the same process: each step is a dozen round trips."""

MACHINE_TIMEOUT_S = 300

MOVABLE_CLOCK = """
create table s3edge.clock_of_tests (ahead interval not null);
insert into s3edge.clock_of_tests values ('0');
create or replace function s3edge.now() returns timestamptz
language sql volatile security definer set search_path = ''
as 'select clock_timestamp() + ahead from s3edge.clock_of_tests';
"""

SHORT_RUNS = """
create or replace function s3edge.run_length() returns integer
language sql immutable set search_path = ''
as 'select 2';
"""
"""So that the results of a few tasks are counted in several runs."""


class Plain:
    """
    A plain Postgres with the schema applied, whose clock can be moved.

    Attributes:
        current: The one that the tests of this module use; hypothesis passes no fixtures on.
    """

    current: ClassVar["Plain"]

    def __init__(self, url: str) -> None:
        self.url = url
        self.address = parse_address(url)

    async def advance(self, seconds: float) -> None:
        """Let time pass for the database."""
        await self._run(
            "update s3edge.clock_of_tests set ahead = ahead + %s", timedelta(seconds=seconds)
        )

    async def new_project(self, user: User) -> UUID:
        """Make a project of this user's."""
        await self._run("select s3edge.ensure_profile(%s)", user.user_id)
        [(project_id,)] = await self._run(
            "insert into projects (user_id, name) values (%s, 'A project') returning id",
            user.user_id,
        )
        assert isinstance(project_id, UUID)
        return project_id

    async def usage(self, user: User) -> Collection[int]:
        """Read the usage rows past the port."""
        rows = await self._run(
            "select credits_used from usage_logs where user_id = %s and action <> 'grant'",
            user.user_id,
        )
        return [int(str(used)) for (used,) in rows]

    async def _run(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            cursor = await connection.execute(statement.encode(), values)
            return [] if cursor.description is None else await cursor.fetchall()


@pytest.fixture(scope="module", autouse=True)
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plain]:
    """Run a Postgres for the module, migrated as ``s3edge migrate`` does it."""
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        Plain.current = Plain(server.create_plain_database("plain"))
        apply(Plain.current.address, own_scripts)
        with psycopg.connect(Plain.current.url) as connection:
            connection.execute((MOVABLE_CLOCK + SHORT_RUNS).encode())
        yield Plain.current


@pytest.fixture(scope="module")
def pooler(plain: Plain) -> Iterator[PgBouncerProcess]:
    """Run a pooler in front of the database."""
    PGBOUNCER.require()
    with PgBouncerProcess(plain.url) as running:
        yield running


@asynccontextmanager
async def open_database(address: PostgresAddress) -> AsyncIterator[DatabaseHarness]:
    """Open the adapter; its cost does not divide what users have."""
    plain = Plain.current
    async with PostgresDatabase(address, SystemClock(), TERMS) as database:
        # A gateway tells the database its terms when somebody first looks; grants come after that.
        await database.profile(User(uuid4()))
        yield DatabaseHarness(
            database,
            plain.advance,
            initial_credits=TERMS.initial_credits,
            segment_cost=TERMS.segment_cost,
            deadline_s=TERMS.task_deadline_s,
            new_project=plain.new_project,
            checks_projects=True,
            usage=plain.usage,
        )


def open_directly() -> AbstractAsyncContextManager[DatabaseHarness]:
    """Open the adapter over connections of its own."""
    return open_database(Plain.current.address)


class TestPostgresDatabase(DatabaseContract):
    """``PostgresDatabase``, over connections of its own."""

    @pytest.fixture
    async def harness(self) -> AsyncIterator[DatabaseHarness]:
        """Return the database as earlier tests left it."""
        async with open_directly() as harness:
            yield harness


# It takes a third of a minute on an idle machine.
TestPostgresDatabaseMachine = pytest.mark.timeout(MACHINE_TIMEOUT_S)(
    database_machine(open_directly, MACHINE_EXAMPLES).TestCase
)


class TestPostgresDatabaseBehindAPooler(DatabaseContract):
    """``PostgresDatabase``, over a pooler in transaction mode with fewer connections than clients."""

    @pytest.fixture
    async def harness(self, pooler: PgBouncerProcess) -> AsyncIterator[DatabaseHarness]:
        """Return the database as earlier tests left it."""
        async with open_database(parse_address(f"{pooler.url}?pooler=transaction")) as harness:
            yield harness
