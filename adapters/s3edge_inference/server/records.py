"""
Writes into the database that a task is worked on, and how it ended.

The gateway records the same from the answer, and of the two the first wins. So whatever goes wrong here
costs nobody anything: it is counted, said once until it works again, and the answer goes out.
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
from s3edge_inference.server.options import RECORD_TIMEOUT_S


_log = logging.getLogger(__name__)


class Records:
    """
    The writer, if there is a database.

    It speaks for the task, whoever holds it: it names no attempt.

    Args:
        database: Where to; ``None`` to write nothing.
        metrics: Are told how long it took, and what was not written.
    """

    def __init__(self, database: Database | None, metrics: Metrics) -> None:
        self._database = database
        self._metrics = metrics
        self._is_failing = False

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
        try:
            with self._metrics.timed("record"), anyio.fail_after(RECORD_TIMEOUT_S):
                await write()
        except (EdgeError, TimeoutError) as error:
            self._metrics.unrecorded()
            if not self._is_failing:
                reason = error.message if isinstance(error, EdgeError) else "it does not answer"
                _log.warning(
                    "the database does not take what becomes of tasks, so only the gateway records it:"
                    " %s",
                    reason,
                )
            self._is_failing = True
            return
        if self._is_failing:
            _log.warning("the database takes again what becomes of tasks")
        self._is_failing = False
