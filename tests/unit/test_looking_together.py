"""Of those whom the same news woke, one reads for all."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid4

import anyio
import pytest
from anyio.abc import TaskStatus
from attrs import define, field

from s3edge.errors import Code, EdgeError, unavailable
from s3edge.signals import TaskSignals
from s3edge.values import Task
from s3edge.values import TaskStatus as Status


pytestmark = pytest.mark.anyio

TASK_ID, ALICE, BOB = uuid4(), uuid4(), uuid4()

NOW = datetime(2026, 1, 1, tzinfo=UTC)

FOREVER_S = 60.0


@define
class Shelf:
    """
    Holds the task, and answers when it may.

    Attributes:
        reads: How often it was asked.
        reader: What cancels the one who asked last.
        opened: Set when it may answer.
        refusals: What the next reads meet instead of the task, one each.
    """

    reads: int = 0
    reader: anyio.CancelScope | None = None
    opened: anyio.Event = field(factory=anyio.Event)
    refusals: list[EdgeError] = field(factory=list)

    async def read(self) -> Task:
        """Return the task as it is now."""
        self.reads += 1
        await self.opened.wait()
        if self.refusals:
            raise self.refusals.pop(0)
        return Task(
            id=TASK_ID,
            user_id=ALICE,
            project_id=None,
            source_image_url="https://s",
            text_prompt="a cat",
            status=Status.DONE,
            cost=1,
            created_at=NOW,
            updated_at=NOW,
        )


@define
class Waiter:
    """
    Waits for the task once, and looks.

    Attributes:
        told: What it found, or was refused with.
        scope: Cancels it.
    """

    signals: TaskSignals
    shelf: Shelf
    user_id: UUID = ALICE
    told: Task | Code | None = None
    scope: anyio.CancelScope = field(factory=anyio.CancelScope)

    async def __call__(self, *, task_status: TaskStatus[None]) -> None:
        """Watch, say so, wait and look."""
        with self.scope, self.signals.watch(TASK_ID) as news:
            task_status.started()
            await news.wait(FOREVER_S)
            try:
                self.told = await news.look(self.user_id, self._read)
            except EdgeError as error:
                self.told = error.code

    async def _read(self) -> Task:
        self.shelf.reader = self.scope
        return await self.shelf.read()


async def woken(waiters: Sequence[Waiter], shelf: Shelf, *, reader_leaves: bool = False) -> None:
    """Have waiters woken by one piece of news; the one who reads for all may leave meanwhile."""
    async with anyio.create_task_group() as group:
        for waiter in waiters:
            await group.start(waiter)
        waiters[0].signals.ended(TASK_ID)
        await anyio.wait_all_tasks_blocked()
        if reader_leaves and shelf.reader is not None:
            shelf.reader.cancel()
            await anyio.wait_all_tasks_blocked()
        shelf.opened.set()


async def test_one_reads_for_all() -> None:
    """However many wait."""
    signals, shelf = TaskSignals(), Shelf()
    waiters = [Waiter(signals, shelf) for _ in range(5)]
    await woken(waiters, shelf)
    assert shelf.reads == 1
    assert [isinstance(waiter.told, Task) for waiter in waiters] == [True] * 5


async def test_each_user_reads_for_themselves() -> None:
    """What one may see is not shown to another."""
    signals, shelf = TaskSignals(), Shelf()
    await woken([Waiter(signals, shelf, user_id) for user_id in (ALICE, BOB, ALICE)], shelf)
    assert shelf.reads == 2


async def test_when_the_reader_leaves_the_next_one_reads() -> None:
    """A client that hangs up takes nobody's answer away."""
    signals, shelf = TaskSignals(), Shelf()
    waiters = [Waiter(signals, shelf) for _ in range(3)]
    await woken(waiters, shelf, reader_leaves=True)
    assert shelf.reads == 2
    assert sorted(isinstance(waiter.told, Task) for waiter in waiters) == [False, True, True]


async def test_an_outage_is_everybodys() -> None:
    """Nobody waits for a database that another has just waited for in vain."""
    signals, shelf = TaskSignals(), Shelf(refusals=[unavailable("down")])
    waiters = [Waiter(signals, shelf) for _ in range(4)]
    await woken(waiters, shelf)
    assert shelf.reads == 1
    assert [waiter.told for waiter in waiters] == [Code.SERVICE_UNAVAILABLE] * 4


async def test_a_refusal_is_ones_own() -> None:
    """One token may have run out, and the others not."""
    signals, shelf = TaskSignals(), Shelf(refusals=[EdgeError(Code.AUTH_INVALID, "expired")])
    waiters = [Waiter(signals, shelf) for _ in range(3)]
    await woken(waiters, shelf)
    assert shelf.reads == 2
    assert [waiter.told for waiter in waiters if not isinstance(waiter.told, Task)] == [
        Code.AUTH_INVALID
    ]


async def test_later_news_are_looked_at_anew() -> None:
    """What was found before them may be out of date."""
    signals, shelf = TaskSignals(), Shelf()
    shelf.opened.set()
    with signals.watch(TASK_ID) as news:
        for reads in (1, 2):
            signals.ended(TASK_ID)
            await news.wait(FOREVER_S)
            await news.look(ALICE, shelf.read)
            assert shelf.reads == reads


async def test_without_news_everybody_looks_for_themselves() -> None:
    """Whose time is over has not heard of anything."""
    signals, shelf = TaskSignals(), Shelf()
    shelf.opened.set()
    with signals.watch(TASK_ID) as news, signals.watch(TASK_ID) as other:
        signals.ended(TASK_ID)
        for reads, watch in enumerate((news, other, news, other), start=1):
            await watch.wait(0.001)
            await watch.look(ALICE, shelf.read)
            assert shelf.reads == max(1, reads - 1)
