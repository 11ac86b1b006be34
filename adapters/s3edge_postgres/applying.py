"""Applies SQL scripts to a database, each once, all of them or none."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.resources import files
from typing import Any

import psycopg
from attrs import frozen

from s3edge_postgres.address import PostgresAddress
from s3edge_postgres.migrations import Migration, migrations
from s3edge_postgres.refusals import in_brief


OTHERS_TIMEOUT_S = 60
"""How long another application may take before this one gives up waiting for it."""

LOCK_TIMEOUT_S = 10
"""
How long a script may wait for a table that somebody uses.

Whoever comes meanwhile waits behind it, so a long one would stop the service.
"""

ADVISORY_LOCK = 0x733365646765
"""``s3edge`` in ASCII: what applications of scripts wait for each other by."""

PREPARATION = "plain_postgres.sql"

_ROLES = ("anon", "authenticated", "service_role")

_BOOKS = """
create schema if not exists s3edge;
create table if not exists s3edge.migrations (
    name text primary key,
    sha256 text not null,
    applied_at timestamptz not null default now()
);
alter table s3edge.migrations enable row level security;
revoke all on s3edge.migrations from public;
"""


ScriptsFor = Callable[[Collection[str]], Sequence[Migration]]
"""Takes the names of all that is applied; returns what has to be, in order, applied or not."""


def own_scripts(applied: Collection[str]) -> Sequence[Migration]:  # noqa: ARG001 - all there are
    """Return the schema's own scripts."""
    return migrations()


def say_nothing(line: str) -> None:
    """Be told and do nothing."""


class ApplyError(Exception):
    """Nothing was applied; the message is one line that says why."""


@frozen
class Applied:
    """
    What an application did, or would do.

    Attributes:
        names: Of the scripts that were applied, in order.
        changed: Of those applied earlier that said something else then; they are left as they are.
    """

    names: Sequence[str]
    changed: Sequence[str]


def apply(
    address: PostgresAddress,
    scripts_for: ScriptsFor,
    *,
    announce: Callable[[str], None] = say_nothing,
    dry_run: bool = False,
    patience_s: float = OTHERS_TIMEOUT_S,
) -> Applied:
    """
    Apply those scripts that are not applied yet, in one transaction.

    The role that connects comes to own what they make. What is applied is kept in
    ``s3edge.migrations``. Of two at once the second waits, then finds nothing to do. On a Postgres that
    is not Supabase's, the roles and the function that the scripts name are made first.

    Args:
        address: Of the database; through a pooler in transaction mode too.
        scripts_for: Says which scripts there are.
        announce: Told of each script before it is run, and of what it reports.
        dry_run: Whether to say what would be applied, and change nothing.
        patience_s: How long to wait for another application.

    Raises:
        ApplyError: The database cannot be reached, or refused; nothing was changed.
    """
    # Prepared for nothing: each statement runs once, and a script holds many.
    options: dict[str, Any] = {**address.parameters, "prepare_threshold": None}
    try:
        with psycopg.connect(**options) as connection, connection.transaction():
            _wait_for_others(connection, patience_s)
            return _apply(connection, scripts_for, announce, dry_run=dry_run)
    except psycopg.Error as error:
        raise ApplyError(f"nothing was applied: {in_brief(error)}") from None


def _apply(
    connection: psycopg.Connection,
    scripts_for: ScriptsFor,
    announce: Callable[[str], None],
    *,
    dry_run: bool,
) -> Applied:
    known = _applied(connection)
    scripts = scripts_for(known)
    pending = [script for script in scripts if script.name not in known]
    changed = [
        script.name
        for script in scripts
        if known.get(script.name, _sha256(script)) != _sha256(script)
    ]
    if pending and _is_plain(connection):
        _check_may_create_roles(connection)
        pending = [_preparation(), *pending]
    if dry_run or not pending:
        return Applied([script.name for script in pending], changed)

    connection.add_notice_handler(
        # Of notices only what a script says by itself: Postgres remarks on all that is there already.
        lambda notice: (
            announce(notice.message_primary or "")
            if (notice.context or "").endswith("at RAISE")
            else None
        )
    )
    connection.execute(_BOOKS.encode())
    for script in pending:
        announce(f"applying {script.name}")
        try:
            connection.execute(script.sql.encode())
        except psycopg.Error as error:
            raise ApplyError(f"{script.name}: {in_brief(error)}; nothing was applied") from None
        connection.execute(
            # The preparation may come twice: it is what is missing that asks for it.
            "insert into s3edge.migrations (name, sha256) values (%s, %s)"
            " on conflict (name) do update set sha256 = excluded.sha256, applied_at = now()",
            (script.name, _sha256(script)),
        )
    return Applied([script.name for script in pending], changed)


def _wait_for_others(connection: psycopg.Connection, patience_s: float) -> None:
    connection.execute("set local statement_timeout = 0")
    connection.execute(f"set local lock_timeout = '{patience_s}s'".encode())
    try:
        connection.execute("select pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
    except psycopg.errors.LockNotAvailable:
        message = f"another migrate has been at work for {patience_s:g} s; try again later"
        raise ApplyError(message) from None
    connection.execute(f"set local lock_timeout = '{LOCK_TIMEOUT_S}s'".encode())


def _applied(connection: psycopg.Connection) -> Mapping[str, str]:
    """Return what is applied, by name, as it was then."""
    [(table,)] = connection.execute("select to_regclass('s3edge.migrations')::text").fetchall()
    if table is None:
        return {}
    return dict(connection.execute("select name, sha256 from s3edge.migrations").fetchall())


def _is_plain(connection: psycopg.Connection) -> bool:
    [(function,)] = connection.execute("select to_regprocedure('auth.uid()')::text").fetchall()
    return function is None


def _check_may_create_roles(connection: psycopg.Connection) -> None:
    [(role, may_create, missing)] = connection.execute(
        "select current_user, rolsuper or rolcreaterole, array("
        "select unnest(%s::text[]) except select rolname::text from pg_catalog.pg_roles order by 1)"
        " from pg_catalog.pg_roles where rolname = current_user",
        (list(_ROLES),),
    ).fetchall()
    if missing and not may_create:
        message = (
            f"the role {role} may not create roles: have a superuser run"
            f" {' '.join(f'create role {name} nologin;' for name in missing)} then try again"
        )
        raise ApplyError(message)


def _preparation() -> Migration:
    return Migration(PREPARATION, (files(__package__) / PREPARATION).read_text("utf-8"))


def _sha256(script: Migration) -> str:
    return hashlib.sha256(script.sql.encode()).hexdigest()
