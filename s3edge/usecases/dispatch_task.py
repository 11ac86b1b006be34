"""Have a task segmented, whatever the backend does."""

import logging
from collections.abc import Callable, Collection

import anyio

from s3edge.errors import Code, EdgeError
from s3edge.ports import Database, InferenceBackend, ObjectStorage
from s3edge.rules.image_hosts import is_allowed_host
from s3edge.rules.lifecycle import MAX_PREDICT_TRIES, retry_delay_s
from s3edge.usecases.record_outcome import record_failure, record_success
from s3edge.usecases.request_segmentation import image_key
from s3edge.values import Prediction, PredictRequest, Task


_log = logging.getLogger(__name__)


async def dispatch_task(
    task: Task,
    *,
    database: Database,
    storage: ObjectStorage,
    backend: InferenceBackend,
    random: Callable[[], float],
    image_hosts: Collection[str] = (),
    predict_timeout_s: float = 120.0,
) -> bool:
    """
    Run one leased task to its end.

    Args:
        task: A task that the caller holds.
        database: Keeps the outcome.
        storage: Makes the URL that the backend reads.
        backend: Runs the model.
        random: Returns a number from 0 to 1; spreads retries.
        image_hosts: Further hosts whose images the operator allows.
        predict_timeout_s: How long one attempt may take.

    Returns:
        Whether this call ended the task; somebody else may have been first, or hold a later attempt.

    Raises:
        EdgeError: ``SERVICE_UNAVAILABLE`` when the database could not be told, or the storage can sign
            no URL; the task's lease runs out, and recovery dispatches it again.
    """
    image_url = _readable_url(task, storage, image_hosts)
    if image_url is None:
        # The row came from somewhere else than our own checks: never let the backend fetch it.
        return await record_failure(
            task,
            EdgeError(Code.INVALID_REQUEST, "The image is not one of this user's uploads."),
            database=database,
            random=random,
        )
    if not await database.start_task(task.id, attempt=task.attempt):
        _log.info("attempt %d of task %s is not needed any more", task.attempt, task.id)
        return False
    request = PredictRequest(
        task_id=task.id,
        user_id=task.user_id,
        image_url=image_url,
        text_prompt=task.text_prompt,
    )
    try:
        prediction = await _predict(request, backend, random, predict_timeout_s)
    except EdgeError as error:
        return await record_failure(task, error, database=database, random=random)
    return await record_success(task, prediction, database=database, random=random)


def _readable_url(task: Task, storage: ObjectStorage, image_hosts: Collection[str]) -> str | None:
    key = image_key(task.user_id, task.source_image_url, storage)
    if key is not None:
        return storage.url_for(key)
    if is_allowed_host(task.source_image_url, image_hosts):
        return task.source_image_url
    return None


async def _predict(
    request: PredictRequest,
    backend: InferenceBackend,
    random: Callable[[], float],
    timeout_s: float,
) -> Prediction:
    """Ask the backend until it answers, refuses for good, or was asked often enough."""
    tries = 0
    while True:
        tries += 1
        try:
            with anyio.fail_after(timeout_s):
                return await backend.predict(request)
        except TimeoutError:
            error = EdgeError(
                Code.INFERENCE_FAILED,
                f"The model did not answer within {timeout_s:g} seconds.",
                retryable=True,
            )
        except EdgeError as refused:
            error = refused
        except Exception:  # noqa: BLE001 - logged with its trace
            # An adapter's own fault must not leave the user charged for nothing.
            _log.exception("the inference backend raised an unforeseen error")
            raise EdgeError(Code.INFERENCE_FAILED, "The model could not be run.") from None
        if not error.retryable or tries >= MAX_PREDICT_TRIES:
            raise error
        delay_s = retry_delay_s(tries, random(), error.retry_after_s)
        _log.warning(
            "try %d of task %s failed, trying again in %.1f s: %s",
            tries,
            request.task_id,
            delay_s,
            error,
        )
        await anyio.sleep(delay_s)
