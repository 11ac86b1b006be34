"""A plain Postgres with the schema applied, which can be taken away and brought back."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from s3edge.gateway import SystemClock
from s3edge.testing.standins.postgres import PostgresServer
from s3edge_postgres.address import parse_address
from s3edge_postgres.applying import apply, own_scripts
from s3edge_postgres.database import PostgresDatabase
from s3edge_postgres.queue_schema import with_queue
from s3edge_postgres.rows import Terms


TERMS = Terms(initial_credits=1000, segment_cost=1, task_deadline_s=900)


class Postgres:
    """
    A running server and one database of it.

    Attributes:
        server: The server.
        url: Of the database, as its owner.
    """

    def __init__(self, server: PostgresServer, url: str) -> None:
        self.server = server
        self.url = url

    @property
    def password(self) -> str:
        """The owner's."""
        password = urlsplit(self.url).password
        assert password is not None
        return password

    @asynccontextmanager
    async def opened(
        self, *, url: str = "", pool_size: int = 20
    ) -> AsyncIterator[PostgresDatabase]:
        """Open the adapter; by default straight at the server."""
        given = url or self.url
        address = parse_address(given if "?" in given else f"{given}?pool_size={pool_size}")
        async with PostgresDatabase(address, SystemClock(), TERMS) as database:
            yield database

    def create_with_queue(self, name: str) -> str:
        """Make another database, with the queue's tables; return its address."""
        url = self.server.create_plain_database(name)
        apply(parse_address(url), with_queue)
        return url

    def run(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement past the adapter, as the owner."""
        with psycopg.connect(self.url) as connection:
            cursor = connection.execute(statement.encode(), values)
            return [] if cursor.description is None else cursor.fetchall()

    def run_as_superuser(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement of the server's operator."""
        url = self.server.database("plain").url("superuser")
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values)
            return [] if cursor.description is None else cursor.fetchall()

    def terminate(self, which: str = "true") -> int:
        """End the owner's sessions for which a condition holds; return how many."""
        # They are gone when this returns.
        ended = self.run_as_superuser(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
            f" where usename = 'plain' and {which}"
        )
        return len(ended)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop every process of the server, as a machine that swaps itself to death does."""
        parent = psutil.Process(self.server.pid)
        processes = [parent, *parent.children(recursive=True)]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """Run a Postgres for the module."""
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        url = server.create_plain_database("plain")
        apply(parse_address(url), own_scripts)
        yield Postgres(server, url)
