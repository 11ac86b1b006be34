"""
Hears of tasks that ended, on one connection of its own.

Postgres sends news to whoever listens at the time (https://www.postgresql.org/docs/current/sql-notify.html),
so what was missed is asked for once, each time that listening begins.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Any
from uuid import UUID

import anyio
import psycopg
from psycopg import AsyncConnection

from s3edge.errors import EdgeError
from s3edge.ports import EndNews
from s3edge_postgres.address import PostgresAddress
from s3edge_postgres.connections import BUDGET_S, Connections, deadline, session_options
from s3edge_postgres.refusals import in_brief
from s3edge_postgres.statements import ENDED_TASKS
from s3edge_postgres.time_limit import TimeLimit


CHANNEL = "s3edge_task_ended"

POLL_S = 1.0
"""How often all that is awaited is asked for, in one query, while nobody can listen."""

LIVENESS_S = 15.0
"""How often a silent connection is tried: a frozen server keeps its connections, and says nothing."""

_log = logging.getLogger(__name__)


async def announce_ends(
    address: PostgresAddress,
    connections: Connections,
    news: EndNews,
    *,
    liveness_s: float = LIVENESS_S,
) -> None:
    """
    Tell of awaited tasks that have ended, whoever ended them, until cancelled.

    Args:
        address: Of the database, for a connection of its own.
        connections: For asking while nobody can listen.
        news: Whom to tell.
        liveness_s: How long a connection may be silent before it is tried.
    """
    is_out = False
    while True:
        if not address.is_pooled:
            try:
                async with _listening(address, news) as connection:
                    if is_out:
                        _log.info("news of ended tasks are heard again")
                        is_out = False
                    await _hear(connection, news, liveness_s)
            except psycopg.Error as error:
                if not is_out:
                    _log.warning(
                        "news of ended tasks cannot be heard, and are asked for each second: %s",
                        in_brief(error),
                    )
                    is_out = True
        await _ask(connections, news)
        await anyio.sleep(POLL_S)


@asynccontextmanager
async def _listening(
    address: PostgresAddress, news: EndNews
) -> AsyncGenerator[AsyncConnection[Any]]:
    """Listen, and make up for what was missed."""
    connection = await AsyncConnection[Any].connect(**session_options(address))
    try:
        with TimeLimit(connection, deadline()):
            await connection.execute(f"listen {CHANNEL}".encode())
            awaited = list(news.awaited())
            if awaited:
                ended = await connection.execute(ENDED_TASKS.encode(), {"task_ids": awaited})
                for row in await ended.fetchall():
                    news.ended(row["id"])
        yield connection
    finally:
        await connection.close()


async def _hear(connection: AsyncConnection[Any], news: EndNews, liveness_s: float) -> None:
    """
    Pass on what is said.

    Raises:
        psycopg.Error: The connection broke.
    """
    while True:
        async with aclosing(connection.notifies(timeout=liveness_s)) as notices:
            async for notice in notices:
                task_id = _id_in(notice.payload)
                if task_id is not None:
                    news.ended(task_id)
        with TimeLimit(connection, anyio.current_time() + BUDGET_S):
            await connection.execute(b"")


async def _ask(connections: Connections, news: EndNews) -> None:
    """Ask once which of all that is awaited has ended; a database that is down is asked again later."""
    awaited = list(news.awaited())
    if not awaited:
        return
    try:
        rows = await connections.rows(ENDED_TASKS, {"task_ids": awaited})
    except (EdgeError, psycopg.Error):
        return  # said once by whoever cannot listen, and by every call that fails
    for row in rows:
        news.ended(row["id"])


def _id_in(payload: str) -> UUID | None:
    """Return the id that a notice names; anybody may send something else over the same channel."""
    try:
        return UUID(payload)
    except ValueError:
        return None
