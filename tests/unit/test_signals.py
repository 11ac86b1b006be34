"""Waking those who wait for a task's end."""

from typing import Any
from uuid import UUID

import anyio
import pytest
from anyio.abc import TaskStatus
from anyio.lowlevel import checkpoint

from s3edge.signals import TaskSignals


pytestmark = pytest.mark.anyio

FIRST = UUID("1a9e0000-0000-4000-8000-000000000001")
SECOND = UUID("1a9e0000-0000-4000-8000-000000000002")

FOREVER_S = 10_000.0


@pytest.fixture(scope="module")
def anyio_backend(jumping_loop: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Let time pass at once."""
    return jumping_loop


class Waiter:
    """Waits for one task once, and remembers what it was told."""

    def __init__(self, signals: TaskSignals, task_id: UUID) -> None:
        self._signals = signals
        self._task_id = task_id
        self.told: bool | None = None

    async def __call__(self, *, task_status: TaskStatus[None]) -> None:
        """Watch, say so, and wait."""
        with self._signals.watch(self._task_id) as news:
            task_status.started()
            self.told = await news.wait(FOREVER_S)


async def test_the_end_of_a_task_wakes_everybody_who_watches_it() -> None:
    """All waiters of one task are woken at once, and waiting on makes sense for them."""
    signals = TaskSignals()
    waiters = [Waiter(signals, FIRST) for _ in range(3)]
    began = anyio.current_time()

    async with anyio.create_task_group() as group:
        for waiter in waiters:
            await group.start(waiter)
        signals.ended(FIRST)

    assert [waiter.told for waiter in waiters] == [True, True, True]
    assert anyio.current_time() == began


async def test_the_end_of_another_task_wakes_nobody() -> None:
    """News of one task is no news of another."""
    signals = TaskSignals()
    waiter = Waiter(signals, FIRST)

    async with anyio.create_task_group() as group:
        await group.start(waiter)
        signals.ended(SECOND)
        for _ in range(5):
            await checkpoint()
        assert waiter.told is None
        signals.ended(FIRST)


async def test_an_end_between_the_watch_and_the_wait_is_heard() -> None:
    """A waiter that looked first and waits afterwards misses nothing."""
    signals = TaskSignals()
    began = anyio.current_time()

    with signals.watch(FIRST) as news:
        signals.ended(FIRST)
        assert await news.wait(FOREVER_S)

    assert anyio.current_time() == began


async def test_an_end_is_heard_once() -> None:
    """A waiter that finds its task open all the same waits again, instead of asking on and on."""
    signals = TaskSignals()

    with signals.watch(FIRST) as news:
        signals.ended(FIRST)
        await news.wait(FOREVER_S)
        began = anyio.current_time()
        assert await news.wait(7.0)
        assert anyio.current_time() == began + 7.0
        signals.ended(FIRST)
        assert await news.wait(FOREVER_S)
        assert anyio.current_time() == began + 7.0


async def test_without_news_the_wait_ends_in_time() -> None:
    """A wait ends after its time, and waiting on still makes sense: ends elsewhere are not heard."""
    signals = TaskSignals()
    began = anyio.current_time()

    with signals.watch(FIRST) as news:
        assert await news.wait(3.0)

    assert anyio.current_time() == began + 3.0


async def test_closing_wakes_everybody_for_good() -> None:
    """When the process stops, all waits end and nobody waits again."""
    signals = TaskSignals()
    waiters = [Waiter(signals, task_id) for task_id in (FIRST, SECOND)]
    began = anyio.current_time()

    async with anyio.create_task_group() as group:
        for waiter in waiters:
            await group.start(waiter)
        assert not signals.is_closed
        signals.close()

    assert signals.is_closed
    assert [waiter.told for waiter in waiters] == [False, False]
    with signals.watch(FIRST) as late:
        assert not await late.wait(FOREVER_S)
    assert anyio.current_time() == began


async def test_one_waiter_leaving_does_not_silence_the_others() -> None:
    """A client that hangs up takes nobody's news away."""
    signals = TaskSignals()
    stays = Waiter(signals, FIRST)

    async with anyio.create_task_group() as group:
        await group.start(stays)
        with signals.watch(FIRST):
            pass
        signals.ended(FIRST)

    assert stays.told is True


async def test_a_cancelled_waiter_leaves_nothing_behind() -> None:
    """Watches of clients that went away do not pile up."""
    signals = TaskSignals()

    async with anyio.create_task_group() as group:
        await group.start(Waiter(signals, FIRST))
        await group.start(Waiter(signals, SECOND))
        group.cancel_scope.cancel()

    assert signals._watches == {}


def test_an_end_that_nobody_watches_is_no_error() -> None:
    """Tasks end whether or not somebody waits for them."""
    signals = TaskSignals()

    signals.ended(FIRST)
    signals.close()
    signals.ended(FIRST)
