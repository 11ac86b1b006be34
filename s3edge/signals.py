"""Wakes those who wait for a task's end, within one process."""

import copy
import math
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from uuid import UUID

import anyio

from s3edge.errors import EdgeError
from s3edge.values import Task


LOOK_EVERY_S = 1.0
"""How often a waiter looks by itself, where nobody tells of outcomes that another process wrote."""


class TaskSignals:
    """
    Tells waiters that a task has ended.

    It implements ``EndNews``: where the database announces ends, those of other processes are heard here
    too. Elsewhere waiters also have to look by themselves now and then. All calls are made on one event
    loop.

    Attributes:
        hears_all: Whether every end is told here, whoever wrote it.
    """

    def __init__(self) -> None:
        self._watches: dict[UUID, set[TaskWatch]] = {}
        self._closed = False
        self.hears_all = False

    def ended(self, task_id: UUID) -> None:
        """Wake everybody who watches this task."""
        glance = _Glance()
        for watch in self._watches.get(task_id, ()):
            watch.wake(glance)

    @property
    def look_every_s(self) -> float:
        """How often a waiter has to look by itself, in seconds."""
        return math.inf if self.hears_all else LOOK_EVERY_S

    def awaited(self) -> Collection[UUID]:
        """Return the tasks that somebody watches."""
        return tuple(self._watches)

    @contextmanager
    def watch(self, task_id: UUID) -> Iterator["TaskWatch"]:
        """Hear of the task's end from now on."""
        watch = TaskWatch(self)
        watches = self._watches.setdefault(task_id, set())
        watches.add(watch)
        try:
            yield watch
        finally:
            watches.discard(watch)
            if not watches and self._watches.get(task_id) is watches:
                del self._watches[task_id]

    def close(self) -> None:
        """Wake everybody, for good: the process is about to stop, and long polls must not hold it."""
        self._closed = True
        for watches in self._watches.values():
            for watch in watches:
                watch.wake(None)

    @property
    def is_closed(self) -> bool:
        """Whether waiting makes no sense any more."""
        return self._closed


class TaskWatch:
    """One waiter's view of one task; made by ``TaskSignals.watch``."""

    def __init__(self, signals: TaskSignals) -> None:
        self._signals = signals
        self._event = anyio.Event()
        self._glance: _Glance | None = None

    def wake(self, glance: "_Glance | None") -> None:
        """End the wait that is on, or else the next one."""
        self._glance = glance
        self._event.set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait for news, ``timeout_s`` seconds at most; return whether waiting on makes sense."""
        if not self._signals.is_closed:
            if not self._event.is_set():
                self._glance = None
            with anyio.move_on_after(timeout_s):
                await self._event.wait()
                # Heard once: whoever finds the task open all the same waits again.
                self._event = anyio.Event()
        return not self._signals.is_closed

    async def look(self, user_id: UUID, read: Callable[[], Awaitable[Task]]) -> Task:
        """
        Read the task; of a user's waiters whom the same news woke, one reads for all.

        Args:
            user_id: Who asks: nobody is shown what somebody else may see.
            read: Reads it.

        Raises:
            EdgeError: What ``read`` raised, for this waiter or another.
        """
        if self._glance is None:
            return await read()
        return await self._glance.share(user_id, read)


class _Glance:
    """What those whom the same news woke find, each user's waiters together."""

    def __init__(self) -> None:
        self._lock = anyio.Lock(fast_acquire=True)
        self._found: dict[UUID, Task] = {}
        self._failure: EdgeError | None = None

    async def share(self, user_id: UUID, read: Callable[[], Awaitable[Task]]) -> Task:
        # Whoever comes first may be cancelled while reading; then the next one reads.
        async with self._lock:
            if user_id in self._found:
                return self._found[user_id]
            if self._failure is not None:
                # A copy: each raise would make the traceback of one and the same longer.
                raise copy.copy(self._failure)
            try:
                self._found[user_id] = await read()
            except EdgeError as error:
                # An outage is everybody's; a refusal may be this token's alone.
                if error.retryable:
                    self._failure = error
                raise
            return self._found[user_id]
