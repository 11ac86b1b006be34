"""
Connections to the database, as PostgREST's pool keeps them.

No library's pool, because what happens when the database goes away is the point: none tries again behind
the caller's back, so that each failure is an answer.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import anyio
import psycopg

from s3edge.testing.standins.supabase.catalog import Connection
from s3edge.testing.standins.supabase.gateway import Caller
from s3edge.testing.standins.supabase.refusals import (
    bad_text,
    lost_connection,
    no_connection,
    no_free_connection,
    of_database,
)


POOL_SIZE = 20
ACQUISITION_TIMEOUT_S = 10
"""How long a request waits for a free connection (``PGRST003``)."""

SEARCH_PATH = '"public", "extensions"'
"""The exposed schema and ``PGRST_DB_EXTRA_SEARCH_PATH``."""

# The role's own settings come first: they may need rights that the role does not have.
_ROLE_SETTINGS = """
select set_config(split_part(s, '=', 1), substr(s, strpos(s, '=') + 1), true)
from pg_catalog.pg_roles, unnest(rolconfig) s where rolname = %s
"""

_REQUEST_SETTINGS = """
select set_config('search_path', %s, true), set_config('role', %s, true),
    set_config('request.jwt.claims', %s, true), set_config('request.method', %s, true),
    set_config('request.path', %s, true), set_config('request.headers', %s, true),
    set_config('request.cookies', %s, true)
"""


class Connections:
    """
    Some connections, each used by one request at a time, opened when they are needed.

    Args:
        url: Of the database, as the role that can become all others.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._idle: list[Connection] = []
        self._free = anyio.Semaphore(POOL_SIZE)

    async def __aenter__(self) -> Self:
        """Open nothing yet: the database may be down."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the idle ones; those in use close with their requests."""
        await self._close_idle()

    @asynccontextmanager
    async def transaction(self, caller: Caller) -> AsyncIterator[Connection]:
        """
        Begin a transaction; commit it in the end, or roll it back after an error.

        Raises:
            Refusal: The database cannot be reached, or refused a statement.
        """
        try:
            with anyio.fail_after(ACQUISITION_TIMEOUT_S):
                await self._free.acquire()
        except TimeoutError:
            raise no_free_connection() from None
        try:
            connection = await self._open()
            try:
                await connection.execute("begin isolation level read committed")
                yield connection
                await connection.execute("commit")
            except psycopg.Error as error:
                raise await self._refusal(error, connection, caller) from None
            finally:
                await self._put_back(connection)
        finally:
            self._free.release()

    async def _open(self) -> Connection:
        if self._idle:
            return self._idle.pop()
        try:
            return await psycopg.AsyncConnection.connect(
                self._url, autocommit=True, connect_timeout=ACQUISITION_TIMEOUT_S
            )
        except psycopg.OperationalError:
            raise no_connection() from None

    async def _refusal(
        self, error: psycopg.Error, connection: Connection, caller: Caller
    ) -> Exception:
        """Return the answer to an error; when the database is gone, so are all connections to it."""
        if connection.broken:
            await self._close_idle()
        if error.sqlstate is not None:
            return of_database(error, anonymous=caller.is_anonymous)
        if isinstance(error, psycopg.DataError):
            # The driver finds it before the database can.
            return bad_text()
        return lost_connection() if connection.broken else error

    async def _put_back(self, connection: Connection) -> None:
        """Keep a connection for the next request, without what this one left undone."""
        with anyio.CancelScope(shield=True):
            if connection.info.transaction_status is psycopg.pq.TransactionStatus.IDLE:
                self._idle.append(connection)
                return
            try:
                await connection.execute("rollback")
            except psycopg.Error:
                await connection.close()
            else:
                self._idle.append(connection)

    async def _close_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()


async def become(
    connection: Connection,
    caller: Caller,
    *,
    method: str,
    path: str,
    headers: Mapping[str, str],
    cookies: Mapping[str, str],
    read_only: bool,
    statement_timeout: str | None,
) -> None:
    """
    Give a transaction the rights of a caller, and tell it of the request.

    Args:
        connection: In a transaction.
        caller: Whose role and claims it gets.
        method: Of the request.
        path: Of the request, as PostgREST sees it: without the gateway's prefix.
        headers: Of the request, their names in lower case.
        cookies: Of the request.
        read_only: Whether nothing may be written.
        statement_timeout: A function's own, instead of the role's.

    Raises:
        psycopg.Error: The role does not exist, or may not be taken.
    """
    if read_only:
        await connection.execute("set transaction read only")
    await connection.execute(_ROLE_SETTINGS, [caller.role])
    await connection.execute(
        _REQUEST_SETTINGS,
        [
            SEARCH_PATH,
            caller.role,
            _json(caller.claims),
            method,
            path,
            _json(headers),
            _json(cookies),
        ],
    )
    if statement_timeout is not None:
        await connection.execute(
            "select set_config('statement_timeout', %s, true)", [statement_timeout]
        )


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), separators=(",", ":"))
