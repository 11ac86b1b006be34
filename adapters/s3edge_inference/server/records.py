"""
Writes into the database that a task is worked on, and how it ended.

The gateway records the same from the answer, and of the two the first wins. So whatever goes wrong here
costs nobody anything: it is counted, said once until it works again, and the answer goes out. A database
that hangs would cost every answer its time, so one write in a while tries it and the others are left out.
"""

import logging
from collections.abc import Awaitable, Callable
from uuid import UUID

import anyio

from s3edge.errors import Code, EdgeError
from s3edge.ports import Database
from s3edge.rules.outcomes import outcome_of
from s3edge.values import Prediction
from s3edge_inference.server.metrics import Metrics
from s3edge_inference.server.options import RECORD_HANGS_S, RECORD_PAUSE_S, RECORD_TIMEOUT_S


_log = logging.getLogger(__name__)


class Records:
    """
    The writer, if there is a database.

    It speaks for the task, whoever holds it: it names no attempt.

    Args:
        database: Where to; ``None`` to write nothing.
        metrics: Are told how long it took, and what was not written.
        timeout_s: How long a write may take.
    """

    def __init__(
        self, database: Database | None, metrics: Metrics, *, timeout_s: float = RECORD_TIMEOUT_S
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._is_failing = False
        self._hangs = False
        self._next_try_at = 0.0

    async def started(self, task_id: UUID) -> None:
        """Write that a task is being worked on."""
        database = self._database
        if database is not None:
            await self._write(lambda: database.start_task(task_id))

    async def completed(self, prediction: Prediction) -> None:
        """Write a task's result: of a batch the first prompt's, since a result has one mask."""
        database = self._database
        if database is None:
            return
        outcome = outcome_of(prediction)
        await self._write(lambda: database.complete_task(prediction.task_id, outcome))

    async def failed(self, task_id: UUID, error: EdgeError) -> None:
        """Write that a task cannot be done, which refunds it; what may be tried again is no end."""
        database = self._database
        if database is None or error.retryable:
            return
        code = error.code if error.code is Code.INVALID_REQUEST else Code.INFERENCE_FAILED
        await self._write(lambda: database.fail_task(task_id, code, error.message))

    async def _write(self, write: Callable[[], Awaitable[bool]]) -> None:
        if self._hangs:
            if anyio.current_time() < self._next_try_at:
                self._metrics.unrecorded()
                return
            self._next_try_at = anyio.current_time() + self._timeout_s + RECORD_PAUSE_S
        began_at = anyio.current_time()
        try:
            with self._metrics.timed("record"), anyio.fail_after(self._timeout_s):
                await write()
        except EdgeError as error:
            if anyio.current_time() - began_at > RECORD_HANGS_S:
                self._pause()
            self._failed(error.message)
            return
        except TimeoutError:
            self._pause()
            self._failed("it does not answer")
            return
        except Exception as error:  # noqa: BLE001 - an adapter's fault, logged with its trace
            _log.exception("the database's adapter raised an unforeseen error")
            self._failed(f"an unforeseen error ({type(error).__name__})")
            return
        if self._is_failing:
            _log.warning("the database takes again what becomes of tasks")
        self._is_failing = self._hangs = False

    def _pause(self) -> None:
        """Have no answer wait for a while."""
        self._hangs = True
        self._next_try_at = anyio.current_time() + RECORD_PAUSE_S

    def _failed(self, reason: str) -> None:
        """Count a write that was not taken, and say so once."""
        self._metrics.unrecorded()
        if not self._is_failing:
            _log.warning(
                "the database does not take what becomes of tasks, so only the gateway records it: %s",
                reason,
            )
        self._is_failing = True
