"""How a process that serves comes to its end: nothing that was begun is dropped, and the status is 0."""

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from s3edge.cli.connections import CountedHttpProtocol


STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

OPEN_REQUESTS_S = 10
"""How long open requests may take to end on a stop; then running tasks have the gateway's own grace."""

LAST_REQUEST_S = 0.5
"""How long a connection that is idle on a stop is left open, for a request that is on its way."""


class DrainingHttpProtocol(CountedHttpProtocol):
    """A protocol that serves, on a stop, also what the client has sent and nobody has read yet."""

    _is_stopping = False

    def shutdown(self) -> None:
        """
        Hang up after the answer that is under way, or after the next, if it is asked for soon.

        uvicorn closes idle connections at once, and a request that is in the kernel's buffers with them.
        """
        if self.is_answering:
            super().shutdown()
            return
        self._is_stopping = True
        self.loop.call_later(LAST_REQUEST_S, super().shutdown)

    def on_headers_complete(self) -> None:
        """Tell the client when this is the last request of the connection."""
        super().on_headers_complete()
        if self._is_stopping:
            self.cycle.keep_alive = False


def exit_well_on_signals() -> None:
    """Let the signals that ask to stop end this process with status 0, where nothing else is set."""
    # uvicorn raises the signal again when it has stopped; that a stop worked is no failure.
    for number in STOP_SIGNALS:
        signal.signal(number, _exit_well)


@contextmanager
def called_on_stop(call: Callable[[], None]) -> Iterator[None]:
    """
    Call something in the event loop as soon as a signal asks to stop.

    A server waits for open requests before it ends the application's lifespan, so the application
    would hear of the stop only when the last of them has run out: the last long poll, say.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    servers_own = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def stop(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(call)
        handler = servers_own[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number in STOP_SIGNALS:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in servers_own.items():
            signal.signal(number, handler)


def stop_with_supervisor() -> None:
    """Stop this worker process in good order when the process that started it is gone, killed even."""
    supervisor = multiprocessing.parent_process()
    if supervisor is None:
        return

    def watch() -> None:
        supervisor.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="s3edge-supervisor-watch", daemon=True).start()


def _exit_well(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's signature
    sys.exit(0)
