"""A model that anybody can predict, for tests and for wiring a gateway without one."""

import io
from uuid import UUID

from PIL import Image, UnidentifiedImageError

from s3edge.errors import Code, EdgeError
from s3edge.masks import read_image, store_mask
from s3edge.ports import ObjectStorage
from s3edge.rules.keys import mask_key
from s3edge.values import (
    BatchPrediction,
    BatchPredictRequest,
    ModelInfo,
    Prediction,
    PredictRequest,
)


THRESHOLD = 127


class ThresholdBackend:
    """
    Segments what is brighter than half, whatever the prompt says.

    Args:
        storage: Where images are read and masks are written.
    """

    def __init__(self, storage: ObjectStorage) -> None:
        self._storage = storage

    async def predict(self, request: PredictRequest) -> Prediction:
        """Implement ``InferenceBackend``."""
        return await self._segment(
            request.task_id, request.user_id, request.image_url, request.text_prompt, 0
        )

    async def predict_batch(self, request: BatchPredictRequest) -> BatchPrediction:
        """Implement ``InferenceBackend``."""
        results = [
            await self._segment(request.task_id, request.user_id, request.image_url, prompt, index)
            for index, prompt in enumerate(request.prompts)
        ]
        return BatchPrediction(request.task_id, results, 0.0)

    async def model_info(self) -> ModelInfo:
        """Implement ``InferenceBackend``."""
        return ModelInfo("threshold", "1", 0, 0.0, "cpu", "uint8")

    async def check(self) -> None:
        """Implement ``Checked``."""

    async def _segment(
        self, task_id: UUID, user_id: UUID, image_url: str, prompt: str, index: int
    ) -> Prediction:
        mask = _bright(await read_image(image_url, storage=self._storage))
        key = mask_key(user_id, task_id, index)
        mask_url = await store_mask(mask, key, storage=self._storage)
        return Prediction(task_id, mask_url, [prompt], 0.0, 1.0, "1")


def _bright(image: bytes) -> bytes:
    try:
        with Image.open(io.BytesIO(image)) as opened:
            mask = opened.convert("L").point(lambda value: 255 if value > THRESHOLD else 0)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        raise EdgeError(Code.INVALID_REQUEST, "The image cannot be read.") from None
    encoded = io.BytesIO()
    mask.save(encoded, "PNG")
    return encoded.getvalue()
