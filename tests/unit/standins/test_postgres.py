"""The embedded PostgreSQL is laid out as a Supabase project, and leaves nothing behind."""

import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import errors

from s3edge.testing.standins.postgres import Database, GrantDefaults, PostgresServer, Role


ABANDONS_ITS_SERVER = """
import os, sys
from pathlib import Path
from s3edge.testing.standins.postgres import PostgresServer

server = PostgresServer(Path(sys.argv[1]))
server.__enter__()
print(server.create_database("left").url("authenticator"), flush=True)
sys.stdin.read()
os._exit(1)
"""


@pytest.fixture(scope="module")
def database(postgres: PostgresServer) -> Database:
    """Return a project of today."""
    return postgres.create_database("layout", grant_defaults="new")


def test_the_migrations_owner_is_no_superuser(database: Database) -> None:
    """``postgres`` bypasses policies, makes roles, owns the database, and is no superuser."""
    with psycopg.connect(database.url("postgres")) as connection:
        role = connection.execute(
            "select rolsuper, rolbypassrls, rolcreaterole from pg_roles where rolname = current_user"
        ).fetchone()
        owner = connection.execute(
            "select datdba::regrole::text from pg_database where datname = current_database()"
        ).fetchone()
    assert (role, owner) == ((False, True, True), ("postgres",))


def test_the_roles_are_as_on_supabase(database: Database) -> None:
    """The API's roles cannot log in, inherit nothing, and one of them bypasses policies."""
    with psycopg.connect(database.url("postgres")) as connection:
        found = connection.execute(
            "select rolname, rolcanlogin, rolinherit, rolbypassrls, rolconfig from pg_roles"
            " where rolname in ('anon', 'authenticated', 'authenticator', 'service_role')"
            " order by rolname"
        ).fetchall()
    assert found == [
        ("anon", False, False, False, ["statement_timeout=3s"]),
        ("authenticated", False, False, False, ["statement_timeout=8s"]),
        ("authenticator", True, False, False, ["statement_timeout=8s", "lock_timeout=8s"]),
        ("service_role", False, False, True, None),
    ]


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
def test_the_authenticator_becomes_whoever_asks(database: Database, role: str) -> None:
    """PostgREST logs in without rights and takes a role for each transaction."""
    with psycopg.connect(database.url("authenticator")) as connection:
        connection.execute("select set_config('role', %s, true)", [role])
        assert connection.execute("select current_user").fetchone() == (role,)


def test_migrations_hook_into_users_that_they_do_not_own(database: Database) -> None:
    """``postgres`` may refer to ``auth.users`` and put triggers there, and may not alter it."""
    with psycopg.connect(database.url("postgres")) as connection:
        connection.execute(
            "create table public.hooked (id uuid primary key references auth.users);"
            "create function public.hook() returns trigger language plpgsql security definer as"
            " $$begin insert into public.hooked values (new.id); return null; end$$;"
            "create trigger hook after insert on auth.users"
            " for each row execute function public.hook()"
        )
        connection.commit()
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("alter table auth.users add column mine integer")
    user_id = uuid4()
    with psycopg.connect(database.url("supabase_auth_admin")) as connection:
        connection.execute("insert into auth.users (id) values (%s)", [user_id])
    with psycopg.connect(database.url("postgres")) as connection:
        assert connection.execute("select id from public.hooked").fetchall() == [(user_id,)]


def test_claims_are_read_from_the_transactions_settings(database: Database) -> None:
    """``auth.uid()``, ``role()``, ``email()`` and ``jwt()`` read the claims; the old setting first."""
    user_id, other_id = uuid4(), uuid4()
    claims = f'{{"sub": "{user_id}", "role": "authenticated", "email": "a@b"}}'
    with psycopg.connect(database.url("authenticator")) as connection:
        connection.execute(
            "select set_config('request.jwt.claims', %s, true),"
            " set_config('role', 'authenticated', true)",
            [claims],
        )
        found = connection.execute(
            "select auth.uid(), auth.role(), auth.email(), auth.jwt() ->> 'sub'"
        ).fetchone()
        assert found == (user_id, "authenticated", "a@b", str(user_id))
        connection.execute("select set_config('request.jwt.claim.sub', %s, true)", [str(other_id)])
        assert connection.execute("select auth.uid()").fetchone() == (other_id,)
        connection.rollback()
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("select auth.uid()")  # the login itself has no rights


@pytest.mark.parametrize(
    ("grant_defaults", "granted"),
    [("old", [(True, True, True)]), ("new", [(False, True, False)])],
)
def test_default_privileges_are_those_of_the_projects_age(
    postgres: PostgresServer, grant_defaults: GrantDefaults, granted: list[tuple[bool, ...]]
) -> None:
    """What is made in ``public`` was everybody's once; functions still are, as in any Postgres."""
    database = postgres.create_database(f"age_{grant_defaults}", grant_defaults=grant_defaults)
    database.apply(
        "create table public.made (id serial);"
        "create function public.called() returns integer language sql as 'select 1'"
    )
    with psycopg.connect(database.url("postgres")) as connection:
        found = connection.execute(
            "select distinct has_table_privilege(r, 'public.made', 'select'),"
            " has_function_privilege(r, 'public.called()', 'execute'),"
            " has_sequence_privilege(r, 'public.made_id_seq', 'usage')"
            " from unnest(array['anon', 'authenticated', 'service_role']) r"
        ).fetchall()
    assert found == granted


def test_an_unknown_age_is_refused(postgres: PostgresServer) -> None:
    """A misspelt default would pass for one of the two."""
    with pytest.raises(ValueError, match="'old' or 'new'"):
        postgres.create_database("odd", grant_defaults="older")  # type: ignore[arg-type] # the point


def test_a_template_is_copied_whole(postgres: PostgresServer) -> None:
    """Copies begin with the template's tables, rows and default privileges, and then go apart."""
    base = postgres.create_database("base", grant_defaults="old")
    base.apply("create table public.t (a integer); insert into public.t values (1)")
    copies = [postgres.create_database(f"copy_{n}", template="base") for n in range(2)]
    copies[0].apply("insert into public.t values (2); create table public.u ()")
    with psycopg.connect(copies[0].url("postgres")) as connection:
        rows = connection.execute("select a from public.t order by a").fetchall()
        granted = connection.execute("select has_table_privilege('anon', 'u', 'select')").fetchone()
    assert (rows, granted) == ([(1,), (2,)], (True,))
    with psycopg.connect(copies[1].url("postgres")) as connection:
        assert connection.execute("select a from public.t").fetchall() == [(1,)]


def test_a_script_is_applied_whole_or_not_at_all(database: Database) -> None:
    """A migration that fails leaves nothing of itself."""
    with pytest.raises(errors.UndefinedTable):
        database.apply("create table public.half (); insert into public.missing values (1)")
    with psycopg.connect(database.url("postgres")) as connection:
        assert connection.execute("select to_regclass('public.half')").fetchone() == (None,)


def test_a_dropped_database_is_gone_whoever_uses_it(postgres: PostgresServer) -> None:
    """Dropping one ends its connections."""
    dropped = postgres.create_database("dropped")
    with psycopg.connect(dropped.url("authenticator")) as connection:
        postgres.drop_database("dropped")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(dropped.url("authenticator"))


def test_a_name_of_any_letters_works(postgres: PostgresServer) -> None:
    """Names are quoted, in SQL and in the URL."""
    odd = postgres.create_database('o"d d/%?#&é')
    with psycopg.connect(odd.url("superuser")) as connection:
        assert connection.execute("select current_database()").fetchone() == (odd.name,)


@pytest.mark.parametrize("role", ["authenticator", "postgres", "superuser", "supabase_auth_admin"])
def test_each_role_needs_the_password(database: Database, role: Role) -> None:
    """Other users of the machine do not get in, and the password is in no representation."""
    assert database.password not in repr(database)
    wrong = Database(database.name, database.port, "wrong")
    with psycopg.connect(database.url(role)) as connection:
        assert connection.info.host == "127.0.0.1"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong.url(role))


def test_servers_stop_restart_and_live_side_by_side(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    """A second server has a port of its own, keeps what was committed, and is removed at the end."""
    with PostgresServer(tmp_path) as server:
        database = server.create_database("kept")
        database.apply("create table public.t as select 1 as a")
        assert server.pid != postgres.pid
        assert database.url("postgres") != postgres.database("kept").url("postgres")
        with psycopg.connect(database.url("postgres")) as connection:
            server.restart()
            with pytest.raises(psycopg.OperationalError):
                connection.execute("select 1")
        with psycopg.connect(database.url("postgres")) as connection:
            assert connection.execute("select a from public.t").fetchall() == [(1,)]
        with psycopg.connect(database.url("superuser")) as connection:
            folder = connection.execute("show data_directory").fetchone()
        server.stop()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(database.url("postgres"))
        with pytest.raises(RuntimeError, match="does not run"):
            _ = server.pid
    assert folder is not None
    assert not Path(folder[0]).exists()
    assert "immediate shutdown" in server.log.read_text()


def test_a_server_that_cannot_start_says_why(tmp_path: Path, postgres: PostgresServer) -> None:
    """The end of the log is in the error, and the server can be started when the cause is gone."""
    with PostgresServer(tmp_path) as server:
        port = server.database("postgres").port
        server._process.port = postgres.database("postgres").port
        with pytest.raises(RuntimeError, match="Address already in use"):
            server.restart()
        server._process.port = port
        server.start()


def test_a_server_without_a_folder_for_its_log_leaves_nothing(tmp_path: Path) -> None:
    """What fails while it enters is undone: there is no data and no process."""
    server = PostgresServer(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match=r"postgres\.log"), server:
        pytest.fail("it cannot have started")
    assert server._process._data is None
    with pytest.raises(RuntimeError, match="does not run"):
        _ = server.pid


def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Also when that process has no time to clean up."""
    command = [sys.executable, "-c", ABANDONS_ITS_SERVER, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with psycopg.connect(process.stdout.readline().strip()) as connection:
            process.stdin.close()
            with pytest.raises(psycopg.OperationalError):
                connection.execute("set statement_timeout = 0; select pg_sleep(60)")
    assert "immediate shutdown" in (tmp_path / "postgres.log").read_text()
