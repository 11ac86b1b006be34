"""The ``InferenceBackend`` port where there is no model: workers take the tasks from the queue."""

from collections.abc import AsyncIterator

from s3edge.errors import unavailable
from s3edge.ports import INLINE, Finding, Wiring
from s3edge.values import (
    BatchPrediction,
    BatchPredictRequest,
    ModelInfo,
    Prediction,
    PredictRequest,
)


class ElsewhereBackend:
    """
    Stands for the model at a gateway that is in front of a queue and reaches no GPU server.

    Such a gateway asks nothing of it; the queue itself says how many workers there are.
    """

    async def predict(self, request: PredictRequest) -> Prediction:  # noqa: ARG002 - the port's signature
        """Implement ``InferenceBackend``: refuse."""
        raise unavailable("The model is run by the queue's workers.")

    async def predict_batch(self, request: BatchPredictRequest) -> BatchPrediction:  # noqa: ARG002 - likewise
        """Implement ``InferenceBackend``: refuse."""
        raise unavailable("The model is run by the queue's workers.")

    async def model_info(self) -> ModelInfo:
        """Implement ``InferenceBackend``: refuse."""
        raise unavailable("The model is run by the queue's workers.")

    async def check(self) -> None:
        """Implement ``Checked``: there is nothing here that could be down."""

    async def examine(self) -> AsyncIterator[Finding]:
        """Implement ``Examinable``."""
        yield Finding("model", ok=True, message="run by the queue's workers: s3edge inference work")


def from_url(url: str, wiring: Wiring) -> ElsewhereBackend:  # noqa: ARG001 - the factories' signature
    """
    Return the backend of a ``queue:`` setting.

    Raises:
        ValueError: There is no queue.
    """
    if wiring.dispatch == INLINE:
        raise ValueError("queue: leaves tasks to workers; set S3EDGE_DISPATCH=procrastinate, too")
    return ElsewhereBackend()
