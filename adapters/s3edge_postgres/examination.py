"""What ``s3edge doctor`` looks at in a Postgres."""

from collections.abc import AsyncIterator
from datetime import UTC
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow

from s3edge.ports import Clock, Finding
from s3edge.rules.schema import SCHEMA_VERSION
from s3edge_postgres.address import PostgresAddress
from s3edge_postgres.connections import deadline, session_options
from s3edge_postgres.refusals import NOT_APPLIED, fix_of, in_brief
from s3edge_postgres.time_limit import TimeLimit


OLDEST_VERSION = 14
"""The scripts use ``create or replace trigger``."""

MAX_SKEW_S = 30.0
"""How far the database's clock, which times leases and deadlines, may be from this machine's."""

_SERVER = """
select
    current_setting('server_version') as version,
    current_setting('server_version_num')::integer / 10000 as major,
    current_setting('max_connections')::integer
        - current_setting('superuser_reserved_connections')::integer as connections,
    pg_is_in_recovery() as is_standby,
    clock_timestamp() as now,
    current_user::text as role,
    (
        select pg_has_role(n.nspowner, 'USAGE') from pg_catalog.pg_namespace n
        where n.nspname = 's3edge'
    ) as owns_schema
"""

_AUDIT = "select fault from s3edge.audit() as fault"


async def examine_database(address: PostgresAddress, clock: Clock) -> AsyncIterator[Finding]:
    """
    Look at the server, the role, the schema, the access rules, the connections and the clock.

    Args:
        address: Where the database is.
        clock: This machine's.
    """
    try:
        connection = await AsyncConnection[Any].connect(**session_options(address))
    except psycopg.Error as error:
        message = f"{in_brief(error)}; compare S3EDGE_DATABASE with the server's address and roles"
        yield Finding("server", ok=False, message=message)
        return
    async with connection:
        with TimeLimit(connection, deadline()):
            try:
                async for finding in _findings(connection, address, clock):
                    yield finding
            except psycopg.Error as error:
                message = f"{in_brief(error)}; {fix_of(error)}"
                yield Finding("schema", ok=False, message=message)


async def _findings(
    connection: AsyncConnection[DictRow], address: PostgresAddress, clock: Clock
) -> AsyncIterator[Finding]:
    [server] = await _rows(connection, _SERVER)
    yield _server(server)
    yield _connections(server, address)
    yield _skew(server, clock)
    yield _role(server)
    if server["owns_schema"] is None:
        yield Finding("migrations", ok=False, message=NOT_APPLIED)
        return
    [schema] = await _rows(connection, "select public.s3edge_schema_version() as version")
    if schema["version"] < SCHEMA_VERSION:
        message = f"the schema is version {schema['version']}, not {SCHEMA_VERSION}; {NOT_APPLIED}"
        yield Finding("migrations", ok=False, message=message)
        return
    yield Finding("migrations", ok=True, message=f"version {schema['version']}")
    yield _access_rules(await _rows(connection, _AUDIT))


async def _rows(connection: AsyncConnection[DictRow], statement: str) -> list[DictRow]:
    return await (await connection.execute(statement.encode())).fetchall()


def _server(server: DictRow) -> Finding:
    name, version = "server", f"PostgreSQL {server['version']}"
    if server["major"] < OLDEST_VERSION:
        return Finding(name, ok=False, message=f"{version}: {OLDEST_VERSION} or newer is needed")
    if server["is_standby"]:
        message = f"{version}, a standby, which nothing can be written to: connect to the primary"
        return Finding(name, ok=False, message=message)
    return Finding(name, ok=True, message=version)


def _connections(server: DictRow, address: PostgresAddress) -> Finding:
    name = "connections"
    if address.is_pooled:
        message = (
            f"{address.pool_size} a process, to a pooler in transaction mode; ends of tasks are asked"
            " for each second"
        )
        return Finding(name, ok=True, message=message)
    # One more listens.
    needed, there = address.pool_size + 1, server["connections"]
    message = f"{needed} a process of the server's {there}"
    if needed > there:
        message += ": lower pool_size in S3EDGE_DATABASE, or raise max_connections"
        return Finding(name, ok=False, message=message)
    return Finding(name, ok=True, message=f"{message}, so room for {there // needed} processes")


def _skew(server: DictRow, clock: Clock) -> Finding:
    name = "clock"
    skew_s = (clock.now() - server["now"].astimezone(UTC)).total_seconds()
    if abs(skew_s) > MAX_SKEW_S:
        side = "ahead of" if skew_s > 0 else "behind"
        message = (
            f"this machine is {abs(skew_s):.0f} s {side} the database's: have both set theirs (NTP)"
        )
        return Finding(name, ok=False, message=message)
    return Finding(name, ok=True, message=f"{skew_s:+.0f} s")


def _role(server: DictRow) -> Finding:
    name, role = "role", server["role"]
    if server["owns_schema"] is False:
        message = f"{role} does not own the schema s3edge: connect as the role that applied it"
        return Finding(name, ok=False, message=message)
    return Finding(name, ok=True, message=f"{role}")


def _access_rules(rows: list[DictRow]) -> Finding:
    name, faults = "policies and grants", [row["fault"] for row in rows]
    if faults:
        message = f"{'; '.join(faults)}: apply the s3edge_access migrations again, in order"
        return Finding(name, ok=False, message=message)
    return Finding(name, ok=True, message="as the migrations made them")
