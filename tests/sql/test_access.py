"""
Who may do what, over every table and function that the catalogs name.

What is allowed is listed here; a table, column or function that somebody adds later is refused to users
until it is listed too.
"""

from collections.abc import Iterable
from uuid import UUID

import psycopg
import pytest
from attrs import frozen
from psycopg import sql

from tests.sql.conftest import TABLES, Caller, Project, Row


PERMISSION_DENIED = "42501"

TABLE_PRIVILEGES = {
    "authenticated": {
        ("users_profile", "SELECT"),
        ("projects", "SELECT"),
        ("projects", "INSERT"),
        ("projects", "UPDATE"),
        ("projects", "DELETE"),
        ("segmentation_results", "SELECT"),
        ("usage_logs", "SELECT"),
    },
    "anon": set[Row](),
    "service_role": {
        (table, privilege)
        for table in TABLES
        for privilege in ("SELECT", "INSERT", "UPDATE", "DELETE")
    },
}

UPDATABLE = {("users_profile", "display_name"), ("users_profile", "avatar_url")}

FOR_EVERYBODY = {"s3edge_schema_version", "s3edge_settings", "public_settings"}

FOR_USERS = {
    "s3edge_reserve_task",
    "reserve_own_task",
    "s3edge_settle_overdue",
    "settle_own_overdue",
    "now",
}

FOR_SERVERS = {
    name
    for behind in (
        "start_task",
        "complete_task",
        "fail_task",
        "claim_tasks",
        "extend_leases",
        "settle_overdue",
        "grant_credits",
        "accounts",
        "configure",
        "audit",
        "start_attempt",
        "complete_attempt",
        "fail_attempt",
        "hold_attempts",
        "backlog",
    )
    for name in (behind, f"s3edge_{behind}")
} | {"now", "initial_credits"}

FUNCTIONS = {
    "anon": FOR_EVERYBODY,
    "authenticated": FOR_EVERYBODY | FOR_USERS,
    "service_role": FOR_EVERYBODY | FOR_SERVERS,
}

ROLES = tuple(FUNCTIONS)


@frozen
class Pair:
    """
    Two users, each with a row in every table.

    Attributes:
        a: Whom the other one knows everything about.
        b: Who tries.
        a_task: A task of A's that is under way.
        b_task: One of B's.
        a_project: A project of A's.
        b_project: One of B's.
    """

    a: Caller
    b: Caller
    a_task: str
    b_task: str
    a_project: UUID
    b_project: UUID

    @property
    def a_id(self) -> object:
        """The id of A."""
        return self.a.claims["sub"]

    @property
    def b_id(self) -> object:
        """The id of B."""
        return self.b.claims["sub"]


@pytest.fixture
def pair(shared: Project) -> Pair:
    """Make two users who have done what users do."""
    a, b = shared.user(), shared.user()
    projects = [
        user.value("insert into public.projects (name) values ('Mine') returning id")
        for user in (a, b)
    ]
    tasks = [
        user.reserve(p_project_id=project)["task"]["id"]
        for user, project in zip((a, b), projects, strict=True)
    ]
    return Pair(a, b, *tasks, *projects)


def _caller(shared: Project, role: str) -> Caller:
    callers = {"anon": shared.anon, "authenticated": shared.user, "service_role": shared.service}
    return callers[role]().trying()


def _tables(shared: Project) -> list[tuple[str, str]]:
    """Return schema and name of every table, view and the like."""
    return [
        (schema, name)
        for schema, name in shared.rows(
            "select relnamespace::regnamespace::text, relname from pg_class"
            " where relnamespace in ('public'::regnamespace, 's3edge'::regnamespace)"
            " and relkind in ('r', 'v', 'm', 'p', 'f')"
        )
    ]


def _functions(shared: Project) -> list[tuple[str, str, list[str]]]:
    """Return schema, name and types of the arguments of every function."""
    return [
        (schema, name, types)
        for schema, name, types in shared.rows(
            "select pronamespace::regnamespace::text, proname, array("
            " select format_type(argument, null) from unnest(proargtypes) argument)"
            " from pg_proc"
            " where pronamespace in ('public'::regnamespace, 's3edge'::regnamespace)"
        )
    ]


def test_the_catalogs_name_what_is_listed(shared: Project) -> None:
    """The sweeps below see the schema, and nothing is listed that is not there."""
    assert set(_tables(shared)) == {("public", table) for table in TABLES} | {
        ("s3edge", "settings"),
        ("s3edge", "result_counts"),
    }
    names = {name for _, name, _ in _functions(shared)}
    assert names >= FOR_EVERYBODY | FOR_USERS | FOR_SERVERS


@pytest.mark.parametrize("role", ROLES)
def test_privileges_on_tables_are_those_listed(shared: Project, role: str) -> None:
    """Every privilege of every role on every table."""
    privileges = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"]
    held = {
        (table, privilege)
        for schema, table in _tables(shared)
        for privilege in privileges
        if shared.value(
            "select has_table_privilege(%s, %s, %s)", role, f"{schema}.{table}", privilege
        )
    }
    assert held == TABLE_PRIVILEGES[role]


@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_privileges_on_columns_are_those_listed(shared: Project, role: str) -> None:
    """What somebody may do to single columns of a table, beyond what they may do to all of it."""
    held = {
        (table, column, privilege)
        for table, column, privilege in shared.rows(
            "select attrelid::regclass::text, attname, privilege from pg_attribute,"
            " unnest(array['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) privilege"
            " where attnum > 0 and not attisdropped"
            " and attrelid = any (%s::regclass[])"
            " and has_column_privilege(%s, attrelid, attname, privilege)"
            " and not has_table_privilege(%s, attrelid, privilege)",
            [f"{schema}.{name}" for schema, name in _tables(shared)],
            role,
            role,
        )
    }
    listed = {(*column, "UPDATE") for column in UPDATABLE} if role == "authenticated" else set()
    assert held == listed


@pytest.mark.parametrize("role", ROLES)
def test_functions_are_refused_unless_listed(shared: Project, role: str) -> None:
    """
    Every function is called, the wrappers and what is behind them.

    The arguments are null: whoever gets past the door is stopped, or not, by the function itself.
    """
    caller = _caller(shared, role)
    callable_by_role = set()
    for schema, name, types in _functions(shared):
        call = sql.SQL("select {}({})").format(
            sql.Identifier(schema, name),
            sql.SQL(", ").join(sql.SQL(f"null::{type_}") for type_ in types),
        )
        try:
            caller.run(call)
        except psycopg.Error as error:
            if error.diag.message_primary == f"permission denied for function {name}":
                continue
        callable_by_role.add(name)
    assert callable_by_role == FUNCTIONS[role]


def test_users_make_no_objects(shared: Project) -> None:
    """Neither schema takes a table or a function from them."""
    for role in ROLES:
        for schema in ("public", "s3edge"):
            assert not shared.value("select has_schema_privilege(%s, %s, 'CREATE')", role, schema)


def test_a_user_reads_nothing_of_anothers(shared: Project, pair: Pair) -> None:
    """Not a row in any table, whether they know its id or not."""
    for schema, table in _tables(shared):
        if (table, "SELECT") not in TABLE_PRIVILEGES["authenticated"]:
            assert pair.b.refused(f"select * from {schema}.{table}").sqlstate == PERMISSION_DENIED
            continue
        owner = "id" if table == "users_profile" else "user_id"
        own = pair.b.run(f"select {owner} from {schema}.{table}")
        assert own == [(UUID(str(pair.b_id)),)]
        assert pair.b.run(f"select * from {schema}.{table} where {owner} = %s", pair.a_id) == []
    for table, row_id in (("projects", pair.a_project), ("segmentation_results", pair.a_task)):
        assert pair.b.run(f"select * from public.{table} where id = %s", row_id) == []


def test_a_user_without_an_id_reads_nothing(shared: Project, pair: Pair) -> None:
    """A token without ``sub`` is nobody's."""
    nobody = Caller(pair.a.connections, "authenticated", {"role": "authenticated"})
    for table in TABLES:
        assert nobody.run(f"select * from public.{table}") == []


def test_somebody_who_has_not_signed_in_reads_nothing(shared: Project, pair: Pair) -> None:
    """Every table is closed to them, and they hear no more than that."""
    for schema, table in _tables(shared):
        assert shared.anon().refused(f"table {schema}.{table}").sqlstate == PERMISSION_DENIED


def test_settings_are_read_through_the_function_only(shared: Project) -> None:
    """Not even a server reads or writes the table itself."""
    for role in ROLES:
        caller = _caller(shared, role)
        for query in ("table s3edge.settings", "update s3edge.settings set segment_cost = 0"):
            assert caller.refused(query).sqlstate == PERMISSION_DENIED
        assert caller.call("s3edge_settings")["segment_cost"] == 1


def _columns(shared: Project) -> Iterable[tuple[str, str]]:
    for table, column in shared.rows(
        "select attrelid::regclass::text, attname from pg_attribute"
        " where attrelid = any (%s::regclass[]) and attnum > 0 and not attisdropped",
        [f"public.{table}" for table in TABLES],
    ):
        yield table.removeprefix("public."), column


def test_a_user_writes_no_column_that_is_not_theirs(shared: Project, pair: Pair) -> None:
    """Column by column: of their own rows, the way they are shown, and their projects; no more."""
    trying = pair.b.trying()
    written = set()
    for table, column in _columns(shared):
        update = f"update public.{table} set {column} = {column}"
        try:
            trying.run(update)
        except psycopg.Error as error:
            assert error.sqlstate == PERMISSION_DENIED  # noqa: PT017 - or the column is written
        else:
            written.add((table, column))
    assert {column for column in written if column[0] != "projects"} == UPDATABLE
    assert {column for column in _columns(shared) if column[0] == "projects"} <= written


def test_nobody_writes_columns_before_signing_in(shared: Project) -> None:
    """Not one, of no table."""
    anon = shared.anon()
    for table, column in _columns(shared):
        update = f"update public.{table} set {column} = {column}"
        assert anon.refused(update).sqlstate == PERMISSION_DENIED


@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_rows_are_made_and_deleted_by_functions_only(shared: Project, role: str) -> None:
    """No insert, no delete, no truncate on any table, but on a user's own projects."""
    caller = _caller(shared, role)
    for schema, table in _tables(shared):
        for query in (
            f"insert into {schema}.{table} default values",
            f"delete from {schema}.{table}",
            f"truncate {schema}.{table} cascade",
        ):
            privilege = (table, query.split()[0].upper())
            if privilege not in TABLE_PRIVILEGES[role]:
                assert caller.refused(query).sqlstate == PERMISSION_DENIED, query


def test_a_profile_is_edited_by_its_user(shared: Project, pair: Pair) -> None:
    """Name and picture; another's update finds no row."""
    query = (
        "update public.users_profile set display_name = 'B', avatar_url = 'https://b' where id = %s"
    )
    pair.b.run(query, pair.b_id)
    pair.b.run(query, pair.a_id)
    names = [
        caller.value("select display_name from public.users_profile") for caller in (pair.a, pair.b)
    ]
    assert names == [None, "B"]


def test_projects_are_their_users(shared: Project, pair: Pair) -> None:
    """A user makes, edits and deletes projects of their own."""
    project = pair.b.value(
        "insert into public.projects (name, description) values ('New', 'd') returning id"
    )
    pair.b.run("update public.projects set name = 'Newer' where id = %s", project)
    assert pair.b.value("select name from public.projects where id = %s", project) == "Newer"
    pair.b.run("delete from public.projects where id = %s", project)
    pair.b.run("delete from public.projects where id = %s", pair.b_project)
    assert pair.b.run("select * from public.projects") == []
    assert shared.task(pair.b_task)["project_id"] is None


def test_projects_are_nobody_elses(shared: Project, pair: Pair) -> None:
    """Another's is not found; and none is made for another or handed to them."""
    pair.b.run("update public.projects set name = 'Taken' where id = %s", pair.a_project)
    pair.b.run("delete from public.projects where id = %s", pair.a_project)
    for forgery, values in (
        ("insert into public.projects (user_id, name) values (%s, 'Gift')", [pair.a_id]),
        ("update public.projects set user_id = %s where id = %s", [pair.a_id, pair.b_project]),
        (
            (
                "insert into public.projects (id, user_id, name) values (%s, %s, 'Taken')"
                " on conflict (id) do update set name = excluded.name, user_id = excluded.user_id"
            ),
            [pair.a_project, pair.b_id],
        ),
    ):
        assert pair.b.refused(forgery, *values).sqlstate == PERMISSION_DENIED
    assert pair.a.run("select id, name from public.projects") == [(pair.a_project, "Mine")]
    assert pair.b.run("select id from public.projects") == [(pair.b_project,)]


def test_a_server_reads_and_writes_all(shared: Project, pair: Pair) -> None:
    """The service role is bound by grants, not by policies; it has those that it needs."""
    service = shared.service().trying()
    for table in TABLES:
        owner = "id" if table == "users_profile" else "user_id"
        ids = [pair.a_id, pair.b_id]
        found = service.run(
            f"select distinct {owner}::text from public.{table} where {owner} = any (%s::uuid[])",
            ids,
        )
        assert {user_id for (user_id,) in found} == set(ids)
    with service.transaction() as connection:
        for statement in (
            "update public.projects set name = 'x' where user_id = %s",
            "delete from public.users_profile where id = %s",
            "insert into public.users_profile (id) values (%s)",
            "insert into public.usage_logs (user_id, action) values (%s, 'upload')",
            (
                "insert into public.segmentation_results (user_id, source_image_url, text_prompt)"
                " values (%s, 'https://s', 'p')"
            ),
            "update public.segmentation_results set status = 'done' where user_id = %s",
        ):
            assert connection.execute(statement.encode(), [pair.a_id]).rowcount == 1


def test_a_forged_claim_is_not_an_id(shared: Project) -> None:
    """A ``sub`` that is no UUID is an error, not somebody."""
    forged = Caller(
        shared.anon().connections, "authenticated", {"sub": "' or true --", "role": "authenticated"}
    )
    assert forged.refused("table public.users_profile").sqlstate == "22P02"
