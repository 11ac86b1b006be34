"""
Runs tasks in the background, so that no request waits for the model.

A task that was reserved is handed over by ``submit``. Whatever this process drops - a full queue, a
stop, a crash - is found again by recovery, here or in another process, once its lease has run out.
"""

import logging
from collections.abc import Awaitable, Callable
from uuid import UUID

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from s3edge.errors import EdgeError
from s3edge.ports import Database
from s3edge.rules.lifecycle import HEARTBEAT_S, LEASE_S, RECOVERY_INTERVAL_S
from s3edge.signals import TaskSignals
from s3edge.usecases.recover_tasks import recover_tasks
from s3edge.usecases.undo_reservation import undo_reservation
from s3edge.values import Task


QUEUE_LIMIT = 1000
"""How many tasks one process holds at the most, waiting and running; the rest waits in the database."""

UNDO_WINDOW_S = 30.0
"""
How long after an unanswered reservation its task may still appear: longer than Supabase goes on with
what nobody waits for (10 seconds until there is a connection, 8 for the statement).
"""

_log = logging.getLogger(__name__)


class Dispatcher:
    """
    A bounded number of tasks at a time, their leases kept alive, and recovery of lost ones.

    Args:
        database: Keeps the tasks and their leases.
        signals: Told of every task that ended.
        dispatch: Runs one task to its end.
        concurrency: How many tasks run at once; 0 where a queue hands them to workers, so that only
            the overdue are left to see to.
    """

    def __init__(
        self,
        database: Database,
        signals: TaskSignals,
        dispatch: Callable[[Task], Awaitable[object]],
        concurrency: int,
    ) -> None:
        self._database = database
        self._signals = signals
        self._dispatch = dispatch
        self._concurrency = concurrency
        # The attempt that is held of each task.
        self._held: dict[UUID, int] = {}
        self._backlog = 0
        self._disowned: dict[UUID, float] = {}
        self._send: MemoryObjectSendStream[Task]
        self._receive: MemoryObjectReceiveStream[Task]
        self._send, self._receive = anyio.create_memory_object_stream[Task](QUEUE_LIMIT)
        self._draining = False
        self._idle = anyio.Event()
        # Set when tasks are known to wait in the database and there is room for them.
        self._hungry = anyio.Event()
        self._more_waits = False

    def submit(self, task: Task) -> bool:
        """
        Take over a task that this process has leased.

        Returns:
            Whether there was room. If not, nothing is lost: its lease runs out, and it is recovered.
        """
        # An earlier attempt may still run here, when this process stood still: it is superseded.
        is_held = self._held.get(task.id, 0) >= task.attempt
        if self._draining or is_held or len(self._held) >= QUEUE_LIMIT:
            return False
        try:
            self._send.send_nowait(task)
        except anyio.WouldBlock:
            return False
        self._held[task.id] = task.attempt
        return True

    def disown(self, task_id: UUID) -> None:
        """Take a task back should it appear; beyond ``QUEUE_LIMIT`` it is left to run."""
        if len(self._disowned) < QUEUE_LIMIT:
            self._disowned[task_id] = anyio.current_time()

    @property
    def backlog(self) -> int:
        """How many tasks had not ended, of all processes, when this one last looked."""
        return self._backlog

    def start(self, group: TaskGroup) -> None:
        """Begin to work, in a task group that the caller owns."""
        for _ in range(self._concurrency):
            group.start_soon(self._work)
        group.start_soon(self._recover)
        group.start_soon(self._keep_leases)

    async def drain(self, grace_s: float) -> None:
        """Start nothing more and wait up to ``grace_s`` seconds for what runs."""
        self._draining = True
        await self._let_go_of_waiting()
        if self._held:
            with anyio.move_on_after(grace_s):
                await self._idle.wait()

    async def release(self) -> None:
        """Let go of what is still held, so that another process may take it at once."""
        with anyio.move_on_after(HEARTBEAT_S, shield=True):
            await self._undo()
        self._send.close()
        self._receive.close()
        await self._let_go(dict(self._held))

    async def _work(self) -> None:
        with self._receive.clone() as tasks:
            async for task in tasks:
                try:
                    await self._run(task)
                except anyio.get_cancelled_exc_class():
                    # The task stays held, for ``release``; ``drain`` need not wait for anybody.
                    self._idle.set()
                    raise
                self._forget(task)
                if self._more_waits and len(self._held) <= self._concurrency:
                    self._hungry.set()
                if self._draining and not self._held:
                    self._idle.set()

    async def _run(self, task: Task) -> None:
        try:
            await self._dispatch(task)
        except EdgeError as error:
            _log.warning("task %s is left to recovery: %s", task.id, error)
        except Exception:  # noqa: BLE001 - logged with its trace; the worker serves the next task
            _log.exception("task %s is left to recovery", task.id)
        self._signals.ended(task.id)

    async def _recover(self) -> None:
        while True:
            if not self._draining:
                await self._recover_once()
            with anyio.move_on_after(RECOVERY_INTERVAL_S):
                await self._hungry.wait()
            self._hungry = anyio.Event()

    async def _recover_once(self) -> None:
        # Before any is claimed: a disowned task may be among those that nobody holds.
        if not await self._undo():
            return
        room = max(0, min(QUEUE_LIMIT, 2 * self._concurrency) - len(self._held))
        try:
            self._backlog = await self._database.backlog()
            found = await recover_tasks(room, LEASE_S, database=self._database)
        except EdgeError as error:
            _log.warning("recovery has to wait: %s", error)
            return
        except Exception:  # noqa: BLE001 - logged with its trace; recovery comes round again
            _log.exception("recovery failed")
            return
        for task_id in found.settled:
            _log.warning("task %s was overdue; it ends in error and is refunded", task_id)
            self._signals.ended(task_id)
        for task in found.claimed:
            _log.info("task %s was held by nobody; attempt %d begins", task.id, task.attempt)
            self.submit(task)
        # A full answer means that more wait: come back when these are nearly done.
        self._more_waits = 0 < len(found.claimed) == room

    async def _undo(self) -> bool:
        """Take back what was disowned; return whether the database answered."""
        for task_id, since in list(self._disowned.items()):
            try:
                undone = await undo_reservation(task_id, database=self._database)
            except EdgeError as error:
                _log.warning("a reservation stays in doubt: %s", error)
                return False
            except Exception:  # noqa: BLE001 - logged with its trace; it comes round again
                _log.exception("a reservation stays in doubt")
                return False
            if undone or anyio.current_time() - since > UNDO_WINDOW_S:
                del self._disowned[task_id]
        return True

    async def _keep_leases(self) -> None:
        while True:
            await anyio.sleep(HEARTBEAT_S)
            if self._held:
                await self._extend(dict(self._held), LEASE_S)

    def _forget(self, task: Task) -> None:
        if self._held.get(task.id) == task.attempt:
            del self._held[task.id]

    async def _let_go_of_waiting(self) -> None:
        waiting: dict[UUID, int] = {}
        while self._receive.statistics().current_buffer_used:
            task = self._receive.receive_nowait()
            waiting[task.id] = task.attempt
            self._forget(task)
        await self._let_go(waiting)

    async def _let_go(self, held: dict[UUID, int]) -> None:
        if held:
            with anyio.move_on_after(HEARTBEAT_S, shield=True):
                await self._extend(held, 0)

    async def _extend(self, held: dict[UUID, int], lease_s: float) -> None:
        try:
            await self._database.extend_leases(held, lease_s)
        except EdgeError as error:
            # The leases run out by themselves; a task dispatched twice runs and is charged once.
            _log.warning("leases of %d tasks could not be changed: %s", len(held), error)
        except Exception:  # noqa: BLE001 - logged with its trace; as above
            _log.exception("leases of %d tasks could not be changed", len(held))
