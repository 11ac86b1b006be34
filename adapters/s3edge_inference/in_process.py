"""The ``InferenceBackend`` port in the gateway's own process group, for servers without a GPU."""

from collections import OrderedDict
from collections.abc import Sequence
from uuid import UUID

import anyio

from s3edge.masks import read_image, store_mask
from s3edge.ports import InferenceBackend, MissingPartError, ObjectStorage, Wiring
from s3edge.rules.keys import mask_key
from s3edge.values import (
    BatchPrediction,
    BatchPredictRequest,
    ModelInfo,
    Prediction,
    PredictRequest,
)
from s3edge_inference.cpu import cpu_predictor
from s3edge_inference.predictors import Predictor
from s3edge_inference.worker_processes import WorkerProcesses


REMEMBERED_ANSWERS = 4096
"""How many tasks' answers are kept for repeats; older ones are run again, to the same mask."""


class InProcessBackend:
    """
    Runs a predictor in worker processes, so that the event loop never waits for it.

    Args:
        storage: Where images are read and masks are written.
        predictor: Segments; it is sent to the workers, so it must pickle.
        processes: How many images are segmented at once; by default one a core.

    Attributes:
        capacity: The same number, for the dispatcher.
    """

    def __init__(
        self, storage: ObjectStorage, predictor: Predictor, processes: int | None = None
    ) -> None:
        self._storage = storage
        self._predictor = predictor
        self._workers = WorkerProcesses(predictor, processes)
        self.capacity = self._workers.capacity
        self._answers: OrderedDict[UUID, Sequence[Prediction]] = OrderedDict()
        self._running: dict[UUID, anyio.Lock] = {}

    async def predict(self, request: PredictRequest) -> Prediction:
        """Implement ``InferenceBackend``."""
        answers = await self._answer(
            request.task_id, request.user_id, request.image_url, [request.text_prompt]
        )
        return answers[0]

    async def predict_batch(self, request: BatchPredictRequest) -> BatchPrediction:
        """Implement ``InferenceBackend``."""
        answers = await self._answer(
            request.task_id, request.user_id, request.image_url, request.prompts
        )
        # The image is read once and segmented by all prompts together: each answer has the whole time.
        return BatchPrediction(request.task_id, answers, answers[0].inference_time_ms)

    async def model_info(self) -> ModelInfo:
        """Implement ``InferenceBackend``."""
        return self._predictor.info()

    async def check(self) -> None:
        """Implement ``Checked``: the workers are started when they are needed."""

    async def _answer(
        self, task_id: UUID, user_id: UUID, image_url: str, prompts: Sequence[str]
    ) -> Sequence[Prediction]:
        """Run the model once a task: a repeat waits for the first run and gets its answer."""
        answered = self._answers.get(task_id)
        if answered is not None:
            return answered
        async with self._running.setdefault(task_id, anyio.Lock()):
            known = self._answers.get(task_id)
            if known is not None:
                return known
            try:
                answers = await self._run(task_id, user_id, image_url, prompts)
            finally:
                self._running.pop(task_id, None)
            self._answers[task_id] = answers
            if len(self._answers) > REMEMBERED_ANSWERS:
                self._answers.popitem(last=False)
            return answers

    async def _run(
        self, task_id: UUID, user_id: UUID, image_url: str, prompts: Sequence[str]
    ) -> Sequence[Prediction]:
        image = await read_image(image_url, storage=self._storage)
        started = anyio.current_time()
        segmentations = await self._workers.segment(image, prompts)
        elapsed_ms = round((anyio.current_time() - started) * 1000, 3)
        predictions = []
        for index, segmentation in enumerate(segmentations):
            mask_url = await store_mask(
                segmentation.mask_png, mask_key(user_id, task_id, index), storage=self._storage
            )
            predictions.append(
                Prediction(
                    task_id=task_id,
                    mask_url=mask_url,
                    labels=list(segmentation.labels),
                    inference_time_ms=elapsed_ms,
                    confidence=segmentation.confidence,
                    model_version=self._predictor.model_version,
                    metadata=segmentation.metadata,
                )
            )
        return predictions


def from_url(url: str, wiring: Wiring) -> InferenceBackend:  # noqa: ARG001 - the factories' signature
    """
    Return the backend of a ``cpu:`` setting.

    Raises:
        ModuleNotFoundError: A library is not installed.
        MissingPartError: It was wired without a storage.
    """
    predictor = cpu_predictor()
    if wiring.storage is None:
        raise MissingPartError("storage")
    return InProcessBackend(wiring.storage, predictor)
