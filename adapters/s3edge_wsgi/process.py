"""
The event loop of one process, with the gateway open on it.

It starts with the first request, in the process that serves it: threads do not survive a ``fork``, and a
loop that was started before hangs in the child. A child that is forked later forgets its parent's.
"""

import asyncio
import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any

from anyio.abc import TaskStatus
from anyio.from_thread import BlockingPortal, start_blocking_portal
from attrs import frozen

from s3edge.web.app import WebApp
from s3edge_wsgi.serving import Serving


_log = logging.getLogger(__name__)


class Closed(Exception):  # noqa: N818 - a state, not a fault
    """The door was closed in this process, and does not open again."""


class CouldNotOpen(Exception):  # noqa: N818 - a state; the fault itself is in the log
    """The gateway did not open; the next request tries again."""


@frozen
class _Held:
    """What serves in one process, and how it is ended."""

    pid: int
    serving: Serving
    ended: Future[None]
    portal: BlockingPortal
    stack: ExitStack

    @property
    def is_here(self) -> bool:
        """Whether this process is the one, and it has not ended."""
        return self.pid == os.getpid() and not self.ended.done()


_processes: "weakref.WeakSet[Process]" = weakref.WeakSet()

_left_behind: list[_Held] = []
"""Loops of the process that this one was forked from; to collect them would disturb it."""


class Process:
    """
    Starts and ends the loop of the process that it is used in.

    Args:
        make_web: Returns what to serve; called in the process that serves.
        new_event_loop: Makes the loop; by default uvloop's, where that is there.
    """

    def __init__(
        self,
        make_web: Callable[[], WebApp],
        new_event_loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> None:
        self._make_web = make_web
        self._loop_options: dict[str, Any] = (
            {"use_uvloop": find_spec("uvloop") is not None}
            if new_event_loop is None
            else {"loop_factory": new_event_loop}
        )
        self._held: _Held | None = None
        self._is_closed = False
        self._lock = threading.Lock()
        _processes.add(self)
        atexit.register(_close, weakref.ref(self))

    def serving(self) -> Serving:
        """
        Return what serves in this process; start it, if need be.

        Raises:
            Closed: ``close`` was called.
            CouldNotOpen: What kept it from opening is in the log.
        """
        held = self._held
        if held is not None and held.is_here:
            return held.serving
        # Not only under the lock, which ``close`` has until all is drained.
        self._check_open()
        with self._lock:
            self._check_open()
            if self._held is None or not self._held.is_here:
                try:
                    # One that ended by itself says here why, and so in the log.
                    self._let_go()
                    self._held = self._started()
                except Exception as error:
                    _log.exception("the gateway could not be opened; the next request tries again")
                    raise CouldNotOpen from error
            return self._held.serving

    def stop_waiting(self) -> None:
        """Answer all long polls now; a signal handler may call it."""
        held = self._held
        if held is not None and held.is_here:
            held.serving.stop_waiting()

    def close(self) -> None:
        """Let requests end, drain the gateway, and end the loop; nothing is served afterwards."""
        self._is_closed = True
        with self._lock:
            self._let_go()

    def forget(self) -> None:
        """Forget the loop, and who had the lock: both belong to the process that this was forked from."""
        if self._held is not None:
            _left_behind.append(self._held)
        self._held = None
        self._is_closed = False
        self._lock = threading.Lock()

    def _check_open(self) -> None:
        if self._is_closed:
            raise Closed

    def _started(self) -> _Held:
        web = self._make_web()
        with ExitStack() as stack:
            portal = stack.enter_context(
                start_blocking_portal("asyncio", self._loop_options, name="s3edge-loop")
            )
            ended, serving = portal.start_task(_serve, web)
            return _Held(os.getpid(), serving, ended, portal, stack.pop_all())

    def _let_go(self) -> None:
        held, self._held = self._held, None
        if held is None:
            return
        if held.pid != os.getpid():
            # Forked without Python's knowledge, so that its hooks were not run.
            _left_behind.append(held)
            return
        try:
            with held.stack:
                if not held.ended.done():
                    held.portal.call(held.serving.stop)
                held.ended.result()
        except CancelledError:
            _log.error("the event loop was ended from within, as by sys.exit()")
        finally:
            held.serving.refuse_rest()


async def _serve(web: WebApp, *, task_status: TaskStatus[Serving]) -> None:
    """Hold the gateway open, and serve requests on this loop, until it is stopped."""
    async with web.gateway.running():
        serving = Serving(web)
        try:
            task_status.started(serving)
            await serving.until_stopped()
        finally:
            await serving.end()


def _close(reference: "weakref.ref[Process]") -> None:
    process = reference()
    if process is not None:
        process.close()


def _forget_all() -> None:
    for process in _processes:
        process.forget()


os.register_at_fork(after_in_child=_forget_all)
