"""
One SQLite file for many coroutines: reads side by side, writes one after the other.

Writes that wait at the same time share one transaction and so one disk sync, each in a savepoint of
its own: together they are as durable as one by one (``synchronous=FULL``), and many times quicker.
"""

import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any, Generic, Self, TypeVar

import anyio

from s3edge.errors import EdgeError, unavailable
from s3edge_embedded.private_files import make_private_file
from s3edge_embedded.threads import Threads


BUSY_TIMEOUT_S = 5.0
"""How long a transaction waits for another process that writes."""

OLDEST_SQLITE = (3, 37)
"""The first with STRICT tables (2021-11-27)."""

READERS = 4
MAX_BATCH = 256
"""Writes in one transaction at the most, so that no single one waits long for the others."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class _Write(Generic[T]):
    """A write that waits for its turn."""

    def __init__(self, operation: Callable[[sqlite3.Connection], T]) -> None:
        self.operation = operation
        self.taken = False
        self.value: T | None = None
        self.error: Exception | None = None

    def run(self, connection: sqlite3.Connection) -> None:
        """Do the write in a savepoint, and remember how it went."""
        connection.execute("savepoint one")
        try:
            self.value = self.operation(connection)
        except Exception as error:  # noqa: BLE001 - raised again for the caller whose write it is
            self.error = error
            connection.execute("rollback to one")
        connection.execute("release one")


class SqliteFile:
    """
    A database file, open from ``__aenter__`` to ``__aexit__``.

    Args:
        path: Of the file; it and its folder are made when they are missing.
        migrations: Name of the package folder with ``NNNN_name.sql`` files.
    """

    def __init__(self, path: Path, migrations: str) -> None:
        self._path = path
        self._migrations = migrations
        self._identity = (0, 0)
        self._writer: sqlite3.Connection | None = None
        self._readers: LifoQueue[sqlite3.Connection] = LifoQueue()
        self._open_readers = 0
        # Threads of our own: the process's default ones serve everybody else too.
        self._write_thread = Threads(1, "s3edge-sqlite-write")
        self._read_threads = Threads(READERS, "s3edge-sqlite-read")
        self._turn = anyio.Lock()
        self._waiting: list[_Write[Any]] = []

    async def __aenter__(self) -> Self:
        """Open the file and bring its schema up to date."""
        try:
            await self._write_thread.run_anyway(self._open)
        except BaseException:
            await self._write_thread.run_anyway(self._close)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection when it has ended what it does; what was written stays."""
        await self._write_thread.run_anyway(self._close)

    async def write(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """
        Run an operation in a transaction and return its value once it is on disk.

        Raises:
            EdgeError: What the operation raised (and was undone), or ``SERVICE_UNAVAILABLE``.
        """
        write = _Write(operation)
        self._waiting.append(write)
        try:
            async with self._turn:
                if not write.taken:
                    await self._write_batch()
        except BaseException:
            if not write.taken:
                self._waiting.remove(write)
            raise
        if write.error is not None:
            raise _as_edge_error(write.error)
        return write.value  # type: ignore[return-value] # set when there is no error

    async def read(self, statement: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        """
        Return the rows of one statement, which sees one snapshot of the file.

        Several would need a transaction around them, and that alone costs more than most of them.

        Raises:
            EdgeError: ``SERVICE_UNAVAILABLE``.
        """
        try:
            return await self._read_threads.run(self._read, statement, values)
        except sqlite3.Error as error:
            raise _as_edge_error(error) from None

    async def _write_batch(self) -> None:
        """Commit what waits now, this caller's write among it, whoever is cancelled meanwhile."""
        batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
        for write in batch:
            write.taken = True
        try:
            await self._write_thread.run_anyway(self._commit, batch)
        except Exception as error:  # noqa: BLE001 - raised again for every caller of the batch
            # It was not begun, which each of them must know.
            for write in batch:
                write.error = error

    def _commit(self, batch: Sequence[_Write[Any]]) -> None:
        connection = self._writer
        if connection is None:
            for write in batch:
                write.error = _closed()
            return
        try:
            self._check_in_place()
            with _transaction(connection):
                for write in batch:
                    write.run(connection)
        except Exception as error:  # noqa: BLE001 - raised again for every caller of the batch
            # Nothing of the batch was written, so none of it may be reported as written.
            for write in batch:
                write.error = error

    def _read(self, statement: str, values: Sequence[object]) -> list[sqlite3.Row]:
        self._check_in_place()
        try:
            connection = self._readers.get_nowait()
        except Empty:
            # Every thread that reads has a connection, unless the file was closed.
            raise _closed() from None
        try:
            return connection.execute(statement, values).fetchall()
        finally:
            self._readers.put(connection)

    def _check_in_place(self) -> None:
        """
        Refuse to work on a file that nobody else sees any more.

        A file that was deleted or replaced stays open here, and what is written to it would be lost.
        """
        try:
            in_place = _identity(self._path) == self._identity
        except OSError:
            in_place = False
        if not in_place:
            message = f"the file {self._path} was removed or replaced; restart the server"
            raise sqlite3.OperationalError(message)

    def _open(self) -> None:
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            message = f"SQLite {sqlite3.sqlite_version} is too old; 3.37 or newer is needed."
            raise unavailable(message)
        try:
            # SQLite gives the files beside it the same mode.
            make_private_file(self._path)
            self._identity = _identity(self._path)
            self._writer = _connect(self._path)
            _migrate(self._writer, self._migrations)
            for _ in range(READERS):
                reader = _connect(self._path)
                reader.execute("pragma query_only = on")
                self._readers.put(reader)
                self._open_readers += 1
        except (OSError, sqlite3.Error) as error:
            message = f"The database file {self._path} cannot be opened: {error}"
            raise unavailable(message) from error

    def _close(self) -> None:
        while self._open_readers:
            # Each comes back when the read that has it ends.
            self._readers.get().close()
            self._open_readers -= 1
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _connect(path: Path) -> sqlite3.Connection:
    # Used by one thread at a time, but not always by the same one; transactions are spelt out.
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("pragma journal_mode = wal")
        # FULL: what was answered as accepted survives a power cut, not only a crash of the process.
        connection.execute("pragma synchronous = full")
        connection.execute("pragma foreign_keys = on")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    # At once as a writer: one that begins as a reader may find that it cannot become one.
    connection.execute("begin immediate")
    try:
        yield
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:
            connection.execute("rollback")
        raise


def _migrate(connection: sqlite3.Connection, package: str) -> None:
    """Apply the scripts that the file has not seen, each in one transaction, in order."""
    scripts = sorted(
        (script for script in resources.files(package).iterdir() if script.name.endswith(".sql")),
        key=lambda script: script.name,
    )
    with _transaction(connection):
        applied = int(connection.execute("pragma user_version").fetchone()[0])
        if applied > len(scripts):
            message = f"it was written by a newer version (schema {applied}); upgrade s3edge"
            raise sqlite3.OperationalError(message)
        for version, script in enumerate(scripts[applied:], start=applied + 1):
            _log.info("applying %s", script.name)
            for statement in _statements(script.read_text("utf-8")):
                connection.execute(statement)
            connection.execute(f"pragma user_version = {version}")


def _statements(script: str) -> Sequence[str]:
    """Split a script, because ``executescript`` would commit the transaction around it."""
    statements, pending = [], ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements


def _closed() -> EdgeError:
    return unavailable("The database is closed.")


def _as_edge_error(error: Exception) -> Exception:
    if not isinstance(error, sqlite3.Error):
        return error
    _log.error("the database failed: %s", error)
    return unavailable("The database is busy or cannot be written; try again.")
