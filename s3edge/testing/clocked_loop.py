"""An event loop on which time is a test's."""

import asyncio
import selectors
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Protocol, TypeVar, TypeVarTuple, Unpack

from anyio import CapacityLimiter


T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class LoopTime(Protocol):
    """What such a loop asks of whoever moves the time."""

    elapsed_s: float

    def enter(self, loop: "ClockedLoop") -> None:
        """Take note that a loop runs."""

    def leave(self, loop: "ClockedLoop") -> None:
        """Take note that it does not run any more."""

    def jump(self, loop: "ClockedLoop") -> bool:
        """Move on to when a loop has something to do next, or say that it has to wait."""


class ClockedLoop(asyncio.SelectorEventLoop):
    """
    asyncio's loop, but for the time: what is due in a minute runs when a test says that it has passed.

    It is at rest when nothing is left to do but to wait: for time, or for somebody else.

    Args:
        time: Who moves the time.

    Attributes:
        thread: Where it runs, as ``threading.get_ident`` has it.
        due_s: When something is due, as of its last rest, in seconds of ``time``.
        workers: The threads that what runs here uses; while one is busy, this is not at rest.
    """

    def __init__(self, time: LoopTime) -> None:
        self._time = time
        self._asked: list[Future[None]] = []
        # Those among them of which the loop has not heard yet, too.
        self._unanswered: set[Future[None]] = set()
        self._executing = 0
        self.thread: int | None = None
        self.due_s = float("inf")
        self.workers: CapacityLimiter | None = None
        super().__init__(_RestingSelector(self._rest))

    def time(self) -> float:
        """Return the seconds since the beginning."""
        return self._time.elapsed_s

    def run_forever(self) -> None:
        """Run until it is stopped."""
        self.thread = threading.get_ident()
        self._time.enter(self)
        try:
            super().run_forever()
        finally:
            self._time.leave(self)
            # What has ended is at rest.
            self._answer(list(self._unanswered))

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run in a thread."""
        future = super().run_in_executor(executor, func, *args)
        self._executing += 1
        future.add_done_callback(self._executed)
        return future

    def wake(self) -> None:
        """Have it look at the time again; any thread may call this."""
        self.call_soon_threadsafe(_nothing)

    def at_rest(self) -> Future[None]:
        """Return what is done when the loop has come to rest; any thread may call this."""
        asked: Future[None] = Future()
        self._unanswered.add(asked)
        self.call_soon_threadsafe(self._ask, asked)
        return asked

    def _ask(self, asked: Future[None]) -> None:
        self._asked.append(asked)

    def _rest(self, timeout_s: float | None) -> bool:
        """Return whether to look at the time again, instead of waiting to be woken."""
        if self._executing or (self.workers is not None and self.workers.borrowed_tokens):
            return False
        self.due_s = float("inf") if timeout_s is None else self.time() + timeout_s
        if timeout_s is not None and self._time.jump(self):
            return True
        self._answer(self._asked)
        return False

    def _answer(self, asked: list[Future[None]]) -> None:
        self._asked = []
        for each in asked:
            self._unanswered.discard(each)
            each.set_result(None)

    def _executed(self, _: object) -> None:
        self._executing -= 1


class _RestingSelector(selectors.DefaultSelector):
    """
    Waits for events as ever; what would wait for time asks first.

    Args:
        rest: Told how long nothing is due (``None``: ever); returns whether not to wait.
    """

    def __init__(self, rest: Callable[[float | None], bool]) -> None:
        super().__init__()
        self._rest = rest

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready."""
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0) or self._rest(timeout):
            return ready
        return super().select(None)


def _nothing() -> None:
    """Do nothing, on the loop."""
