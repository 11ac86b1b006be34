"""Time is the test's, on event loops and for clients."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any, TypeAlias

import anyio
import pytest
from anyio import to_thread

from s3edge.testing import ManualClock
from s3edge.testing.clock import START


LIMIT_S = 30
"""How long a test waits, in real time, for what is to happen at once."""

Run: TypeAlias = Callable[[Coroutine[Any, Any, Any]], Future[Any]]


@pytest.fixture
def clock() -> ManualClock:
    """Return a clock that stands at its start."""
    return ManualClock()


@pytest.fixture
def run(clock: ManualClock) -> Iterator[Run]:
    """Run coroutines on a loop of the clock's, in another thread."""
    loop = clock.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield lambda work: asyncio.run_coroutine_threadsafe(work, loop)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(LIMIT_S)
    loop.close()


def test_what_is_due_happens_at_its_own_time(clock: ManualClock, run: Run) -> None:
    """Steps of different lengths, each at the second that it asked for, by one move of the time."""
    seen: list[tuple[str, float]] = []

    async def every(name: str, seconds: float) -> None:
        while True:
            await anyio.sleep(seconds)
            seen.append((name, clock.elapsed_s))

    works = [run(every("a", 4)), run(every("b", 10))]
    clock.advance(20)
    assert seen == [("a", 4), ("a", 8), ("b", 10), ("a", 12), ("a", 16), ("b", 20), ("a", 20)]
    assert clock.now() == START + timedelta(seconds=20)
    for each in works:
        each.cancel()
    clock.settle()


def test_no_time_passes_by_itself(clock: ManualClock, run: Run) -> None:
    """A loop at rest waits for the test, and for nothing else."""
    work = run(anyio.sleep(0.001))
    clock.settle()
    clock.settle()
    assert not work.done()
    clock.advance(0.001)
    assert work.result(LIMIT_S) is None


def test_time_jumps_for_somebody_who_waits(clock: ManualClock, run: Run) -> None:
    """Just as far as they wait, and time-outs with it."""

    async def patient() -> float:
        with clock.waiting():
            with anyio.move_on_after(90):
                await anyio.Event().wait()
            return clock.elapsed_s

    assert run(patient()).result(LIMIT_S) == 90
    assert clock.elapsed_s == 90


def test_time_stands_still_when_told_to(clock: ManualClock, run: Run) -> None:
    """Whoever waits does so until the test has moved the time, and jumps again afterwards."""

    async def patient() -> None:
        with clock.waiting():
            await anyio.sleep(90)

    with clock.standing_still():
        work = run(patient())
        clock.advance(89)
        assert not work.done()
        clock.advance(1)
        assert work.result(LIMIT_S) is None
        work = run(patient())
        clock.settle()
        assert not work.done()
    assert work.result(LIMIT_S) is None
    assert clock.elapsed_s == 180


def test_a_busy_thread_is_no_rest(clock: ManualClock, run: Run) -> None:
    """Time does not jump over what is being done in a worker thread, anyio's or asyncio's."""
    for in_thread in (to_thread.run_sync, asyncio.to_thread):
        begun, go_on = threading.Event(), threading.Event()

        def work(begun: threading.Event = begun, go_on: threading.Event = go_on) -> bool:
            begun.set()
            return go_on.wait(LIMIT_S)

        async def worker(in_thread: Any = in_thread, work: Callable[[], bool] = work) -> float:
            asyncio.get_running_loop().workers = (  # type: ignore[attr-defined]
                to_thread.current_default_thread_limiter()
            )
            with clock.waiting(), anyio.fail_after(60):
                assert await in_thread(work)
                return clock.elapsed_s

        working = run(worker())
        assert begun.wait(LIMIT_S)
        with ThreadPoolExecutor() as pool:
            settled = pool.submit(clock.settle)
            go_on.set()
            settled.result(LIMIT_S)
        assert working.result(LIMIT_S) == 0


def test_pauses_take_no_time(clock: ManualClock) -> None:
    """They are noted, and the clock has moved."""
    around = clock.surroundings()
    around.sleep(42)
    asyncio.run(around.async_sleep(0.5))  # type: ignore[arg-type]
    assert clock.pauses == [42, 0.5]
    assert around.monotonic() == clock.elapsed_s == 42.5
    assert around.now() == START + timedelta(seconds=42.5)


def test_pauses_last_while_time_stands_still(clock: ManualClock) -> None:
    """Until the test has moved the time on."""
    with clock.standing_still(), ThreadPoolExecutor() as pool:
        pause = pool.submit(clock.surroundings().sleep, 42)
        ends_at = time.monotonic() + LIMIT_S
        while not clock.pauses and time.monotonic() < ends_at:
            time.sleep(0.001)
        clock.advance(41)
        assert not pause.done()
        clock.advance(1)
        pause.result(LIMIT_S)
    assert clock.elapsed_s == 42


@pytest.mark.parametrize("clock", [ManualClock(patience_s=0.05)])
def test_what_never_rests_is_said(clock: ManualClock, run: Run) -> None:
    """Instead of a test that hangs."""
    stop = threading.Event()

    async def restless() -> None:
        while not stop.is_set():
            await asyncio.sleep(0)

    work = run(restless())
    with pytest.raises(RuntimeError, match=r"has not come to rest in 0\.05 s"):
        clock.settle()
    stop.set()
    work.result(LIMIT_S)
    with (
        clock.standing_still(),
        pytest.raises(RuntimeError, match="pauses for 42 s of a time that nobody moves on"),
    ):
        clock.surroundings().sleep(42)


def test_a_loop_that_has_ended_is_at_rest(clock: ManualClock) -> None:
    """Nobody waits for it, nor for what it was asked at the end."""
    loop = clock.new_event_loop()
    asked: list[Future[None]] = []

    async def last() -> None:
        asked.append(loop.at_rest())  # type: ignore[attr-defined]

    loop.run_until_complete(last())
    loop.close()
    assert asked[0].result(LIMIT_S) is None
    clock.advance(1)
    assert clock.elapsed_s == 1
