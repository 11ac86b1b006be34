"""
Threads for blocking calls on shared state, which are waited for to their end.

anyio's worker threads are so too when anyio cancels, but not when asyncio does (``Task.cancel``, and so
``asyncio.timeout`` and a server that is out of patience): then the caller goes on while the call runs.
``ThreadPoolExecutor`` takes no call any more when an interpreter ends, and that is when a WSGI server's
gateway drains: in ``atexit``.
"""

import asyncio
import os
import weakref
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, Generic, TypeVar, TypeVarTuple, cast

import anyio

from s3edge.errors import unavailable


T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Call(Generic[T]):
    """
    A call that waits for a thread. Begun on an event loop.

    A future of ``concurrent.futures`` would do, with a condition and its locks for each of its steps.

    Attributes:
        ended: Set on the loop when the call has been made.
    """

    def __init__(self, function: Callable[[*Ts], T], *arguments: *Ts) -> None:
        self.ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()
        self._function = function
        self._arguments = arguments
        self._fate = Lock()
        self._value: T | None = None
        self._error: BaseException | None = None

    def take_back(self) -> bool:
        """Return whether the call is never made: no thread had begun with it."""
        return self._fate.acquire(blocking=False)

    def make(self) -> None:
        """Make the call, in a thread, if it was not taken back."""
        if not self._fate.acquire(blocking=False):
            return
        try:
            self._value = self._context.run(self._function, *self._arguments)
        except BaseException as error:  # noqa: BLE001 - raised again where the call was begun
            self._error = error
        with suppress(RuntimeError):  # the loop was closed, so nobody waits
            self._loop.call_soon_threadsafe(self.ended.set)

    def result(self) -> T:
        """Return what the call returned, or raise what it raised: once, when it has ended."""
        error, self._error = self._error, None
        if error is None:
            return cast("T", self._value)
        try:
            raise error
        finally:
            # Its traceback has this frame and the caller's, which must not have it in their turn.
            del error


class _Calls:
    """Calls that wait for a thread; the threads know nothing else, so they keep nothing alive."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[_Call[Any] | None] = SimpleQueue()
        self._idle: SimpleQueue[None] = SimpleQueue()

    def put(self, call: _Call[Any]) -> None:
        """Have a call made by one of the threads."""
        self._queue.put(call)

    def claim_idle(self) -> bool:
        """Return whether a thread is idle; if so, the next call is for it."""
        try:
            self._idle.get_nowait()
        except Empty:
            return False
        return True

    def serve(self, first: list[_Call[Any]]) -> None:
        """Make the first call, in a thread, and others until the end."""
        # Taken out of the list, because the thread keeps what it is begun with.
        call: _Call[Any] | None = first.pop()
        while call is not None:
            call.make()
            del call
            try:
                call = self._queue.get_nowait()
            except Empty:
                self._idle.put(None)
                call = self._queue.get()
        self.end()  # the next thread's turn

    def end(self) -> None:
        """Have the threads end."""
        self._queue.put(None)


class Threads:
    """
    A number of threads, which begin when they are needed and end with this object.

    Calls are begun by one event loop at a time. The end of a process does not wait for the threads; who
    awaits a call does.

    Args:
        most: How many; further calls wait for one, in order.
        name: What they are called, for whoever looks at the process.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._process = os.getpid()
        self._calls = _Calls()
        self._count = 0
        self._end = weakref.finalize(self, self._calls.end)
        # What drains at the end of the process needs them still.
        self._end.atexit = False

    async def run(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """
        Return what a call returns.

        When this is cancelled, a call that has begun is waited for first, and one that has not never
        begins.

        Raises:
            EdgeError: ``SERVICE_UNAVAILABLE``: there is no thread, and none can be had.
            Exception: What the call raises.
        """
        call = self._begin(function, *arguments)
        try:
            await call.ended.wait()
        except asyncio.CancelledError:
            if not call.take_back():
                await _end(call.ended)
            raise
        return call.result()

    async def run_anyway(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """
        Do the same, but have the call begin and end also when this is cancelled.

        Raises:
            EdgeError: As above.
            Exception: What the call raises, unless cancelled.
        """
        call = self._begin(function, *arguments)
        cancellation = await _end(call.ended)
        if cancellation is not None:
            raise cancellation
        return call.result()

    def _begin(self, function: Callable[[*Ts], T], *arguments: *Ts) -> _Call[T]:
        """Return a call that waits for a thread; no task, which the end of a loop would cancel."""
        if self._process != os.getpid():
            # A process that was forked has none of its parent's threads.
            self._end.detach()
            self._begin_anew()
        call = _Call(function, *arguments)
        if self._calls.claim_idle() or not self._begin_thread(call):
            self._calls.put(call)
        return call

    def _begin_thread(self, first: _Call[Any]) -> bool:
        """Begin one more thread with a call; return whether there is a thread to be had for it."""
        if self._count == self._most:
            return False
        try:
            Thread(target=self._calls.serve, args=([first],), name=self._name, daemon=True).start()
        except RuntimeError:
            if not self._count:
                raise unavailable("This server cannot begin another thread; try again.") from None
            return False
        self._count += 1
        return True


async def _end(ended: asyncio.Event) -> asyncio.CancelledError | None:
    """Wait for the end of a call; return the last cancellation that came meanwhile."""
    cancellation = None
    with anyio.CancelScope(shield=True):
        while not ended.is_set():
            try:
                await ended.wait()
            except asyncio.CancelledError as error:
                cancellation = error
    return cancellation
