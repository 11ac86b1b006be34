"""What must be done is done, whoever cancels, and however often it waits."""

import asyncio

import anyio
import pytest

from s3edge_postgres.ended import ended


pytestmark = pytest.mark.anyio


class Work:
    """Waits so often for a lock that somebody has, and may fail in the end."""

    def __init__(self, waits: int, error: Exception | None = None) -> None:
        self.lock = asyncio.Lock()
        self.is_done = False
        self._waits = waits
        self._error = error

    async def __call__(self) -> None:
        """Do it."""
        for _ in range(self._waits):
            async with self.lock:
                await asyncio.sleep(0)
        self.is_done = True
        if self._error is not None:
            raise self._error


@pytest.mark.parametrize("waits", [0, 1, 3])
async def test_it_is_done(waits: int) -> None:
    """With a wait or without."""
    work = Work(waits)
    await ended(work())
    assert work.is_done


@pytest.mark.parametrize("waits", [0, 1, 3])
async def test_what_it_raises_is_raised(waits: int) -> None:
    """Also behind a wait."""
    work = Work(waits, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await ended(work())


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("error", [None, ZeroDivisionError()])
async def test_a_cancellation_comes_after_it(times: int, error: Exception | None) -> None:
    """However often asyncio cancels; and then it is a cancellation, whatever the work raised."""
    work = Work(3, error)
    await work.lock.acquire()
    task = asyncio.create_task(ended(work()))
    await asyncio.sleep(0)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    work.lock.release()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.is_done


async def test_so_it_is_with_anyios_cancellation() -> None:
    """Which comes again and again."""
    work = Work(3)
    await work.lock.acquire()
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: ended(work()))
        with anyio.CancelScope(shield=True):
            await asyncio.sleep(0)
            group.cancel_scope.cancel()
            await asyncio.sleep(0)
            assert not work.is_done
            work.lock.release()
    assert work.is_done
