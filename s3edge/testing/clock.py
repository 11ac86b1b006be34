"""Time that a test moves: for ports, for clients, and for the event loops that a deployment runs on."""

import asyncio
import threading
from collections.abc import Generator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for_all
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from s3edge.client import Surroundings
from s3edge.testing.clocked_loop import ClockedLoop


START = datetime(2026, 1, 1, 12, tzinfo=UTC)
"""Any time would do; one that is always the same makes failures repeat."""

PATIENCE_S = 30.0
"""How long a deployment may take to come to rest, in real time; the slowest takes milliseconds."""


class ManualClock:
    """
    A ``Clock`` for tests, so that no test waits for time to pass.

    Time passes by ``advance``, by the pauses of clients that have its ``surroundings``, and when a
    request to a deployment on one of its loops waits for nothing but time: then it jumps to what is due
    next. Whatever is due on the way happens at its own time.

    Args:
        start: The first time it tells, aware and in UTC.
        chance: As below.
        patience_s: How long, in real time, something may go on before a test is told so.

    Attributes:
        elapsed_s: How long it has been since the start, in seconds.
        chance: What every draw of a number from 0 to 1 gives; it spreads retries.
        pauses: How long each pause of a client was, in seconds, in order.
    """

    def __init__(
        self, start: datetime = START, *, chance: float = 1.0, patience_s: float = PATIENCE_S
    ) -> None:
        self._start = start
        self._patience_s = patience_s
        self._moved = threading.Condition()
        self._loops: list[ClockedLoop] = []
        self._waiting = 0
        self._closing = 0
        self._stands_still = False
        self._target_s = 0.0
        self.elapsed_s = 0.0
        self.chance = chance
        self.pauses: list[float] = []

    def now(self) -> datetime:
        """Implement ``Clock``."""
        return self._start + timedelta(seconds=self.elapsed_s)

    def advance(self, seconds: float) -> None:
        """
        Move on by so many seconds; return when all that was due meanwhile has happened.

        Raises:
            RuntimeError: A deployment does not come to rest.
            ValueError: They are less than none.
        """
        if not seconds >= 0:
            message = f"time does not go back: advance by 0 s or more, not by {seconds:g}"
            raise ValueError(message)
        self.settle()
        with self._moved:
            target_s = self.elapsed_s + seconds
            self._target_s = max(self._target_s, target_s)
            self._wake()
        # The loops move on by themselves to whatever is due until then.
        self.settle()
        self._move_to(target_s)
        self.settle()

    async def sleep(self, seconds: float) -> None:
        """Move on by so many seconds, in the form in which harnesses take it."""
        self.advance(seconds)

    def settle(self) -> None:
        """
        Return when deployments have done all that can be done without time or a test going on.

        Raises:
            RuntimeError: One does not come to rest.
        """
        resting = self._resting()
        done, going_on = wait_for_all(resting, self._patience_s)
        if going_on:
            message = (
                f"a deployment has not come to rest in {self._patience_s:g} s: something goes on"
            )
            raise RuntimeError(message)
        for each in done:
            each.result()

    @contextmanager
    def standing_still(self) -> Generator[None, None, None]:
        """
        Let no time pass within this context but by ``advance``.

        For tests in which somebody waits in another thread or task while the test goes on: their pauses
        last until the test has moved the time on.
        """
        self._stands_still = True
        try:
            yield
        finally:
            self._stands_still = False
            self._wake()

    def surroundings(self) -> Surroundings:
        """Return this as the machine of a ``Client(surroundings=...)``, where pauses take no time."""
        return Surroundings(
            monotonic=lambda: self.elapsed_s,
            now=self.now,
            random=lambda: self.chance,
            sleep=self._pause,
            async_sleep=self._async_pause,
            new_event_loop=self.new_event_loop,
        )

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Return an event loop on which time is this clock's: time-outs and sleeps, whoever's."""
        return ClockedLoop(self)

    @contextmanager
    def waiting(self) -> Generator[None, None, None]:
        """Say that, within this context, somebody waits for what a loop does."""
        with self._counted(waiting=1):
            yield

    @contextmanager
    def not_waiting(self) -> Generator[None, None, None]:
        """Except from ``waiting`` what depends on another thread."""
        with self._counted(waiting=-1):
            yield

    @contextmanager
    def closing(self) -> Generator[None, None, None]:
        """Say that a deployment closes: time jumps in any case, as no test goes on that could move it."""
        with self._counted(closing=1):
            yield

    def enter(self, loop: ClockedLoop) -> None:
        """Implement ``LoopTime``."""
        with self._moved:
            self._loops.append(loop)

    def leave(self, loop: ClockedLoop) -> None:
        """Implement ``LoopTime``."""
        with self._moved:
            self._loops.remove(loop)

    def jump(self, loop: ClockedLoop) -> bool:
        """Implement ``LoopTime``."""
        jumps = self._waiting and not self._stands_still
        if not (jumps or self._closing or loop.due_s <= self._target_s):
            return False
        self._move_to(loop.due_s, loop)
        return True

    @contextmanager
    def _counted(self, *, waiting: int = 0, closing: int = 0) -> Generator[None, None, None]:
        with self._moved:
            self._waiting += waiting
            self._closing += closing
        try:
            yield
        finally:
            with self._moved:
                self._waiting -= waiting
                self._closing -= closing

    def _move_to(self, elapsed_s: float, mover: ClockedLoop | None = None) -> None:
        with self._moved:
            self.elapsed_s = max(self.elapsed_s, elapsed_s)
            self._wake(mover)

    def _wake(self, mover: ClockedLoop | None = None) -> None:
        with self._moved:
            self._moved.notify_all()
            for loop in self._loops:
                if loop is not mover:
                    loop.wake()

    def _resting(self) -> list[Future[None]]:
        with self._moved:
            return [loop.at_rest() for loop in self._others()]

    def _others(self) -> list[ClockedLoop]:
        """Return the loops but for the one that this runs on, if any: it cannot wait for itself."""
        return [loop for loop in self._loops if loop.thread != threading.get_ident()]

    def _pause(self, seconds: float) -> None:
        until_s = self.elapsed_s + seconds
        self.pauses.append(seconds)
        if not self._stands_still:
            self.advance(seconds)
            return
        with self._moved:
            passed = self._moved.wait_for(
                lambda: self.elapsed_s >= until_s or not self._stands_still, self._patience_s
            )
        if not passed:
            message = (
                f"a client pauses for {seconds:g} s of a time that nobody moves on: advance it"
            )
            raise RuntimeError(message)

    async def _async_pause(self, seconds: float) -> None:
        if self._loops or self._stands_still:
            await asyncio.to_thread(self._pause, seconds)
        else:
            self._pause(seconds)
