"""
The schema on a real Postgres, called as PostgREST calls it.

Nothing here is tested as a superuser or as the owner of the tables, whom no policy binds.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

import psycopg
import pytest
from attrs import define, evolve, field, frozen
from psycopg import sql
from psycopg.types.json import Jsonb

from s3edge.testing.standins.postgres import Database, GrantDefaults, PostgresServer
from s3edge_postgres.migrations import migrations


T = TypeVar("T")

Row = tuple[Any, ...]

TABLES = ("users_profile", "projects", "segmentation_results", "usage_logs")

INITIAL_CREDITS = 100

_ACCESS = """
with ours as (
    select c.oid, c.oid::regclass::text as name, c.relowner, c.relacl, c.relrowsecurity
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind = 'r' and (
        n.nspname = 's3edge' or (n.nspname = 'public' and c.relname = any (%(tables)s))
    )
)
select 'schema', nspname, grantee::regrole::text, privilege_type
from pg_namespace, aclexplode(coalesce(nspacl, acldefault('n', nspowner)))
where nspname = 's3edge'
union all
select 'table', name, grantee::regrole::text, privilege_type
from ours, aclexplode(coalesce(relacl, acldefault('r', relowner)))
union all
select 'column', name || '.' || attname, grantee::regrole::text, privilege_type
from ours join pg_attribute on attrelid = oid, aclexplode(attacl)
union all
select 'function', p.oid::regprocedure::text, grantee::regrole::text, privilege_type
from pg_proc p join pg_namespace n on n.oid = pronamespace,
    aclexplode(coalesce(proacl, acldefault('f', proowner)))
where nspname = 's3edge' or (nspname = 'public' and proname like 's3edge\\_%%')
union all
select 'policy', tablename || '.' || policyname, roles::text, concat_ws('; ', cmd, qual, with_check)
from pg_policies where schemaname in ('public', 's3edge')
union all
select 'row-level security', name, '', relrowsecurity::text from ours
"""
"""Who may do what: a line for each right that somebody has, for comparing projects."""

_SHAPE = """
select 'column', attrelid::regclass::text, attname::text,
    concat_ws(' ', format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid))
from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum
where attnum > 0 and not attisdropped
    and attrelid in (select oid from pg_class where relnamespace = any (%(ours)s::regnamespace[]))
union all
select 'constraint', conrelid::regclass::text, conname::text, pg_get_constraintdef(oid)
from pg_constraint where connamespace = any (%(ours)s::regnamespace[])
union all
select 'index', indexrelid::regclass::text, indrelid::regclass::text, pg_get_indexdef(indexrelid)
from pg_index where indrelid in (
    select oid from pg_class where relnamespace = any (%(ours)s::regnamespace[])
)
union all
select 'trigger', tgrelid::regclass::text, tgname::text, tgenabled::text || pg_get_triggerdef(oid)
from pg_trigger where not tgisinternal
union all
select 'function', oid::regprocedure::text, prosecdef::text, pg_get_functiondef(oid)
from pg_proc where pronamespace = any (%(ours)s::regnamespace[])
"""
"""What the schema is made of."""


@define
class Connections:
    """Connections of one login, kept from one transaction to the next, as PostgREST does."""

    url: str = field(repr=False)
    _idle: list[psycopg.Connection] = field(factory=list)

    @contextmanager
    def one(self) -> Iterator[psycopg.Connection]:
        """Lend a connection; one that fails the caller is usable again afterwards."""
        connection = self._idle.pop() if self._idle else psycopg.connect(self.url)
        try:
            yield connection
        finally:
            connection.rollback()
            self._idle.append(connection)

    def close(self) -> None:
        """Close those that nobody uses."""
        while self._idle:
            self._idle.pop().close()


@frozen
class Caller:
    """
    Somebody behind PostgREST: each call is a transaction with this role and these claims.

    Attributes:
        connections: What it is called over.
        role: ``anon``, ``authenticated`` or ``service_role``.
        claims: Of the JWT.
        keeps: Whether what is done stays done.
    """

    connections: Connections
    role: str
    claims: Mapping[str, object]
    keeps: bool = True

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection]:
        """Begin as this caller; an error inside undoes all of it."""
        with self.connections.one() as connection:
            connection.execute(
                "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true)",
                (self.role, json.dumps(self.claims)),
            )
            yield connection
            if self.keeps:
                connection.commit()

    def run(self, query: str | sql.Composed, *values: object) -> list[Row]:
        """
        Run one statement in a transaction of its own, and return its rows.

        Raises:
            psycopg.Error: The database refused it.
        """
        with self.transaction() as connection:
            return rows_of(connection.execute(_query(query), values))

    def value(self, query: str | sql.Composed, *values: object) -> Any:
        """Run one statement and return the only column of its only row."""
        return only(self.run(query, *values))

    def call(self, function: str, **arguments: object) -> Any:
        """Call a function of ``public`` by named arguments, as ``POST /rest/v1/rpc/<function>`` does."""
        return self.value(_call("public", function, arguments), *arguments.values())

    def call_set(self, function: str, **arguments: object) -> list[Row]:
        """Call a function of ``public`` that returns rows."""
        query = sql.SQL("select * from {}").format(_invocation("public", function, arguments))
        return self.run(query, *arguments.values())

    def refused(self, query: str | sql.Composed, *values: object) -> psycopg.Error:
        """Run a statement that must fail, and return the error."""
        with pytest.raises(psycopg.Error) as caught:
            self.run(query, *values)
        return caught.value

    def call_refused(self, function: str, **arguments: object) -> psycopg.Error:
        """Call a function of ``public`` that must fail, and return the error."""
        return self.refused(_call("public", function, arguments), *arguments.values())

    def trying(self) -> "Caller":
        """Return the same caller, whose every call is undone."""
        return evolve(self, keeps=False)

    def reserve(self, task_id: UUID | None = None, /, **changes: object) -> dict[str, Any]:
        """Reserve a task; arguments that are not given are those of a plain request."""
        answer = self.call("s3edge_reserve_task", **reservation(task_id, **changes))
        assert isinstance(answer, dict)
        return answer


@define
class Project:
    """
    A migrated database and those who call it.

    Attributes:
        database: On the test server.
        owner: A connection of the role that owns the tables; each statement is a transaction.
    """

    database: Database
    owner: psycopg.Connection
    _connections: Connections
    _auth: Connections

    def anon(self) -> Caller:
        """Return somebody who has not signed in."""
        return Caller(self._connections, "anon", {"role": "anon"})

    def user(self, user_id: UUID | None = None) -> Caller:
        """Return a user; a new one, who has just signed up, when none is named."""
        sub = self.sign_up() if user_id is None else user_id
        return Caller(
            self._connections, "authenticated", {"sub": str(sub), "role": "authenticated"}
        )

    def service(self) -> Caller:
        """Return a server with the service key."""
        return Caller(self._connections, "service_role", {"role": "service_role"})

    def sign_up(self, *, anonymous: bool = False, metadata: object = None) -> UUID:
        """Do what Supabase Auth does for a new user, with its rights; return the user's id."""
        user_id = uuid4()
        self.as_auth(
            "insert into auth.users (id, email, raw_user_meta_data, is_anonymous)"
            " values (%s, %s, %s, %s)",
            user_id,
            None if anonymous else f"{user_id}@example.test",
            Jsonb(metadata),
            anonymous,
        )
        return user_id

    def as_auth(self, query: str, *values: object) -> None:
        """Run a statement as Supabase Auth."""
        with self._auth.one() as connection:
            connection.execute(_query(query), values)
            connection.commit()

    def rows(self, query: str, *values: object) -> list[Row]:
        """Run a statement as the owner, whom no policy binds."""
        return rows_of(self.owner.execute(_query(query), values))

    def value(self, query: str, *values: object) -> Any:
        """Run a statement as the owner and return its only value."""
        return only(self.rows(query, *values))

    def task(self, task_id: object) -> dict[str, Any]:
        """Return a task's row as it is now."""
        row = self.value(
            "select to_jsonb(t) from public.segmentation_results t where id = %s", task_id
        )
        assert isinstance(row, dict)
        return row

    def credits(self, user: Caller) -> int:
        """Return a user's balance."""
        balance: int = self.value(
            "select credits from public.users_profile where id = %s", user.claims["sub"]
        )
        return balance

    def usage(self, user: Caller) -> list[tuple[str, int]]:
        """Return action and amount of a user's usage rows, in the order in which they were made."""
        return [
            (action, amount)
            for action, amount in self.rows(
                "select action, credits_used from public.usage_logs where user_id = %s"
                " order by created_at, action desc",
                user.claims["sub"],
            )
        ]

    def access(self) -> set[Row]:
        """Return every privilege, policy and switch that decides who may do what."""
        return set(rows_of(self.owner.execute(_ACCESS, {"tables": list(TABLES)})))

    def shape(self) -> set[Row]:
        """Return every column, constraint, index, trigger and function."""
        schemas = [
            name
            for name in ("public", "s3edge")
            if self.value("select to_regnamespace(%s) is not null", name)
        ]
        return set(rows_of(self.owner.execute(_SHAPE, {"ours": schemas})))

    def snapshot(self) -> dict[str, list[Any]]:
        """Return every row of every table."""
        return {
            table: self.value(
                f"select coalesce(jsonb_agg(to_jsonb(t) order by id), '[]') from public.{table} t"
            )
            for table in TABLES
        }

    def assert_books(self) -> None:
        """Check that everybody's money adds up."""
        faults = self.rows(
            "select * from s3edge.accounts(null, 500)"
            " where credits < 0 or credits <> granted - used or used <> live_cost"
        )
        assert faults == []

    def empty(self) -> None:
        """Let nobody have signed up, and settings and clock be as they were in the beginning."""
        self.rows("truncate auth.users cascade")
        self.rows("truncate s3edge.settings")
        # The first script makes both, and may be applied again.
        self.owner.execute(migrations()[0].sql.encode())

    def stop_clock(self, moment: datetime) -> None:
        """Let it be this time for the functions, until the next call."""
        self.owner.execute(
            sql.SQL(
                "create or replace function s3edge.now() returns timestamptz"
                " language sql volatile set search_path = '' as {}"
            ).format(sql.Literal(f"select timestamptz '{moment.isoformat()}'"))
        )


@frozen
class MovableClock:
    """
    The time of a project's functions, standing still.

    Attributes:
        start: When the test begins.
    """

    project: Project
    start: datetime

    def set(self, seconds: float) -> datetime:
        """Let so many seconds have passed since the test began; return what time that is."""
        moment = self.start + timedelta(seconds=seconds)
        self.project.stop_clock(moment)
        return moment


@define
class Projects:
    """Makes databases, by copying one of each kind."""

    server: PostgresServer
    _templates: set[str] = field(factory=set)
    _count: int = 0

    def bare(self, grants: GrantDefaults = "new") -> Database:
        """Return a Supabase project's database before anybody made a table in it."""
        return self.server.create_database(self._name(), grant_defaults=grants)

    def prepared(self, template: str, prepare: Callable[[Database], None]) -> Database:
        """Return a database that ``prepare`` has filled; it runs once for each name of a template."""
        if template not in self._templates:
            grants: GrantDefaults = "old" if template.startswith("old") else "new"
            prepare(self.server.create_database(template, grant_defaults=grants))
            self._templates.add(template)
        return self.server.create_database(self._name(), template=template)

    def migrated(self, grants: GrantDefaults = "new") -> Database:
        """Return a database with the schema in it, and no rows."""
        return self.prepared(f"{grants}_migrated", migrate)

    @contextmanager
    def open(self, database: Database) -> Iterator[Project]:
        """Call a database, and drop it in the end."""
        with opened(database, database.url("postgres")) as project:
            yield project
        self.server.drop_database(database.name)

    def _name(self) -> str:
        self._count += 1
        return f"test_{self._count}"


@contextmanager
def opened(database: Database, owner_url: str) -> Iterator[Project]:
    """Call a database; its owner is whoever the URL says."""
    with (
        closing(Connections(database.url("authenticator"))) as connections,
        closing(Connections(database.url("supabase_auth_admin"))) as auth,
        psycopg.connect(owner_url, autocommit=True) as owner,
    ):
        yield Project(database, owner, connections, auth)


def migrate(database: Database) -> None:
    """Apply the schema as its owner, each script in a transaction of its own."""
    for migration in migrations():
        database.apply(migration.sql)


def reservation(task_id: UUID | None = None, /, **changes: object) -> dict[str, object]:
    """Return the arguments of ``s3edge_reserve_task``."""
    return {
        "p_task_id": task_id or uuid4(),
        "p_image_url": "https://storage.example/uploads/u/i",
        "p_text_prompt": "the red car",
        **changes,
    }


def rows_of(cursor: psycopg.Cursor) -> list[Row]:
    """Return what a statement returned; nothing if it does not return rows."""
    return cursor.fetchall() if cursor.description else []


def only(rows: Sequence[Row]) -> Any:
    """Return the only column of the only row."""
    [[value]] = rows
    return value


def at_once(calls: Sequence[Callable[[], T]]) -> tuple[list[T], list[psycopg.Error]]:
    """Make calls in parallel, each over a connection of its own; return answers and refusals."""
    answers: list[T] = []
    refusals: list[psycopg.Error] = []
    with ThreadPoolExecutor(len(calls)) as pool:
        for future in [pool.submit(call) for call in calls]:
            try:
                answers.append(future.result())
            except psycopg.Error as error:
                refusals.append(error)
    return answers, refusals


def _query(query: str | sql.Composed) -> bytes | sql.Composed:
    # What a test sends is its own; psycopg's type asks for a literal.
    return query.encode() if isinstance(query, str) else query


def _call(schema: str, function: str, arguments: Mapping[str, object]) -> sql.Composed:
    return sql.SQL("select {}").format(_invocation(schema, function, arguments))


def _invocation(schema: str, function: str, arguments: Mapping[str, object]) -> sql.Composed:
    named = sql.SQL(", ").join(
        sql.SQL("{} => %s").format(sql.Identifier(name)) for name in arguments
    )
    return sql.SQL("{}({})").format(sql.Identifier(schema, function), named)


@pytest.fixture(scope="session")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Projects]:
    """Run one server for all tests."""
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        yield Projects(server)


@pytest.fixture
def fresh(projects: Projects) -> Iterator[Project]:
    """Make a migrated database for one test, which may make objects of its own in it."""
    with projects.open(projects.migrated()) as project:
        yield project


@pytest.fixture(scope="session")
def _emptied(projects: Projects) -> Iterator[Project]:
    with projects.open(projects.migrated()) as project:
        yield project


@pytest.fixture
def project(_emptied: Project) -> Project:
    """Hand out a migrated database without users, whose clock goes and whose settings are new."""
    _emptied.empty()
    return _emptied


@pytest.fixture(scope="session", params=["old", "new"])
def shared(projects: Projects, request: pytest.FixtureRequest) -> Iterator[Project]:
    """Make a migrated database for many tests, one of each grant world; tests bring their own users."""
    with projects.open(projects.migrated(request.param)) as project:
        yield project


@pytest.fixture
def clock(project: Project) -> MovableClock:
    """Stop the clock of a test's own project."""
    clock = MovableClock(project, datetime.fromisoformat("2026-11-24T12:00:00+00:00"))
    clock.set(0)
    return clock
