"""
A task from its request to its answer: once, however often it is asked.

Who asks again while a task is under way waits for the same answer; who asks later is told what was
answered. That is so until the process ends, or 4,096 other tasks have come between. Then the model runs
again, and harms nothing: the mask's key is the task's, an object is written once, and the database keeps
the first outcome.

A task goes on when the request that began it is gone, because the gateway comes back for it.
"""

import logging
import math
from collections import OrderedDict
from uuid import UUID

import anyio
from anyio.abc import TaskGroup
from attrs import define, field

from s3edge.errors import Code, EdgeError, unavailable
from s3edge.masks import store_mask
from s3edge.ports import ObjectStorage
from s3edge.rules.keys import mask_key
from s3edge.values import Prediction
from s3edge_inference.predictors import Segmentation
from s3edge_inference.server.batching import Batcher
from s3edge_inference.server.images import Images
from s3edge_inference.server.messages import Answer, Wanted
from s3edge_inference.server.metrics import Metrics
from s3edge_inference.server.model import Model
from s3edge_inference.server.options import MAX_RETRY_AFTER_S, REMEMBERED_ANSWERS
from s3edge_inference.server.records import Records


_log = logging.getLogger(__name__)


@define(eq=False)
class _Run:
    """
    A task that is under way.

    Attributes:
        wanted: What was asked.
        ended: Set when there is an outcome.
        outcome: The answer, or why there is none.
    """

    wanted: Wanted
    ended: anyio.Event = field(factory=anyio.Event)
    outcome: Answer | EdgeError | None = None


class Tasks:
    """
    All tasks of the server.

    Args:
        images: Reads them.
        model: Says whether it is loaded, and which it is.
        batcher: The queue in front of it.
        storage: Keeps the masks.
        records: Writes what becomes of a task.
        metrics: Are told how long things took.
        most: How many may be under way.
    """

    def __init__(
        self,
        *,
        images: Images,
        model: Model,
        batcher: Batcher,
        storage: ObjectStorage,
        records: Records,
        metrics: Metrics,
        most: int,
    ) -> None:
        self._images = images
        self._model = model
        self._batcher = batcher
        self._storage = storage
        self._records = records
        self._metrics = metrics
        self._most = most
        self._running: dict[UUID, _Run] = {}
        self._answered: OrderedDict[UUID, tuple[Wanted, Answer]] = OrderedDict()
        self._is_stopping = False
        self._ended = anyio.Event()

    @property
    def under_way(self) -> int:
        """How many are."""
        return len(self._running)

    def stop_taking(self) -> None:
        """Begin no task any more; those that are under way go on, and are answered."""
        self._is_stopping = True

    async def until_none_is_under_way(self) -> None:
        """Return when all have ended."""
        while self._running:
            await self._ended.wait()

    async def answer(self, wanted: Wanted, group: TaskGroup) -> Answer:
        """
        Return what a task comes to.

        Args:
            wanted: What is asked.
            group: Runs the task, if it has not begun.

        Raises:
            EdgeError: ``MODEL_NOT_LOADED`` and ``SERVICE_UNAVAILABLE``, retryable; ``INVALID_REQUEST``
                for an image that cannot be had or read; ``INFERENCE_FAILED``.
        """
        known = self._answered.get(wanted.task_id)
        if known is not None:
            _check_repeat(known[0], wanted)
            return known[1]
        run = self._running.get(wanted.task_id)
        if run is None:
            self._admit()
            run = _Run(wanted)
            # Beside it, since nothing has to wait for it: after an outcome it changes nothing.
            group.start_soon(self._records.started, wanted.task_id)
            group.start_soon(self._carry_out, run)
            # Only now: whoever repeats it would wait for ever for what could not begin.
            self._running[wanted.task_id] = run
        else:
            _check_repeat(run.wanted, wanted)
        await run.ended.wait()
        if isinstance(run.outcome, Answer):
            return run.outcome
        raise run.outcome or _stopped()

    def _admit(self) -> None:
        """Refuse a new task when there is no use in beginning it."""
        if self._is_stopping:
            raise _stopped()
        self._model.check_loaded()
        self._model.check_hangs()
        if len(self._running) >= self._most:
            wait_s = math.ceil(self._batcher.wait_ahead_s())
            raise unavailable(
                "The inference server has no room now; try again.",
                retry_after_s=min(max(wait_s, 1), MAX_RETRY_AFTER_S),
            )

    async def _carry_out(self, run: _Run) -> None:
        task_id = run.wanted.task_id
        try:
            answer = await self._run(run.wanted)
            run.outcome = answer
            self._answered[task_id] = (run.wanted, answer)
            if len(self._answered) > REMEMBERED_ANSWERS:
                self._answered.popitem(last=False)
        except EdgeError as error:
            _log.warning("task %s has no answer: %s", task_id, error)
            await self._records.failed(task_id, error)
            run.outcome = error
        except Exception:  # noqa: BLE001 - logged with its trace; who waits must have an answer
            _log.exception("task %s raised an unforeseen error", task_id)
            run.outcome = EdgeError(Code.INFERENCE_FAILED, "The model could not be run.")
            await self._records.failed(task_id, run.outcome)
        finally:
            del self._running[task_id]
            run.ended.set()
            self._ended.set()
            self._ended = anyio.Event()

    async def _run(self, wanted: Wanted) -> Answer:
        image = await self._images.read(wanted.image_url, wanted.user_id)
        segmentations, elapsed_ms = await self._batcher.segment((image, wanted.prompts))
        with self._metrics.timed("upload"):
            predictions = [
                await self._stored(wanted, index, segmentation, elapsed_ms)
                for index, segmentation in enumerate(segmentations)
            ]
        await self._records.completed(predictions[0])
        _log.info(
            "task %s: prompts: %d, %.0f ms in the model",
            wanted.task_id,
            len(predictions),
            elapsed_ms,
        )
        return Answer(predictions, elapsed_ms)

    async def _stored(
        self, wanted: Wanted, index: int, segmentation: Segmentation, elapsed_ms: float
    ) -> Prediction:
        mask_url = await store_mask(
            segmentation.mask_png,
            mask_key(wanted.user_id, wanted.task_id, index),
            storage=self._storage,
        )
        return Prediction(
            task_id=wanted.task_id,
            mask_url=mask_url,
            labels=list(segmentation.labels),
            inference_time_ms=elapsed_ms,
            confidence=segmentation.confidence,
            model_version=self._model.info.model_version,
            metadata=segmentation.metadata,
        )


def _check_repeat(first: Wanted, again: Wanted) -> None:
    if not first.is_repeated_by(again):
        raise EdgeError(
            Code.INVALID_REQUEST, "This task was asked before with another image, user or prompt."
        )


def _stopped() -> EdgeError:
    return unavailable("The inference server is stopping; try another one.", retry_after_s=1)
