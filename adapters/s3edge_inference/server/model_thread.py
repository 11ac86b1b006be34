"""A thread for calls that may never return."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from s3edge_inference.raisable import raisable


T = TypeVar("T")


class ModelThread:
    """
    Runs calls one after the other, always in the same thread, as drivers of GPUs like it best.

    It is a daemon: neither a stop nor the end of the process waits for a GPU that hangs. anyio's worker
    threads are joined at the end of the process, whatever was abandoned.

    Args:
        name: Of the thread, for whoever looks at the process.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._thread: Thread | None = None
        self._is_running = False

    @property
    def is_busy(self) -> bool:
        """Whether a call runs or waits."""
        return self._is_running or not self._calls.empty()

    async def run(self, call: Callable[[], T]) -> T:
        """
        Return what a call returns; when this is cancelled, a call that has begun goes on alone.

        Raises:
            RuntimeError: The call raised what only a thread or a loop may end with; that is the cause.
        """
        if self._thread is None:
            self._thread = Thread(target=self._serve, name=self._name, daemon=True)
            self._thread.start()
        future: Future[T] = Future()
        self._calls.put((call, future))
        return await asyncio.wrap_future(future)

    def _serve(self) -> None:
        while True:
            call, future = self._calls.get()
            if not future.set_running_or_notify_cancel():
                continue
            self._is_running = True
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - it belongs to who called
                self._is_running = False
                future.set_exception(raisable(error))
            else:
                self._is_running = False
                future.set_result(result)
            # Images are large: nothing is kept until the next call comes.
            del call, future
