"""Supabase's tokens and database keep every promise, over a stand-in in front of a real Postgres."""

from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import ClassVar
from uuid import UUID

import psycopg
import pytest

from s3edge.gateway import SystemClock
from s3edge.rules.claims import LEEWAY_S
from s3edge.testing import (
    AuthenticatorContract,
    AuthenticatorHarness,
    DatabaseContract,
    DatabaseHarness,
    ManualClock,
)
from s3edge.testing.contracts.database_machine import database_machine
from s3edge.testing.standins.postgres import Database, PostgresServer
from s3edge.testing.standins.supabase import SupabaseProcess
from s3edge.values import User
from s3edge_postgres.migrations import migrations
from s3edge_supabase.authenticator import HostedAuthenticator
from s3edge_supabase.database import SupabaseDatabase
from s3edge_supabase.project import SupabaseProject
from s3edge_supabase.rows import Terms


TERMS = Terms(initial_credits=50, segment_cost=3, task_deadline_s=900)

MACHINE_EXAMPLES = 12
"""Fewer than for a database in the same process: each step is a dozen requests."""

MACHINE_TIMEOUT_S = 300

MOVABLE_CLOCK = """
create table s3edge.clock_of_tests (ahead interval not null);
insert into s3edge.clock_of_tests values ('0');
create or replace function s3edge.now() returns timestamptz
language sql volatile security definer set search_path = ''
as 'select clock_timestamp() + ahead from s3edge.clock_of_tests';
"""


class Project:
    """
    A running project with the schema applied, whose database's clock can be moved.

    Attributes:
        current: The one that the tests of this module use; hypothesis passes no fixtures on.
    """

    current: ClassVar["Project"]

    def __init__(self, database: Database, supabase: SupabaseProcess) -> None:
        self.database = database
        self.supabase = supabase

    @property
    def adapter_project(self) -> SupabaseProject:
        """The project as the adapter knows it."""
        return SupabaseProject(self.supabase.url, self.supabase.anon_key, self.supabase.service_key)

    async def advance(self, seconds: float) -> None:
        """Let time pass for the database."""
        await self._run(
            "update s3edge.clock_of_tests set ahead = ahead + %s", timedelta(seconds=seconds)
        )

    async def new_user(self) -> User:
        """Sign somebody up, and in."""
        user_id = self.supabase.sign_up()
        return User(user_id, jwt=self.supabase.sign(user_id))

    async def new_project(self, user: User) -> UUID:
        """Make a project of this user's."""
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
        async with await psycopg.AsyncConnection.connect(
            self.database.url("postgres")
        ) as connection:
            cursor = await connection.execute(statement.encode(), values)
            return [] if cursor.description is None else await cursor.fetchall()


@pytest.fixture(scope="module", autouse=True)
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Run a project for the module."""
    folder = tmp_path_factory.mktemp("supabase")
    with PostgresServer(folder) as server:
        database = server.create_database("project")
        for migration in migrations():
            database.apply(migration.sql)
        database.apply(MOVABLE_CLOCK)
        with SupabaseProcess(folder, database) as supabase:
            Project.current = Project(database, supabase)
            yield Project.current


@asynccontextmanager
async def open_database() -> AsyncIterator[DatabaseHarness]:
    """Open the adapter; its cost does not divide what users have."""
    project = Project.current
    async with SupabaseDatabase(project.adapter_project, SystemClock(), TERMS) as database:
        # A gateway tells the database its terms before its first charge; users sign up after that.
        await database.profile(await project.new_user())
        yield DatabaseHarness(
            database,
            project.advance,
            initial_credits=TERMS.initial_credits,
            segment_cost=TERMS.segment_cost,
            deadline_s=TERMS.task_deadline_s,
            new_user=project.new_user,
            new_project=project.new_project,
            checks_projects=True,
            usage=project.usage,
        )


class TestSupabaseDatabase(DatabaseContract):
    """``SupabaseDatabase``."""

    @pytest.fixture
    async def harness(self) -> AsyncIterator[DatabaseHarness]:
        """Return the database as earlier tests left it."""
        async with open_database() as harness:
            yield harness


# It takes half a minute on an idle machine.
TestSupabaseDatabaseMachine = pytest.mark.timeout(MACHINE_TIMEOUT_S)(
    database_machine(open_database, MACHINE_EXAMPLES).TestCase
)


class TestHostedAuthenticator(AuthenticatorContract):
    """Tokens of a hosted project, by the keys it publishes."""

    @pytest.fixture
    async def harness(self, project: Project) -> AsyncIterator[AuthenticatorHarness]:
        """Return an authenticator that fetches the project's keys."""
        clock = ManualClock(SystemClock().now())

        async def issue(user: User, lifetime_s: float) -> str:
            return project.supabase.sign(
                user.user_id,
                lifetime_s=int(lifetime_s),
                claims={"app_metadata": {"tier": user.tier.value}},
            )

        async def advance(seconds: float) -> None:
            # Clocks may differ by as much; the promise is about what is beyond that.
            clock.advance(seconds + LEEWAY_S)

        def tamper(token: str) -> str:
            head, _, signature = token.rpartition(".")
            return f"{head}.{signature[:20]}{'A' if signature[20] != 'A' else 'B'}{signature[21:]}"

        async with HostedAuthenticator(
            project.adapter_project, clock, "app_metadata.tier"
        ) as authenticator:
            yield AuthenticatorHarness(authenticator, issue, advance, tamper)


@pytest.mark.anyio
async def test_the_schema_that_is_needed_is_the_one_there_is(project: Project) -> None:
    """The adapter asks for the version that the migrations make."""
    async with SupabaseDatabase(project.adapter_project, SystemClock(), TERMS) as database:
        await database.check()
