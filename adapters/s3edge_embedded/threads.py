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
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from threading import Semaphore, Thread
from typing import Any, TypeVar, TypeVarTuple

import anyio

from s3edge.errors import unavailable


T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Calls:
    """Calls that wait for a thread; the threads know nothing else, so they keep nothing alive."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle = Semaphore(0)

    def put(self, call: Callable[[], None]) -> bool:
        """Have a call made; return whether a thread is idle that can make it."""
        self._queue.put(call)
        return self._idle.acquire(blocking=False)

    def serve(self) -> None:
        """Make calls, in a thread, until the end."""
        while True:
            try:
                call = self._queue.get_nowait()
            except Empty:
                self._idle.release()
                call = self._queue.get()
            if call is None:
                return self.end()  # the next thread's turn
            call()
            del call

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
        call, ended = self._begin(function, *arguments)
        try:
            await ended.wait()
        except asyncio.CancelledError:
            if not call.cancel():
                await _end(ended)
            raise
        return call.result()

    async def run_anyway(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """
        Do the same, but have the call begin and end also when this is cancelled.

        Raises:
            EdgeError: As above.
            Exception: What the call raises, unless cancelled.
        """
        call, ended = self._begin(function, *arguments)
        cancellation = await _end(ended)
        if cancellation is not None:
            raise cancellation
        return call.result()

    def _begin(
        self, function: Callable[[*Ts], T], *arguments: *Ts
    ) -> tuple[Future[T], asyncio.Event]:
        """Return a call, and what is set at its end; no task, which the end of a loop would cancel."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def tell(_: Future[Any]) -> None:
            with suppress(RuntimeError):  # the loop was closed, so nobody waits
                loop.call_soon_threadsafe(ended.set)

        call: Future[T] = Future()
        call.add_done_callback(tell)
        if self._process != os.getpid():
            # A process that was forked has none of its parent's threads.
            self._end.detach()
            self._begin_anew()
        context = copy_context()
        if not self._calls.put(partial(_make, call, partial(context.run, function, *arguments))):
            self._add_thread(call)
        return call, ended

    def _add_thread(self, call: Future[Any]) -> None:
        """Have one more thread if there may be one; without any, take the call back."""
        if self._count == self._most:
            return
        try:
            Thread(target=self._calls.serve, name=self._name, daemon=True).start()
        except RuntimeError:
            if not self._count:
                call.cancel()
                raise unavailable("This server cannot begin another thread; try again.") from None
        else:
            self._count += 1


def _make(call: Future[T], function: Callable[[], T]) -> None:
    """Make a call that was not taken back."""
    if not call.set_running_or_notify_cancel():
        return
    try:
        value = function()
    except BaseException as error:  # noqa: BLE001 - raised again where the call was begun
        call.set_exception(error)
    else:
        call.set_result(value)


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
