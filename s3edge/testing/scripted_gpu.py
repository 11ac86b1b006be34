"""A GPU that does what a test says."""

import asyncio
import io
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeAlias

import anyio
from PIL import Image

from s3edge.errors import Code, EdgeError, unavailable
from s3edge.masks import store_mask
from s3edge.memory import ThresholdBackend
from s3edge.ports import ObjectStorage
from s3edge.rules.keys import mask_key
from s3edge.testing.clock import ManualClock
from s3edge.values import (
    BatchPrediction,
    BatchPredictRequest,
    Json,
    ModelInfo,
    Prediction,
    PredictRequest,
)


Mask: TypeAlias = bytes | Image.Image
"""A PNG, or a picture of Pillow's: white is what was found."""

MODEL = ModelInfo("scripted", "1", 0, 0.0, "cpu", "uint8")


class ScriptedGpu:
    """
    An ``InferenceBackend`` that does what a test says; until then, it finds what is brighter than half.

    What a test says holds for all requests to come, until it says something else. Any thread may call the
    methods.

    Args:
        storage: Where images are read and masks are written.
        clock: The time that ``take`` takes.
    """

    def __init__(self, storage: ObjectStorage, clock: ManualClock) -> None:
        self._storage = storage
        self._clock = clock
        self._bright = ThresholdBackend(storage)
        self._asked: list[PredictRequest] = []
        self._held: list[Future[None]] = []
        self._holds = False
        self._failures = 0
        self._seconds = 0.0
        self._refusal: EdgeError | None = None
        self._mask: Mask | Callable[[PredictRequest], Mask] | None = None
        self._labels: Sequence[Json] | None = None
        self._confidence = 1.0

    @property
    def requests(self) -> Sequence[PredictRequest]:
        """What it was asked so far. Each try is there by itself, so that retries are seen."""
        self._clock.settle()
        return tuple(self._asked)

    def answer(
        self,
        mask: Mask | Callable[[PredictRequest], Mask] | None = None,
        *,
        labels: Sequence[Json] | None = None,
        confidence: float = 1.0,
    ) -> None:
        """
        Answer well.

        Args:
            mask: The mask, or what makes one of the request; by default what is brighter than half.
            labels: What the model says that it found; by default the prompt.
            confidence: How sure it is, from 0 to 1.

        Raises:
            TypeError: The mask is nothing of these; a file's name, say.
        """
        if not (mask is None or callable(mask)):
            _check_mask(mask)
        self._refusal = None
        self._mask, self._labels, self._confidence = mask, labels, confidence

    def refuse(
        self, message: str = "The model failed.", *, code: Code | str = Code.INFERENCE_FAILED
    ) -> None:
        """
        Fail for good: the task ends in ``error`` with this message, and is refunded.

        Args:
            message: For the user.
            code: The task's ``error_code``: ``INFERENCE_FAILED`` or ``INVALID_REQUEST``.
        """
        self._refusal = EdgeError(Code(code), message)

    def fail(self, times: int) -> None:
        """Fail as a GPU that is down, at the next so many requests; s3edge asks again up to 5 times."""
        self._failures = times

    def take(self, seconds: float) -> None:
        """Take so long for each request, of the test's time; s3edge gives one try 120 seconds."""
        self._seconds = seconds

    def hold(self) -> None:
        """Keep requests waiting until ``release``; their tasks are ``processing``."""
        self._holds = True

    def release(self, count: int | None = None) -> None:
        """
        Let requests go on that were held; return when they have, as far as they do at once.

        Args:
            count: How many, the oldest first, while the others and those to come are held on; by default
                all, and those to come are not held any more.
        """
        self._clock.settle()
        if count is None:
            self._holds = False
        released, self._held = self._held[:count], self._held[len(self._held[:count]) :]
        for each in released:
            each.set_result(None)
        self._clock.settle()

    async def predict(self, request: PredictRequest) -> Prediction:
        """Implement ``InferenceBackend``."""
        self._asked.append(request)
        if self._holds:
            await self._until_released()
        if self._seconds:
            await anyio.sleep(self._seconds)
        if self._failures:
            self._failures -= 1
            raise unavailable("The GPU is down.", retry_after_s=1)
        if self._refusal is not None:
            # A fresh one: each raise would make the traceback of one and the same longer.
            raise EdgeError(self._refusal.code, self._refusal.message)
        return await self._answered(request)

    async def predict_batch(self, request: BatchPredictRequest) -> BatchPrediction:
        """Implement ``InferenceBackend``."""
        return await self._bright.predict_batch(request)

    async def model_info(self) -> ModelInfo:
        """Implement ``InferenceBackend``."""
        return MODEL

    async def check(self) -> None:
        """Implement ``Checked``."""

    async def _until_released(self) -> None:
        held: Future[None] = Future()
        self._held.append(held)
        try:
            await asyncio.wrap_future(held)
        finally:
            # Who gave up is not held any more.
            if held in self._held:
                self._held.remove(held)

    async def _answered(self, request: PredictRequest) -> Prediction:
        mask = self._mask(request) if callable(self._mask) else self._mask
        labels = [request.text_prompt] if self._labels is None else list(self._labels)
        if mask is None:
            mask_url = (await self._bright.predict(request)).mask_url
        else:
            key = mask_key(request.user_id, request.task_id)
            mask_url = await store_mask(_png(mask), key, storage=self._storage)
        return Prediction(request.task_id, mask_url, labels, 0.0, self._confidence, "1")


def _check_mask(mask: object) -> None:
    if not isinstance(mask, bytes | Image.Image):
        message = f"a mask is a PNG's bytes or an image of Pillow's, and not {mask!r}"
        raise TypeError(message)


def _png(mask: Mask) -> bytes:
    if isinstance(mask, bytes):
        return mask
    encoded = io.BytesIO()
    mask.convert("L").save(encoded, "PNG")
    return encoded.getvalue()
