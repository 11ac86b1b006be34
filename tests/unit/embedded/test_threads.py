"""Blocking calls are waited for, however their caller is cancelled."""

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable

import anyio
import pytest

from s3edge.errors import Code, EdgeError
from s3edge_embedded.threads import Threads
from tests.waiting import WITHIN_S, until


pytestmark = pytest.mark.anyio

TURNS = 20
"""Of the event loop, which are more than any cancellation needs to arrive."""


ROUNDS = 50


class Value:
    """What a call returns."""


class Blocking:
    """A call that goes on until it may end."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.has_ended = False

    def __call__(self) -> str:
        """Wait."""
        self.begun.set()
        assert self.may_end.wait(WITHIN_S)
        self.has_ended = True
        return "done"

    async def has_begun(self) -> None:
        """Return when it has."""
        assert await asyncio.to_thread(self.begun.wait, WITHIN_S)


@pytest.fixture
async def blocking() -> AsyncIterator[Blocking]:
    """Return a call that ends with the test at the latest."""
    call = Blocking()
    yield call
    call.may_end.set()


async def turns() -> None:
    """Let the loop do what it can do without waiting."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("way", ["run", "run_anyway"])
async def test_a_call_that_has_begun_is_waited_for(
    blocking: Blocking, way: str, times: int
) -> None:
    """However often asyncio cancels, the caller goes on when the call has ended."""
    task = asyncio.create_task(getattr(Threads(1, "test"), way)(blocking))
    await blocking.has_begun()
    for _ in range(times):
        task.cancel()
        await turns()
    assert not task.done()
    blocking.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert blocking.has_ended


async def test_so_it_is_with_anyios_cancellation(blocking: Blocking) -> None:
    """It comes again and again, and must neither break the wait nor keep the loop busy."""
    threads = Threads(1, "test")
    async with anyio.create_task_group() as group:
        group.start_soon(threads.run, blocking)
        await blocking.has_begun()
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await turns()
        blocking.may_end.set()
    assert blocking.has_ended


async def test_a_call_that_waits_for_a_thread_is_given_up_or_not(blocking: Blocking) -> None:
    """It never begins when its caller is cancelled, unless it must."""
    threads = Threads(1, "test")
    done: list[str] = []
    first = asyncio.create_task(threads.run(blocking))
    await blocking.has_begun()
    given_up = asyncio.create_task(threads.run(done.append, "given up"))
    needed = asyncio.create_task(threads.run_anyway(done.append, "needed"))
    await turns()
    for task in (given_up, needed):
        task.cancel()
    await turns()
    assert given_up.cancelled()
    assert not needed.done()
    blocking.may_end.set()
    assert await first == "done"
    with pytest.raises(asyncio.CancelledError):
        await needed
    assert done == ["needed"]


class FailedError(Exception):
    """What a call raises."""

    @classmethod
    def happen(cls) -> None:
        """Raise one."""
        raise cls


async def raised_by(call: Awaitable[None]) -> FailedError:
    """Return what a call raises."""
    try:
        await call
    except FailedError as failed:
        return failed
    raise AssertionError("it did not fail")


async def test_as_many_calls_are_made_at_once_as_may_be() -> None:
    """Whatever came before: a thread that seems idle and is not would have a call wait for it."""
    for _ in range(ROUNDS):
        threads = Threads(4, "test")
        for _ in range(3):
            await asyncio.gather(*(threads.run(threading.get_ident) for _ in range(2)))
        meeting = threading.Barrier(4, timeout=WITHIN_S)
        await asyncio.gather(*(threads.run(meeting.wait) for _ in range(4)))


async def test_what_a_call_returned_is_kept_by_nobody() -> None:
    """A thread that is idle has no part of the calls that it made."""
    threads = Threads(1, "test")
    kept = weakref.WeakSet([await threads.run(Value) for _ in range(3)])
    await until(lambda: not kept)


async def test_what_a_call_raised_is_kept_by_nobody() -> None:
    """Nor does it keep itself, for the garbage collector to find: it has what was read and sent."""
    threads = Threads(1, "test")

    gc.disable()
    try:
        kept = weakref.WeakSet([await raised_by(threads.run(FailedError.happen))])
        await until(lambda: not kept)
    finally:
        gc.enable()


async def test_what_a_call_raises_is_raised() -> None:
    """Also what no coroutine and no future may raise, in another's clothes."""
    threads = Threads(1, "test")
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await threads.run(next, iter(()))


async def test_the_threads_end_with_their_object() -> None:
    """Nobody has to close it."""
    threads = Threads(2, "test")
    thread = await threads.run(threading.current_thread)
    del threads
    await asyncio.to_thread(thread.join, WITHIN_S)
    assert not thread.is_alive()


AT_EXIT = """
import asyncio, atexit, threading
from s3edge.errors import Code, EdgeError
from s3edge_embedded.threads import Threads
threads, loop = Threads(2, "test"), asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
def used():
    call = threads.run(threading.current_thread)
    print(asyncio.run_coroutine_threadsafe(call, loop).result(10).daemon, flush=True)
atexit.register(used)
used()
"""

FORKED = """
import asyncio, os
from s3edge.errors import Code, EdgeError
from s3edge_embedded.threads import Threads
threads = Threads(1, "test")
pids = [asyncio.run(threads.run(os.getpid))]
if os.fork():
    os.wait()
else:
    print(asyncio.run(threads.run(os.getpid)) == os.getpid() != pids[0], flush=True)
"""


@pytest.mark.parametrize(("program", "said"), [(AT_EXIT, "True\nTrue\n"), (FORKED, "True\n")])
async def test_they_serve_to_the_end_and_in_every_process(program: str, said: str) -> None:
    """A gateway drains when the interpreter ends; a forked one begins with threads of its own."""
    with anyio.fail_after(WITHIN_S):
        # Python warns of forks beside threads, and rightly; these ones hold nothing.
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
        ended = await anyio.run_process(command, check=False)
    assert (ended.stdout.decode(), ended.stderr.decode()) == (said, "")


async def test_without_a_thread_it_is_tried_again_later(
    blocking: Blocking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system gives none, a call waits for the threads there are, or never begins."""
    threads = Threads(2, "test")
    done: list[str] = []

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(EdgeError) as refused:
            await threads.run_anyway(done.append, "refused")
    assert refused.value.code is Code.SERVICE_UNAVAILABLE
    first = asyncio.create_task(threads.run(blocking))
    await blocking.has_begun()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        second = asyncio.create_task(threads.run(done.append, "waited"))
        await turns()
    blocking.may_end.set()
    assert await first == "done"
    await second
    assert done == ["waited"]
