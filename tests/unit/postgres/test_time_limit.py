"""Who waits for a server is not held by it, whatever the process is short of."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import psycopg
import pytest

from s3edge_postgres.time_limit import TimeLimit
from tests.unit.postgres.conftest import Postgres


pytestmark = pytest.mark.anyio

LIMIT_S = 0.2

STATEMENT_S = 10
"""When the statement would end by itself, so that a limit that does nothing fails the test."""


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Have the system give this process no further descriptor; those that it has serve on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_hanging_up_needs_no_descriptor(postgres: Postgres) -> None:
    """A process that has used up its own is the one that may least wait for ever."""
    connection = await psycopg.AsyncConnection.connect(postgres.url)
    async with connection:
        limit = TimeLimit(connection, anyio.current_time() + LIMIT_S)
        with no_descriptor_left():
            with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                os.dup(connection.fileno())
            with limit, pytest.raises(psycopg.OperationalError):
                await connection.execute("select pg_sleep(%s)", (STATEMENT_S,))
    assert limit.is_over


async def test_hanging_up_leaves_the_descriptor_to_its_owner(postgres: Postgres) -> None:
    """It is libpq's to close; closed by us, it would soon be somebody else's."""
    connection = await psycopg.AsyncConnection.connect(postgres.url)
    line = connection.fileno()
    try:
        with TimeLimit(connection, anyio.current_time() + LIMIT_S) as limit:
            # Nothing waits for the connection, so nothing closes it.
            with anyio.fail_after(STATEMENT_S):
                while not limit.is_over:
                    await anyio.sleep(0.01)
        os.fstat(line)
    finally:
        await connection.close()
