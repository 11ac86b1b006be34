"""One SQLite file for many coroutines."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import frozen

from s3edge.errors import Code, EdgeError, invalid
from s3edge_embedded.database import MIGRATIONS
from s3edge_embedded.sqlite import MAX_BATCH, READERS, SqliteFile
from tests.waiting import WITHIN_S


pytestmark = pytest.mark.anyio


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[SqliteFile]:
    """Return an open file with a table of numbers."""
    async with SqliteFile(tmp_path / "deep" / "down" / "x.db", MIGRATIONS) as opened:
        await opened.write(lambda db: db.execute("create table numbers (n integer) strict"))
        yield opened


async def numbers(file: SqliteFile) -> list[int]:
    """Return what is in the table."""
    rows = await file.read("select n from numbers order by n")
    return [row["n"] for row in rows]


def insert(number: int, *, then: Exception | None = None) -> Callable[[sqlite3.Connection], int]:
    """Return an operation that writes a number, and may fail after that."""

    def operation(db: sqlite3.Connection) -> int:
        db.execute("insert into numbers values (?)", (number,))
        if then is not None:
            raise then
        return number

    return operation


async def test_writes_that_wait_together_fail_alone(file: SqliteFile) -> None:
    """One write's fault undoes that write and no other, whatever kind of fault it is."""
    faults = {
        7: invalid("n", "seven"),
        8: RuntimeError("eight"),
        9: sqlite3.OperationalError("nine"),
    }
    caught: dict[int, Exception] = {}
    written: list[int] = []

    async def write(number: int) -> None:
        try:
            written.append(await file.write(insert(number, then=faults.get(number))))
        except Exception as error:  # noqa: BLE001 - looked at below
            caught[number] = error

    async with anyio.create_task_group() as group:
        for number in range(MAX_BATCH + 50):
            group.start_soon(write, number)
    assert caught[7] is faults[7]
    assert caught[8] is faults[8]
    assert isinstance(caught[9], EdgeError)
    assert caught[9].code is Code.SERVICE_UNAVAILABLE
    assert "nine" not in str(caught[9])
    expected = [number for number in range(MAX_BATCH + 50) if number not in faults]
    assert sorted(written) == expected
    assert await numbers(file) == expected


async def test_a_cancelled_write_is_whole_or_absent(file: SqliteFile) -> None:
    """Those who are cancelled while they wait write nothing; the others are not disturbed."""
    async with anyio.create_task_group() as others:
        for number in range(20):
            others.start_soon(file.write, insert(number))
        async with anyio.create_task_group() as cancelled:
            for number in range(100, 120):
                cancelled.start_soon(file.write, insert(number))
            cancelled.cancel_scope.cancel()
    found = await numbers(file)
    assert [number for number in found if number < 100] == list(range(20))
    await file.write(insert(1000))
    assert (await numbers(file))[-1] == 1000


class Blocking:
    """Makes operations that have begun, and go on when they may."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self._begun = threading.Semaphore(0)

    def then(
        self, operation: Callable[[sqlite3.Connection], Any]
    ) -> Callable[[sqlite3.Connection], Any]:
        """Return an operation that waits before it does what another one does."""

        def blocking(db: sqlite3.Connection) -> Any:
            self._begun.release()
            assert self.may_end.wait(WITHIN_S)
            return operation(db)

        return blocking

    def value(self, meant: int) -> object:
        """Return what waits when a statement is given it, and is a number then."""
        return Waiting(self.then(lambda _: meant))

    async def have_begun(self, count: int) -> None:
        """Return when so many have."""
        for _ in range(count):
            assert await asyncio.to_thread(self._begun.acquire, timeout=WITHIN_S)


@frozen
class Waiting:
    """
    A value that is found when a statement takes it, in the thread that runs the statement.

    Attributes:
        find: Returns the value.
    """

    find: Callable[[Any], Any]

    def __conform__(self, _: object) -> Any:
        """Return the value, as sqlite3 asks for it."""
        return self.find(None)


@pytest.fixture
def blocking() -> Iterator[Blocking]:
    """Return what lets operations go on at the test's end at the latest."""
    made = Blocking()
    yield made
    made.may_end.set()


async def cancelled_by_asyncio(tasks: Sequence[asyncio.Task[Any]], times: int) -> None:
    """Cancel as ``asyncio.timeout`` does, where no shield of anyio's helps; let it arrive."""
    for _ in range(times):
        for task in tasks:
            task.cancel()
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.mark.parametrize("times", [1, 3])
async def test_a_batch_outlives_its_leader(
    file: SqliteFile, blocking: Blocking, times: int
) -> None:
    """Who shares a commit with a write that asyncio cancels is answered when it is on disk."""
    leader = asyncio.create_task(file.write(blocking.then(insert(1))))
    other = asyncio.create_task(file.write(insert(2)))
    await blocking.have_begun(1)
    next_one = asyncio.create_task(file.write(insert(3)))
    await cancelled_by_asyncio([leader], times)
    assert not other.done()
    blocking.may_end.set()
    assert [await other, await next_one] == [2, 3]
    with pytest.raises(asyncio.CancelledError):
        await leader
    assert await numbers(file) == [1, 2, 3]


async def test_a_batch_that_never_began_has_failed_for_everybody(
    file: SqliteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever kept it from that, no write of it may be taken for one that was made."""

    async def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(file._write_thread, "run_anyway", fail)
        writes = [file.write(insert(number)) for number in range(3)]
        ended = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(error) for error in ended] == [MemoryError] * 3
    assert await numbers(file) == []


@pytest.mark.parametrize("times", [1, 3])
async def test_cancelled_reads_keep_their_connections(
    file: SqliteFile, blocking: Blocking, times: int
) -> None:
    """They end before the next one begins, so that there is a connection for it."""
    await file.write(insert(1))
    reads = [
        asyncio.create_task(file.read("select ?", [blocking.value(1)])) for _ in range(READERS)
    ]
    await blocking.have_begun(READERS)
    await cancelled_by_asyncio(reads, times)
    next_one = asyncio.create_task(numbers(file))
    await asyncio.sleep(0)
    assert not any(read.done() for read in reads)
    blocking.may_end.set()
    assert await next_one == [1]
    for read in reads:
        with pytest.raises(asyncio.CancelledError):
            await read


async def test_a_reader_cannot_write(file: SqliteFile) -> None:
    """A read that tries to is refused, and the file is as it was."""
    with pytest.raises(EdgeError):
        await file.read("insert into numbers values (1)")
    assert await numbers(file) == []


async def test_a_file_of_a_newer_version_is_not_touched(tmp_path: Path) -> None:
    """An older program says what to do instead of writing into what it does not know."""
    path = tmp_path / "x.db"
    connection = sqlite3.connect(path)
    connection.execute("pragma user_version = 999")
    connection.close()
    with pytest.raises(EdgeError, match="newer version"):
        await SqliteFile(path, MIGRATIONS).__aenter__()


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    """The start stops with the path in its message."""
    path = tmp_path / "x.db"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(EdgeError, match=r"x\.db"):
        await SqliteFile(path, MIGRATIONS).__aenter__()


async def test_migrations_are_applied_once(tmp_path: Path) -> None:
    """Opening again, also twice at once, leaves the data as it is."""
    path = tmp_path / "x.db"
    async with SqliteFile(path, MIGRATIONS) as first:
        await first.write(
            lambda db: db.execute("insert into users_profile values ('u', 5, 5, 0, 0)")
        )
        async with SqliteFile(path, MIGRATIONS) as second:
            rows = await second.read("select credits from users_profile")
            assert [row["credits"] for row in rows] == [5]


def open_files() -> set[Path]:
    """Return what this process has open."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            found.add(descriptor.readlink())
    return found


async def test_a_closed_file_says_so(tmp_path: Path) -> None:
    """A read or a write after the end is refused, instead of waiting for ever or being lost."""
    file = SqliteFile(tmp_path / "x.db", MIGRATIONS)
    async with file:
        pass
    with pytest.raises(EdgeError, match="closed"):
        await file.read("select 1")
    with pytest.raises(EdgeError, match="closed"):
        await file.write(lambda db: db.execute("select 1"))


async def test_the_end_waits_for_reads(tmp_path: Path, blocking: Blocking) -> None:
    """What is being read is read, and no connection stays open."""
    path = tmp_path / "x.db"
    async with SqliteFile(path, MIGRATIONS) as file:
        reads = [
            asyncio.create_task(file.read("select ? as n", [blocking.value(7)]))
            for _ in range(READERS)
        ]
        await blocking.have_begun(READERS)
        assert path in open_files()
        asyncio.get_running_loop().call_soon(blocking.may_end.set)
    assert [(await read)[0]["n"] for read in reads] == [7] * READERS
    assert path not in open_files()
