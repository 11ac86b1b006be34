"""What any ``TaskQueue`` must do."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import anyio
import pytest
from attrs import define, field, frozen

from s3edge.errors import Code, unavailable
from s3edge.ports import Database, TaskQueue
from s3edge.testing.contracts.database import OUTCOME, new_task
from s3edge.values import Task, TaskStatus, User


PATIENCE_S = 30.0
"""How long anything may take that a test waits for."""

GRACE_S = 5.0


@frozen
class TaskQueueHarness:
    """
    What the suite needs.

    Attributes:
        queue: The port under test; no open task is in it when a test begins.
        database: What fills it; nobody else works on its tasks.
        new_user: Makes somebody with credits for 20 tasks.
    """

    queue: TaskQueue
    database: Database
    new_user: Callable[[], Awaitable[User]]

    async def reserve(self, count: int) -> list[Task]:
        """Reserve so many tasks of a new user's."""
        user = await self.new_user()
        return [(await self.database.reserve_task(user, new_task())).task for _ in range(count)]

    async def found(self, task: Task) -> Task:
        """Return a task as it is now."""
        found = await self.database.task(User(task.user_id), task.id)
        assert found is not None
        return found

    @asynccontextmanager
    async def working(
        self, run: Callable[[Task], Awaitable[Any]], *, concurrency: int = 8
    ) -> AsyncIterator[anyio.Event]:
        """Have a worker at work, and stopped in the end; setting the event stops it earlier."""
        stop = anyio.Event()

        async def work() -> None:
            await self.queue.work(run, concurrency=concurrency, grace_s=GRACE_S, stop=stop)

        with anyio.fail_after(2 * PATIENCE_S):
            async with anyio.create_task_group() as group:
                group.start_soon(work)
                try:
                    yield stop
                finally:
                    stop.set()


@define
class _Runs:
    """Runs tasks as a test says, and remembers which."""

    database: Database
    seen: list[Task] = field(factory=list)
    running: int = 0
    most_at_once: int = 0
    _news: anyio.Event = field(factory=anyio.Event)

    @asynccontextmanager
    async def one(self, task: Task) -> AsyncIterator[None]:
        """Count a run while it lasts."""
        self.seen.append(task)
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        self._tell()
        try:
            yield
        finally:
            self.running -= 1
            self._tell()

    async def complete(self, task: Task) -> None:
        """End a task well."""
        async with self.one(task):
            await self.database.complete_task(task.id, OUTCOME, attempt=task.attempt)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when a condition of the runs holds."""
        with anyio.fail_after(PATIENCE_S):
            while not condition():
                await self._news.wait()

    def attempts(self, task_id: UUID) -> list[int]:
        """Return the attempts at a task, in their order."""
        return [task.attempt for task in self.seen if task.id == task_id]

    def _tell(self) -> None:
        self._news.set()
        self._news = anyio.Event()


class TaskQueueContract:
    """
    The promises of ``TaskQueue``, checked.

    A subclass supplies the fixture ``harness``.
    """

    pytestmark = pytest.mark.anyio

    async def test_check_passes(self, harness: TaskQueueHarness) -> None:
        """The queue is there, and asking takes nothing from it."""
        [task] = await harness.reserve(1)
        await harness.queue.check()
        assert await harness.found(task) == task

    async def test_every_reserved_task_is_run_once(self, harness: TaskQueueHarness) -> None:
        """Tasks from before and after the worker began are run, each once, as its next attempt."""
        runs = _Runs(harness.database)
        early = await harness.reserve(3)
        async with harness.working(runs.complete):
            late = await harness.reserve(3)
            await runs.until(lambda: len(runs.seen) >= 6 and not runs.running)
        own = [*early, *late]
        assert sorted(task.id for task in runs.seen) == sorted(task.id for task in own)
        for task in own:
            assert runs.attempts(task.id) == [2]
            assert (await harness.found(task)).status is TaskStatus.DONE

    async def test_a_task_is_run_again_until_it_has_ended(self, harness: TaskQueueHarness) -> None:
        """A run that raises, whatever it is, is followed by another attempt; the last one counts."""
        runs = _Runs(harness.database)
        faults: list[Exception] = [unavailable("down"), RuntimeError("a fault of ours")]

        async def run(task: Task) -> None:
            if faults:
                async with runs.one(task):
                    raise faults.pop()
            await runs.complete(task)

        [task] = await harness.reserve(1)
        async with harness.working(run):
            await runs.until(lambda: len(runs.seen) == 3 and not runs.running)
        assert runs.attempts(task.id) == [2, 3, 4]
        assert (await harness.found(task)).status is TaskStatus.DONE

    async def test_a_task_that_has_ended_is_not_run(self, harness: TaskQueueHarness) -> None:
        """What somebody else ended while it waited is left alone."""
        runs = _Runs(harness.database)
        ended, waiting = await harness.reserve(2)
        await harness.database.fail_task(ended.id, Code.INFERENCE_FAILED, "It broke.")
        async with harness.working(runs.complete):
            await runs.until(lambda: bool(runs.seen) and not runs.running)
            [later] = await harness.reserve(1)
            await runs.until(lambda: len(runs.seen) >= 2 and not runs.running)
        assert [task.id for task in runs.seen] == [waiting.id, later.id]

    async def test_no_more_than_so_many_run_at_once(self, harness: TaskQueueHarness) -> None:
        """The others wait in the queue."""
        runs, may_end = _Runs(harness.database), anyio.Event()

        async def run(task: Task) -> None:
            async with runs.one(task):
                await may_end.wait()
                await harness.database.complete_task(task.id, OUTCOME, attempt=task.attempt)

        tasks = await harness.reserve(7)
        async with harness.working(run, concurrency=3):
            await runs.until(lambda: runs.running == 3)
            may_end.set()
            await runs.until(lambda: len(runs.seen) == 7 and not runs.running)
        assert runs.most_at_once == 3
        assert [(await harness.found(task)).status for task in tasks] == [TaskStatus.DONE] * 7

    async def test_a_stop_lets_running_tasks_end(self, harness: TaskQueueHarness) -> None:
        """Nothing more is begun, and what runs is waited for."""
        runs, may_end = _Runs(harness.database), anyio.Event()

        async def run(task: Task) -> None:
            async with runs.one(task):
                await may_end.wait()
                await harness.database.complete_task(task.id, OUTCOME, attempt=task.attempt)

        running, waiting = await harness.reserve(2)
        async with harness.working(run, concurrency=1) as stop:
            await runs.until(lambda: runs.running == 1)
            stop.set()
            may_end.set()
        assert [task.id for task in runs.seen] == [running.id]
        assert (await harness.found(running)).status is TaskStatus.DONE
        assert (await harness.found(waiting)).status is TaskStatus.PENDING

    async def test_a_stop_gives_back_what_takes_too_long(self, harness: TaskQueueHarness) -> None:
        """A task that outlasts the grace is cancelled, and the next worker has it at once."""
        runs = _Runs(harness.database)

        async def run(task: Task) -> None:
            async with runs.one(task):
                await anyio.sleep_forever()

        [task] = await harness.reserve(1)
        async with harness.working(run) as stop:
            await runs.until(lambda: runs.running == 1)
            stop.set()
        assert runs.running == 0
        async with harness.working(runs.complete):
            await runs.until(lambda: len(runs.seen) == 2 and not runs.running)
        assert runs.attempts(task.id) == [2, 3]
        assert (await harness.found(task)).status is TaskStatus.DONE

    async def test_workers_share_the_tasks(self, harness: TaskQueueHarness) -> None:
        """Each task goes to one of several workers."""
        runs = _Runs(harness.database)
        async with harness.working(runs.complete), harness.working(runs.complete):
            tasks = await harness.reserve(20)
            await runs.until(lambda: len(runs.seen) >= 20 and not runs.running)
        assert sorted(task.id for task in runs.seen) == sorted(task.id for task in tasks)
