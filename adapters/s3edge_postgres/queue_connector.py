"""The queue's own connections: bounded in time, in the queue's schema, and aware of what failed."""

import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import procrastinate
import psycopg
from procrastinate.connector import Notify
from procrastinate.exceptions import ConnectorException, NoResult, UniqueViolation
from psycopg_pool import AsyncConnectionPool

from s3edge.rules.lifecycle import LEASE_S
from s3edge_postgres.address import CONNECT_TIMEOUT_S, PostgresAddress
from s3edge_postgres.connections import deadline, session_options
from s3edge_postgres.queue_schema import SCHEMA
from s3edge_postgres.refusals import in_brief
from s3edge_postgres.time_limit import TimeLimit


CONNECTIONS = 4
"""How many connections one worker of the queue uses, besides one that listens."""

_log = logging.getLogger(__name__)


class QueueConnector(procrastinate.PsycopgConnector):
    """
    Connections that notice when a worker cannot go on.

    A job whose end was not recorded stays with its worker for as long as that one lives. So it may not
    live on: another worker, or this process's next one, takes over what it left. A worker that can
    neither listen nor queue its upkeep ends by itself; the reason it tells only the library's own log.

    Args:
        address: Of the database.

    Attributes:
        failed: Set when the database failed a worker in what it cannot do without.
        failure: Why; ``None`` until then.
    """

    def __init__(self, address: PostgresAddress) -> None:
        options = session_options(address)
        # The library has its own.
        del options["row_factory"], options["autocommit"]
        super().__init__(
            pool_factory=_pool,
            kwargs=options,
            configure=_use_schema,
            min_size=1,
            max_size=CONNECTIONS,
            timeout=LEASE_S,
        )
        self.failed = anyio.Event()
        self.failure: ConnectorException | None = None

    async def execute_query_async(self, query: Any, **arguments: Any) -> None:
        """
        Run a statement that returns nothing: the record of a job's end, a heartbeat.

        A failure is noted and not raised: the library awaits no result of what records a job's end, so
        it would be nobody's. Whoever runs the worker ends it when ``failed`` is set, and has the reason.
        """
        try:
            await super().execute_query_async(query, **arguments)
        except ConnectorException as error:
            if isinstance(error.__cause__, psycopg.errors.RaiseException):
                # Another worker, which took this one for dead, has said of the job what there is to say.
                _log.info("another worker has dealt with a job meanwhile: %s", cause_of(error))
                return
            self._note(error)

    async def execute_query_one_async(self, query: Any, **arguments: Any) -> dict[str, Any]:
        """Run a statement that returns a row: the next job to do, the queueing of upkeep."""
        with self._noting():
            row: dict[str, Any] = await super().execute_query_one_async(query, **arguments)
        return row

    async def listen_notify(self, on_notification: Notify, channels: Iterable[str]) -> None:
        """Pass on the news of jobs, over a connection of its own."""
        with self._noting():
            await super().listen_notify(on_notification, channels)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except (NoResult, UniqueViolation):
            raise  # an answer: the same upkeep is queued already, say
        except ConnectorException as error:
            self._note(error)
            raise

    def _note(self, error: ConnectorException) -> None:
        self.failure = self.failure or error
        self.failed.set()


class _Pool(AsyncConnectionPool[psycopg.AsyncConnection[Any]]):
    """
    Lends connections for as long as a call may take: a server that fell silent is not waited for.

    A call is a transaction that ends within the time too; the pool's own end of it is not bounded.
    """

    @asynccontextmanager
    async def connection(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - the pool's own signature
    ) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """Lend a connection."""
        async with super().connection(timeout) as connection:
            with TimeLimit(connection, deadline()):
                async with connection.transaction():
                    yield connection


def _pool(**options: Any) -> _Pool:
    return _Pool(**{**options, "check": _check_in_time})


async def _check_in_time(connection: psycopg.AsyncConnection[Any]) -> None:
    with TimeLimit(connection, anyio.current_time() + CONNECT_TIMEOUT_S):
        await AsyncConnectionPool.check_connection(connection)


async def _use_schema(connection: psycopg.AsyncConnection[Any]) -> None:
    """Have names mean the queue's own tables; its functions name them without a schema."""
    with TimeLimit(connection, anyio.current_time() + CONNECT_TIMEOUT_S):
        await connection.execute(f"set search_path to {SCHEMA}".encode())
        await connection.commit()


def cause_of(error: Exception) -> str:
    """Return what went wrong, without what may hold a password."""
    cause = error.__cause__ if isinstance(error, ConnectorException) else error
    return in_brief(cause) if isinstance(cause, psycopg.Error) else type(cause or error).__name__
