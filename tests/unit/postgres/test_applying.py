"""Scripts are applied once, whole or not at all, one application after the other."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from s3edge.rules.schema import SCHEMA_VERSION
from s3edge.testing.standins.postgres import PostgresServer
from s3edge.testing.standins.postgres_process import SUPERUSER, PostgresProcess
from s3edge.testing.standins.watched import HOST
from s3edge_postgres.address import PostgresAddress, parse_address
from s3edge_postgres.applying import (
    ADVISORY_LOCK,
    PREPARATION,
    Applied,
    ApplyError,
    ScriptsFor,
    apply,
    own_scripts,
)
from s3edge_postgres.migrations import Migration, migrations
from s3edge_postgres.queue_schema import with_queue
from tests.waiting import eventually


NAMES = [migration.name for migration in migrations()]

SHAPE = """
select nspname, relname, relkind::text from pg_class c join pg_namespace n on n.oid = relnamespace
where nspname !~ '^pg_' and nspname <> 'information_schema'
union all
select nspname, proname, md5(prosrc) from pg_proc p join pg_namespace n on n.oid = pronamespace
where nspname !~ '^pg_' and nspname <> 'information_schema'
order by 1, 2, 3
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """Run a Postgres for the module."""
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture
def url(server: PostgresServer, request: pytest.FixtureRequest) -> str:
    """Make an empty database that has nothing of Supabase in it."""
    return server.create_plain_database(request.node.name[:60])


@pytest.fixture
def address(url: str) -> PostgresAddress:
    """Name the empty database."""
    return parse_address(url)


def rows(url: str, statement: str) -> list[tuple[object, ...]]:
    """Run a statement past what is tested."""
    with psycopg.connect(url) as connection:
        return connection.execute(statement.encode()).fetchall()


def with_one_more(script: str) -> ScriptsFor:
    """Return all scripts, and one that comes last."""
    return lambda applied: [*migrations(), Migration("99999999999999_last.sql", script)]


def test_scripts_are_applied_once(url: str, address: PostgresAddress) -> None:
    """All of them in order, with what a plain Postgres lacks first; then none."""
    said: list[str] = []
    assert apply(address, own_scripts, announce=said.append) == Applied([PREPARATION, *NAMES], [])
    assert said == [f"applying {name}" for name in (PREPARATION, *NAMES)]
    assert rows(url, "select public.s3edge_schema_version()") == [(SCHEMA_VERSION,)]
    assert rows(url, "select * from s3edge.audit()") == []
    shape = rows(url, SHAPE)
    assert apply(address, own_scripts, announce=said.append) == Applied([], [])
    assert rows(url, SHAPE) == shape
    assert len(said) == len(NAMES) + 1


def test_a_dry_run_changes_nothing(url: str, address: PostgresAddress) -> None:
    """It says what would be applied, and leaves not even its books."""
    before = rows(url, SHAPE)
    assert apply(address, own_scripts, dry_run=True).names == [PREPARATION, *NAMES]
    assert rows(url, SHAPE) == before
    apply(address, lambda applied: migrations()[:3])
    assert apply(address, own_scripts, dry_run=True).names == NAMES[3:]
    assert apply(address, own_scripts).names == NAMES[3:]


def test_a_script_that_fails_leaves_nothing_of_any(url: str, address: PostgresAddress) -> None:
    """All scripts are one transaction; the error is a line with SQLSTATE."""
    before = rows(url, SHAPE)
    with pytest.raises(ApplyError) as raised:
        apply(address, with_one_more("create table t (a int); select 1 / 0"))
    assert str(raised.value) == (
        "99999999999999_last.sql: SQLSTATE 22012, 'division by zero'; nothing was applied"
    )
    assert rows(url, SHAPE) == before
    assert apply(address, own_scripts).names == [PREPARATION, *NAMES]


def test_a_changed_script_is_named(address: PostgresAddress) -> None:
    """It is not run again; whoever applies hears of it."""
    apply(address, with_one_more("select 1"))
    changed = apply(address, with_one_more("select 2"))
    assert changed == Applied([], ["99999999999999_last.sql"])


def test_what_a_script_says_is_passed_on(address: PostgresAddress) -> None:
    """A script that drops somebody's policy says so; Postgres's own remarks are left out."""
    said: list[str] = []
    script = "create table if not exists public.projects (); do $$ begin raise notice 'mind this'; end $$"
    apply(address, with_one_more(script), announce=said.append)
    assert [line for line in said if not line.startswith("applying ")] == ["mind this"]


def test_one_application_waits_for_another(url: str, address: PostgresAddress) -> None:
    """Of two at once one applies everything, and the other then finds nothing to do."""
    with psycopg.connect(url) as other, ThreadPoolExecutor(2) as threads:
        other.execute("select pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
        running = [threads.submit(apply, address, own_scripts) for _ in range(2)]
        waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
        eventually(lambda: rows(url, waiting) == [(2,)])
        other.rollback()
        applied = sorted((future.result(timeout=30).names for future in running), key=len)
    assert applied == [[], [PREPARATION, *NAMES]]


def test_the_wait_is_bounded(url: str, address: PostgresAddress) -> None:
    """Whoever waits too long says so, and changed nothing."""
    with psycopg.connect(url) as other:
        other.execute("select pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
        with pytest.raises(ApplyError, match=r"another migrate has been at work for 0\.1 s"):
            apply(address, own_scripts, patience_s=0.1)
    assert apply(address, own_scripts, dry_run=True).names == [PREPARATION, *NAMES]


def test_a_supabase_project_is_not_prepared(server: PostgresServer) -> None:
    """What Supabase has is left as it is, and the scripts are applied by its own owner."""
    database = server.create_database("project")
    address = parse_address(database.url("postgres"))
    assert apply(address, own_scripts).names == NAMES
    assert rows(database.url("postgres"), "select * from s3edge.audit()") == []
    # Also where Supabase's own command line applied them before: they may be applied again.
    other = server.create_database("pushed")
    for migration in migrations():
        other.apply(migration.sql)
    assert apply(parse_address(other.url("postgres")), own_scripts).names == NAMES


def test_the_queue_is_applied_too(url: str, address: PostgresAddress) -> None:
    """The queue's schema joins the same books, and is made once."""
    names = apply(address, with_queue).names
    assert names[: len(NAMES) + 1] == [PREPARATION, *NAMES]
    assert len(names) == len(NAMES) + 2
    assert apply(address, with_queue) == Applied([], [])
    assert rows(url, "select count(*) from procrastinate.procrastinate_jobs") == [(0,)]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresProcess]:
    """Run a Postgres in which nothing was ever made: no role of Supabase's either."""
    process = PostgresProcess(tmp_path_factory.mktemp("bare") / "postgres.log")
    try:
        process.create()
        process.start()
        yield process
    finally:
        process.remove()


def database_of(bare: PostgresProcess, name: str, rights: str) -> PostgresAddress:
    """Make a database and its owner, who has some rights on the server."""
    with bare.connect() as connection:
        for command in (
            "create role {} login password {password} " + rights,
            "create database {} owner {}",
        ):
            connection.execute(
                sql.SQL(command).format(
                    *[sql.Identifier(name)] * 2, password=sql.Literal(bare.password)
                )
            )
    return parse_address(f"postgresql://{name}:{bare.password}@{HOST}:{bare.port}/{name}")


def test_roles_that_are_missing_are_made_or_asked_for(bare: PostgresProcess) -> None:
    """Who may not make them is told what a superuser has to run; who may, makes them once a server."""
    powerless = database_of(bare, "powerless", "nocreaterole")
    with pytest.raises(ApplyError) as raised:
        apply(powerless, own_scripts)
    assert str(raised.value) == (
        "the role powerless may not create roles: have a superuser run create role anon nologin;"
        " create role authenticated nologin; create role service_role nologin; then try again"
    )
    able = database_of(bare, "able", "createrole")
    assert apply(able, own_scripts).names == [PREPARATION, *NAMES]
    # Roles are the server's, so they are there by now.
    assert apply(powerless, own_scripts).names == [PREPARATION, *NAMES]


def test_a_superuser_can_apply_too(bare: PostgresProcess) -> None:
    """Where nobody made a role of its own for it."""
    url = f"postgresql://{SUPERUSER}:{bare.password}@{HOST}:{bare.port}/postgres"
    assert apply(parse_address(url), own_scripts).names == [PREPARATION, *NAMES]


def test_an_unreachable_server_is_one_line(url: str) -> None:
    """It says why, and holds no password."""
    password = url.split(":")[2].partition("@")[0]
    for wrong in (url.replace(password, "wr0ng"), url.rpartition(":")[0] + ":1/database"):
        with pytest.raises(ApplyError) as raised:
            apply(parse_address(wrong), own_scripts)
        message = str(raised.value)
        assert message.startswith("nothing was applied: ")
        assert not {password, "wr0ng", "\n"} & {
            part for part in (password, "wr0ng", "\n") if part in message
        }


def migrate(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run ``s3edge migrate``."""
    return subprocess.run(
        [sys.executable, "-m", "s3edge", "migrate", *arguments],
        env={"PATH": "/usr/bin:/bin", **settings},
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,
        check=False,
    )


def test_the_command_says_what_it_did(url: str, tmp_path: Path) -> None:
    """Names go to standard output, progress elsewhere; a second run has nothing to do."""
    dry = migrate(tmp_path, "--dry-run", S3EDGE_DATABASE=url)
    assert (dry.returncode, dry.stdout.split(), dry.stderr) == (0, [PREPARATION, *NAMES], "")
    done = migrate(tmp_path, "--database", f"{url}?pool_size=5&pooler=transaction")
    assert (done.returncode, done.stdout) == (0, dry.stdout)
    assert done.stderr.splitlines() == [f"applying {name}" for name in done.stdout.split()]
    again = migrate(tmp_path, S3EDGE_DATABASE=url)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "everything is applied\n")
    queue = migrate(tmp_path, S3EDGE_DATABASE=url, S3EDGE_DISPATCH="procrastinate")
    assert (queue.returncode, queue.stdout.count("\n")) == (0, 1)


def test_wrong_usage_is_one_line(tmp_path: Path) -> None:
    """With status 2, and without the password that is wrong."""
    for arguments, settings in (
        ([], {}),
        (["--to-dir", "scripts", "--dry-run"], {}),
        ([], {"S3EDGE_DATABASE": "postgresql://me:s3cret@localhost:port/database"}),
        ([], {"S3EDGE_DATABASE": "postgresql://me:s3cret%ZZ@localhost/database"}),
        ([], {"S3EDGE_DATABASE": "postgresql://me:s3cret@localhost/database?pool_size=many"}),
        (["--database", "postgresql://me:s3cret@localhost/database?pooler=session"], {}),
    ):
        refused = migrate(tmp_path, *arguments, **settings)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.count("\n") == 1
        assert "s3cret" not in refused.stderr
    assert not (tmp_path / "scripts").exists()
