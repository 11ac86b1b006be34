"""
Threads for blocking calls on shared state, which are waited for to their end.

anyio's worker threads are so too when anyio cancels, but not when asyncio does (``Task.cancel``, and so
``asyncio.timeout`` and a server that is out of patience): then the caller goes on while the call runs.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar, TypeVarTuple

import anyio


T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Threads:
    """
    A number of threads, which begin when they are needed and end with this object.

    Args:
        most: How many; further calls wait for one, in order.
        name: What they are called, for whoever looks at the process.
    """

    def __init__(self, most: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(most, thread_name_prefix=name)

    async def run(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """
        Return what a call returns.

        When this is cancelled, a call that has begun is waited for first, and one that has not never
        begins.

        Raises:
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

        call = self._executor.submit(partial(copy_context().run, function, *arguments))
        call.add_done_callback(tell)
        return call, ended


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
