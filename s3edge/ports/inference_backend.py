"""Runs the model."""

from typing import Protocol, runtime_checkable

from s3edge.ports.checked import Checked
from s3edge.values import (
    BatchPrediction,
    BatchPredictRequest,
    ModelInfo,
    Prediction,
    PredictRequest,
)


class InferenceBackend(Checked, Protocol):
    """Runs the model."""

    async def predict(self, request: PredictRequest) -> Prediction:
        """
        Segment an image by one prompt and store the mask under ``masks/<user_id>/<task_id>``.

        Callers guarantee:
            The image's URL was made or allowed by this deployment.

        Implementations must:
            Store an 8-bit PNG mask of the image's own size (``test_a_prediction_stores_its_mask``).
            Give a repeated ``task_id`` the same answer (``test_a_repeat_gives_the_same_answer``).
            Refuse an image that cannot be read, for good (``test_an_unreadable_image_is_refused``).

        Raises:
            EdgeError: ``INVALID_REQUEST`` for a bad image, ``MODEL_NOT_LOADED`` and
                ``SERVICE_UNAVAILABLE`` (both retryable), ``INFERENCE_FAILED``.
        """

    async def predict_batch(self, request: BatchPredictRequest) -> BatchPrediction:
        """
        Segment one image by several prompts.

        Implementations must:
            Answer every prompt, in order (``test_a_batch_answers_every_prompt``).
        """

    async def model_info(self) -> ModelInfo:
        """
        Say which model runs, and where.

        Implementations must:
            Name it (``test_the_model_is_named``).
        """


@runtime_checkable
class HasCapacity(Protocol):
    """A backend that runs no more than so many tasks at once, whatever it is given."""

    @property
    def capacity(self) -> int:
        """How many tasks run at once; the dispatcher keeps the others, where no timeout runs."""
