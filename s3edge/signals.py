"""Wakes those who wait for a task's end, within one process."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import anyio


class TaskSignals:
    """
    Tells waiters that a task has ended.

    An end that another process wrote is not heard here, so waiters also look by themselves now and
    then; a source of such news only has to call ``ended``. All calls are made on one event loop.
    """

    def __init__(self) -> None:
        self._events: dict[UUID, set[anyio.Event]] = {}
        self._closed = False

    def ended(self, task_id: UUID) -> None:
        """Wake everybody who watches this task."""
        for event in self._events.get(task_id, ()):
            event.set()

    @contextmanager
    def watch(self, task_id: UUID) -> Iterator["TaskWatch"]:
        """Hear of the task's end from now on."""
        event = anyio.Event()
        watchers = self._events.setdefault(task_id, set())
        watchers.add(event)
        try:
            yield TaskWatch(self, event)
        finally:
            watchers.discard(event)
            if not watchers and self._events.get(task_id) is watchers:
                del self._events[task_id]

    def close(self) -> None:
        """Wake everybody, for good: the process is about to stop, and long polls must not hold it."""
        self._closed = True
        for watchers in self._events.values():
            for event in watchers:
                event.set()

    @property
    def is_closed(self) -> bool:
        """Whether waiting makes no sense any more."""
        return self._closed


class TaskWatch:
    """One waiter's view of one task; made by ``TaskSignals.watch``."""

    def __init__(self, signals: TaskSignals, event: anyio.Event) -> None:
        self._signals = signals
        self._event = event

    async def wait(self, timeout_s: float) -> bool:
        """Wait for news, ``timeout_s`` seconds at most; return whether waiting on makes sense."""
        if not self._signals.is_closed:
            with anyio.move_on_after(timeout_s):
                await self._event.wait()
        return not self._signals.is_closed
