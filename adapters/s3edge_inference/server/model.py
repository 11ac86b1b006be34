"""The predictor as the server runs it: loaded once, then given batch after batch."""

import logging
from collections.abc import Sequence
from typing import TypeAlias

import anyio

from s3edge.errors import Code, EdgeError, unavailable
from s3edge.values import ModelInfo
from s3edge_inference.predictors import GpuMemory, Predictor, Segmentation, UnreadableImage
from s3edge_inference.server.believable import believable, believable_info
from s3edge_inference.server.model_thread import ModelThread
from s3edge_inference.server.options import HEALTH_TIMEOUT_S, NOT_LOADED_RETRY_AFTER_S
from s3edge_inference.worker_processes import WorkerProcesses, load_model


Item: TypeAlias = tuple[bytes, Sequence[str]]
"""An image, and what to pick from it."""

Segmented: TypeAlias = Sequence[Segmentation] | EdgeError
"""What became of one image of a batch."""

_log = logging.getLogger(__name__)


class Model:
    """
    Runs a predictor beside the event loop.

    A model on a GPU lives in this process: one batch at a time, in a thread of its own. One on the CPU
    runs in worker processes, an image in each.

    Args:
        predictor: Segments.
        timeout_s: How long a batch may run.

    Attributes:
        hangs: Whether a batch has not ended in that time. The thread is lost with it, and so is the GPU
            as a rule: nothing helps but another process.
        lanes: How many batches may run at once.
    """

    def __init__(self, predictor: Predictor, *, timeout_s: float) -> None:
        self._predictor = predictor
        self._workers = WorkerProcesses(predictor) if predictor.in_processes else None
        self._thread = ModelThread("s3edge-model")
        # Beside the other, which may be busy for long.
        self._asking = ModelThread("s3edge-gpu-memory")
        self._timeout_s = timeout_s
        self._info: ModelInfo | None = None
        self._memory_is_late = False
        self._memory_has_failed = False
        self.hangs = False
        self.lanes = 1 if self._workers is None else self._workers.capacity

    @property
    def is_loaded(self) -> bool:
        """Whether it can be run."""
        return self._info is not None

    @property
    def info(self) -> ModelInfo:
        """
        Which model it is.

        Raises:
            EdgeError: ``MODEL_NOT_LOADED``.
        """
        if self._info is None:
            raise EdgeError(
                Code.MODEL_NOT_LOADED,
                "The model is not loaded yet; try again.",
                retryable=True,
                retry_after_s=NOT_LOADED_RETRY_AFTER_S,
            )
        return self._info

    def check_loaded(self) -> None:
        """
        Refuse what would wait for a model that is not there yet.

        Raises:
            EdgeError: ``MODEL_NOT_LOADED``, retryable.
        """
        _ = self.info

    def batch_size(self, wanted: int) -> int:
        """Return how many images it takes at once, of so many that were wanted."""
        return wanted if self._workers is None else 1

    async def load(self) -> None:
        """
        Load it; until it has, nothing else is asked of it.

        Raises:
            PredictorUnavailable: It cannot be loaded; says what to do.
        """
        if self._workers is not None:
            info = await self._workers.load()
        else:
            info = await self._thread.run(lambda: load_model(self._predictor))
        self._info = believable_info(info)

    async def memory(self) -> GpuMemory | None:
        """Return how full the GPU is; ``None`` without one, or when it does not say in time."""
        if not self.is_loaded or self._workers is not None:
            return None
        if self._memory_is_late and self._asking.is_busy:
            return None
        self._memory_is_late = False
        try:
            with anyio.move_on_after(HEALTH_TIMEOUT_S):
                return await self._asking.run(self._predictor.memory)
            self._memory_is_late = True
        except Exception:  # noqa: BLE001 - a driver's, logged with its trace
            if not self._memory_has_failed:
                _log.exception("the GPU does not say how full it is")
            self._memory_has_failed = True
        return None

    async def run(self, items: Sequence[Item]) -> Sequence[Segmented]:
        """
        Return what became of each image; one that breaks the model breaks it for itself alone.

        Raises:
            EdgeError: ``SERVICE_UNAVAILABLE``, retryable: the model hangs.
        """
        if self._workers is not None:
            return [await self._in_process(self._workers, item) for item in items]
        try:
            return await self._in_thread(items)
        except EdgeError:
            raise
        except Exception:  # noqa: BLE001 - a library's, logged with its trace
            _log.exception("the model failed on a batch of %d", len(items))
        if len(items) == 1:
            return [_failed()]
        # Nobody knows whose image it was.
        return [answer for item in items for answer in await self.run([item])]

    async def _in_thread(self, items: Sequence[Item]) -> Sequence[Segmented]:
        self.check_hangs()
        with anyio.move_on_after(self._timeout_s):
            answers = await self._thread.run(lambda: self._predictor.segment_batch(items))
            return [_read(answer, item) for answer, item in zip(answers, items, strict=True)]
        self.hangs = True
        raise _hanging()

    async def _in_process(self, workers: WorkerProcesses, item: Item) -> Segmented:
        try:
            # A process that hangs is killed when nobody waits for it any more; the next is a new one.
            with anyio.fail_after(self._timeout_s):
                return _read(await workers.segment(*item), item)
        except EdgeError as error:
            return error
        except Exception:  # noqa: BLE001 - as above
            _log.exception("the model failed on an image")
            return _failed()

    def check_hangs(self) -> None:
        """
        Refuse what would wait for a model that does not come back.

        Raises:
            EdgeError: ``SERVICE_UNAVAILABLE``, retryable.
        """
        if self.hangs:
            raise _hanging()


def _read(answer: Sequence[Segmentation] | UnreadableImage, item: Item) -> Segmented:
    """Return what a predictor answered to an image; it is known whose it is, so nothing is run again."""
    if isinstance(answer, UnreadableImage):
        return EdgeError(Code.INVALID_REQUEST, str(answer))
    _, prompts = item
    try:
        return _believed(answer, prompts)
    except Exception:  # noqa: BLE001 - whatever a predictor gave instead of an answer
        _log.exception("the predictor's answer to an image is none")
        return _failed()


def _believed(answer: Sequence[Segmentation], prompts: Sequence[str]) -> Sequence[Segmentation]:
    if len(answer) != len(prompts):
        message = f"the predictor gave {len(answer)} answers to {len(prompts)} prompts"
        raise ValueError(message)
    # What no gateway would believe is the model's fault, and found before it is stored or written down.
    return [believable(segmentation) for segmentation in answer]


def _failed() -> EdgeError:
    return EdgeError(Code.INFERENCE_FAILED, "The model could not be run.")


def _hanging() -> EdgeError:
    return unavailable("The model does not answer; try another server.", retry_after_s=1)
