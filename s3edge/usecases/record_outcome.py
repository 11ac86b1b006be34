"""Write down how a task ended, once."""

import logging
from collections.abc import Awaitable, Callable

import anyio

from s3edge.errors import Code, EdgeError
from s3edge.ports import Database
from s3edge.rules.lifecycle import MAX_RECORD_TRIES, retry_delay_s
from s3edge.rules.outcomes import outcome_of
from s3edge.values import Prediction, Task


_log = logging.getLogger(__name__)

_TOO_LATE = "changes nothing: it has ended, a later attempt has begun, or another server records it"

_TASK_CODES = frozenset(
    {Code.INVALID_REQUEST, Code.MODEL_NOT_LOADED, Code.SERVICE_UNAVAILABLE, Code.INFERENCE_FAILED}
)
"""What a task's ``error_code`` may be; anything else a backend says is ``INFERENCE_FAILED``."""


async def record_success(
    task: Task, prediction: Prediction, *, database: Database, random: Callable[[], float]
) -> bool:
    """
    Record a prediction as the task's result.

    Returns:
        Whether this call ended the task.

    Raises:
        EdgeError: ``SERVICE_UNAVAILABLE`` when the database could not be told.
    """
    outcome = outcome_of(prediction)
    ended = await _insist(
        lambda: database.complete_task(task.id, outcome, attempt=task.attempt), random
    )
    if not ended:
        _log.info("the answer to attempt %d of task %s %s", task.attempt, task.id, _TOO_LATE)
    return ended


async def record_failure(
    task: Task, error: EdgeError, *, database: Database, random: Callable[[], float]
) -> bool:
    """
    Record that a task ended in ``error``, which refunds it.

    Returns:
        Whether this call ended the task.

    Raises:
        EdgeError: ``SERVICE_UNAVAILABLE`` when the database could not be told.
    """
    code = error.code if error.code in _TASK_CODES else Code.INFERENCE_FAILED
    ended = await _insist(
        lambda: database.fail_task(task.id, code, error.message, attempt=task.attempt), random
    )
    became = "ends it in error, refunded" if ended else _TOO_LATE
    _log.warning(
        "the failure of attempt %d of task %s %s: %s", task.attempt, task.id, became, error
    )
    return ended


async def _insist(write: Callable[[], Awaitable[bool]], random: Callable[[], float]) -> bool:
    """Write through a passing fault of the database; writing twice changes nothing."""
    for tries in range(1, MAX_RECORD_TRIES):
        try:
            return await write()
        except EdgeError as error:
            if not error.retryable:
                raise
            _log.warning("an outcome could not be written, trying again: %s", error)
        await anyio.sleep(retry_delay_s(tries, random()))
    return await write()
