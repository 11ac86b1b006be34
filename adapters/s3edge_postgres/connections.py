"""One process's connections, and how a statement gets its rows in time or not at all."""

import logging
import math
import select
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from weakref import WeakKeyDictionary

import anyio
import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from s3edge.errors import unavailable
from s3edge_postgres.address import CONNECT_TIMEOUT_S, PostgresAddress
from s3edge_postgres.ended import ended
from s3edge_postgres.refusals import (
    breaks_connection,
    has_stepped_down,
    in_brief,
    is_passing,
    may_be_repeated,
)
from s3edge_postgres.time_limit import TimeLimit


BUDGET_S = 3.2
"""
What one call may take with all its attempts, waiting for a connection included: an app hears of an
outage within 5 seconds, also when the sign-in keys had to be waited for before.
"""

STATEMENT_TIMEOUT_S = 3.0
"""
When the server gives a statement up: a little earlier, so that its word comes in time, and nobody is left
in doubt. It would not notice by itself that nobody waits any more.
"""

MAX_ATTEMPTS = 2

WARN_EVERY_S = 10.0
"""How often it is logged at the most that calls fail: an outage is one story, not one a call."""

ASK_AGAIN_S = 0.5
"""
How often the pool is asked again for a connection that it does not have.

It tries to connect when it is asked, twice, and not again: by itself it would wait longer and longer.
"""

Values = Sequence[Any] | Mapping[str, Any]

_log = logging.getLogger(__name__)


class Connections:
    """
    A pool of connections on which single statements run, each a transaction of its own.

    Args:
        address: Where the database is.
    """

    def __init__(self, address: PostgresAddress) -> None:
        self._address = address
        self._pool: AsyncConnectionPool[AsyncConnection[DictRow]] = AsyncConnectionPool(
            connection_class=self._noting_failures(),
            kwargs=session_options(address),
            configure=self._begin_session,
            min_size=0,
            max_size=address.pool_size,
            reconnect_timeout=0,
            name="s3edge",
            open=False,
        )
        # First come, first served, and who gives up leaves the queue; the pool's own queue keeps them.
        self._permits = anyio.Semaphore(address.pool_size, fast_acquire=True)
        self._asking = anyio.Lock(fast_acquire=True)
        self._answered_at: WeakKeyDictionary[AsyncConnection[DictRow], float] = WeakKeyDictionary()
        self._doubted_until = 0.0
        self._last_failure = "none failed"
        self._warned_at = -math.inf

    async def __aenter__(self) -> Self:
        """Open the pool; the database itself may be down."""
        await self._pool.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every connection."""
        await self._pool.close()

    async def rows(
        self,
        statement: str,
        values: Values = (),
        *,
        repeatable: bool = True,
        ends_at: float | None = None,
    ) -> list[DictRow]:
        """
        Run a statement and return its rows.

        A call that has begun runs to its end, also when the caller is cancelled meanwhile. asyncio's own
        cancellation (``Task.cancel``, ``asyncio.timeout``) alone has the server asked to stop it; whether
        it was done is not known then, and its connection is replaced.

        Args:
            statement: One of this package's constants, which are few: each is prepared once.
            values: What it is run with.
            repeatable: Whether running it twice does no more than once.
            ends_at: When the time is over, for a call of several statements; else ``BUDGET_S`` from now.

        Raises:
            psycopg.Error: The statement was refused.
            EdgeError: ``SERVICE_UNAVAILABLE``: no answer in time.
        """
        if ends_at is None:
            ends_at = deadline()
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._attempt(statement, values, ends_at)
            except TimeoutError as error:
                may_repeat, fault = False, str(error)
            except psycopg.Error as error:
                if not is_passing(error):
                    raise
                may_repeat, fault = may_be_repeated(error, repeatable=repeatable), in_brief(error)
            if not may_repeat or attempt == MAX_ATTEMPTS or anyio.current_time() >= ends_at:
                self._warn(f"given up after attempt {attempt}: {fault}")
                raise unavailable("The database does not answer; try again in a moment.")

    async def _attempt(self, statement: str, values: Values, ends_at: float) -> list[DictRow]:
        connection = await self._borrow(ends_at)
        began_at, is_good = anyio.current_time(), False
        limit = TimeLimit(connection, ends_at)
        try:
            with anyio.CancelScope(shield=True), limit:
                cursor = await connection.execute(statement.encode(), values)
                rows = await cursor.fetchall()
            is_good = not limit.is_over
        except psycopg.Error as error:
            if limit.is_over:
                self._doubt(began_at)
                raise TimeoutError("no answer in time") from None
            is_good = not breaks_connection(error)
            if has_stepped_down(error):
                self._doubt(anyio.current_time())
            raise
        finally:
            await self._give_back(connection, is_good=is_good)
        return rows

    def _warn(self, fault: str) -> None:
        """Say what keeps a call from its answer, for all that fail in a while."""
        now = anyio.current_time()
        if now >= self._warned_at + WARN_EVERY_S:
            self._warned_at = now
            _log.warning("the database does not answer: %s", fault)

    def _doubt(self, moment: float) -> None:
        """Trust no connection any more whose last sign of life is older than this."""
        self._doubted_until = max(self._doubted_until, moment)

    async def _borrow(self, ends_at: float) -> AsyncConnection[DictRow]:
        """
        Return a connection that seems to work.

        Raises:
            TimeoutError: There was none in time.
        """
        try:
            with anyio.fail_after(max(0.0, ends_at - anyio.current_time())):
                await self._permits.acquire()
                try:
                    return await self._connection()
                except BaseException:
                    self._permits.release()
                    raise
        except TimeoutError:
            message = f"no connection in time; the last attempt to connect: {self._last_failure}"
            raise TimeoutError(message) from None

    async def _connection(self) -> AsyncConnection[DictRow]:
        while True:
            # One at a time, as the pool connects: its queue keeps everybody who ever asked in vain.
            async with self._asking:
                try:
                    connection = await self._pool.getconn(timeout=ASK_AGAIN_S)
                except PoolTimeout:
                    continue
            if self._seems_to_work(connection):
                return connection
            await self._discard(connection)

    def _seems_to_work(self, connection: AsyncConnection[DictRow]) -> bool:
        """Return whether an idle connection was not ended meanwhile, without asking the server."""
        if connection.closed or self._answered_at.get(connection, 0.0) < self._doubted_until:
            return False
        # A server says nothing by itself but that it goes away, or that its settings change.
        line = select.poll()
        line.register(connection.fileno(), select.POLLIN)
        return not line.poll(0)

    async def _give_back(self, connection: AsyncConnection[DictRow], *, is_good: bool) -> None:
        if is_good:
            self._answered_at[connection] = anyio.current_time()
        try:
            # The pool loses a connection for good when its return is cancelled.
            await ended(self._pool.putconn(connection) if is_good else self._discard(connection))
        finally:
            self._permits.release()

    async def _discard(self, connection: AsyncConnection[DictRow]) -> None:
        """Have the pool replace a connection."""
        await connection.close()
        await self._pool.putconn(connection)

    def _noting_failures(self) -> type[AsyncConnection[DictRow]]:
        """Return a kind of connection that tells us why it cannot be made; the pool tells its log."""
        note = self._note_failure

        class NotingConnection(AsyncConnection[DictRow]):
            @classmethod
            async def connect(cls, conninfo: str = "", **options: Any) -> Self:
                try:
                    return await super().connect(conninfo, **options)
                except psycopg.Error as error:
                    note(error)
                    raise

        return NotingConnection

    def _note_failure(self, error: psycopg.Error) -> None:
        self._last_failure = in_brief(error)

    async def _begin_session(self, connection: AsyncConnection[DictRow]) -> None:
        """Have the server give up in time; behind a pooler in transaction mode nothing can be set."""
        if not self._address.is_pooled:
            timeout_ms = round(STATEMENT_TIMEOUT_S * 1000)
            setting = f"set statement_timeout = {timeout_ms}".encode()
            with TimeLimit(connection, anyio.current_time() + CONNECT_TIMEOUT_S):
                try:
                    await connection.execute(setting, prepare=False)
                except psycopg.Error as error:
                    self._note_failure(error)
                    raise
        self._answered_at[connection] = anyio.current_time()
        self._last_failure = "none failed"


def deadline() -> float:
    """Return when a call that begins now is over, by the event loop's clock."""
    return anyio.current_time() + BUDGET_S


def session_options(address: PostgresAddress) -> dict[str, Any]:
    """Return the arguments that psycopg connects with."""
    return {
        **address.parameters,
        "autocommit": True,
        "row_factory": dict_row,
        # A pooler in transaction mode runs each statement in whichever session is free.
        "prepare_threshold": None if address.is_pooled else 0,
    }
