"""Runs a predictor in processes, an image in each, so that no event loop waits for it."""

import logging
import os
from collections.abc import Callable, Sequence
from typing import TypeVar

from anyio import BrokenWorkerProcess, CapacityLimiter, to_process

from s3edge.errors import Code, EdgeError
from s3edge.values import ModelInfo
from s3edge_inference.predictors import Predictor, Segmentation, UnreadableImage
from s3edge_inference.raisable import raisable


T = TypeVar("T")

_log = logging.getLogger(__name__)


class WorkerProcesses:
    """
    The processes of one predictor; they are started when they are needed.

    Args:
        predictor: Segments; it is sent to the processes, so it must pickle.
        processes: How many images are segmented at once; by default one a core.

    Attributes:
        capacity: The same number.
    """

    def __init__(self, predictor: Predictor, processes: int | None = None) -> None:
        self._predictor = predictor
        self.capacity = processes or os.cpu_count() or 1
        self._limiter = CapacityLimiter(self.capacity)

    async def load(self) -> ModelInfo:
        """
        Load the model in one of the processes, and return which it is.

        Raises:
            PredictorUnavailable: It cannot be loaded.
            EdgeError: ``INFERENCE_FAILED``, as ``segment``.
        """
        return await self._run(load_model, self._predictor)

    async def segment(self, image: bytes, prompts: Sequence[str]) -> list[Segmentation]:
        """
        Segment one image, in whichever process is free.

        Raises:
            EdgeError: ``INVALID_REQUEST`` when it cannot be read; ``INFERENCE_FAILED``, retryable, when
                the process ended.
        """
        try:
            return await self._run(_loaded_and_segmented, self._predictor, image, list(prompts))
        except UnreadableImage as error:
            raise EdgeError(Code.INVALID_REQUEST, str(error)) from None

    async def _run(self, call: Callable[..., T], *arguments: object) -> T:
        try:
            return await to_process.run_sync(
                _called, call, *arguments, cancellable=True, limiter=self._limiter
            )
        except (BrokenWorkerProcess, ProcessLookupError):
            # The second comes from anyio's own clean-up of a worker that is gone already.
            _log.error(
                "a segmentation process ended unexpectedly: out of memory, killed, or the main script"
                " starts a server without 'if __name__ == \"__main__\":'"
            )
            raise EdgeError(
                Code.INFERENCE_FAILED, "The model's process ended unexpectedly.", retryable=True
            ) from None


def load_model(predictor: Predictor) -> ModelInfo:
    """Load a model here, and return which it is."""
    predictor.load()
    return predictor.info()


def _called(call: Callable[..., T], *arguments: object) -> T:
    """Call in a process; what is raised there is raised again in the server's."""
    try:
        return call(*arguments)
    except BaseException as error:  # noqa: BLE001 - a model's exit is not the server's
        raise raisable(error)  # noqa: B904 - it has its cause


def _loaded_and_segmented(
    predictor: Predictor, image: bytes, prompts: Sequence[str]
) -> list[Segmentation]:
    predictor.load()
    return predictor.segment(image, prompts)
