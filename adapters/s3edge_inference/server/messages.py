"""The inference API's messages on the server's side: requests are checked, answers made."""

from collections.abc import Sequence
from typing import Protocol, TypeVar
from uuid import UUID

import msgspec
from attrs import frozen

from s3edge.errors import Code, EdgeError
from s3edge.rules.keys import unsigned
from s3edge.rules.prompts import clean_prompt
from s3edge.values import ModelInfo, Prediction
from s3edge_inference.inference_api import (
    MAX_URL_LENGTH,
    BatchAnswer,
    BatchMessage,
    HealthAnswer,
    ModelInfoAnswer,
    PredictAnswer,
    PredictMessage,
)
from s3edge_inference.predictors import GpuMemory


MAX_PROMPTS = 10
"""Contract: 1 to 10 in a batch."""

T = TypeVar("T")


@frozen
class Wanted:
    """
    What a request asks for.

    Attributes:
        task_id: Names the run.
        user_id: Whose it is.
        image_url: Where the image is.
        prompts: What to segment.
    """

    task_id: UUID
    user_id: UUID
    image_url: str
    prompts: tuple[str, ...]

    def is_repeated_by(self, other: "Wanted") -> bool:
        """Tell whether another request is this one again; its URL may be signed anew."""
        return (self.task_id, self.user_id, unsigned(self.image_url), self.prompts) == (
            other.task_id,
            other.user_id,
            unsigned(other.image_url),
            other.prompts,
        )


@frozen
class Answer:
    """
    What a task came to.

    Attributes:
        predictions: One a prompt.
        total_inference_time_ms: What the model took for all of them.
    """

    predictions: Sequence[Prediction]
    total_inference_time_ms: float


class Kind(Protocol):
    """One of the two ways of asking."""

    def read(self, body: bytes) -> Wanted:
        """
        Return what a body asks for.

        Raises:
            EdgeError: ``INVALID_REQUEST``.
        """

    def answered(self, wanted: Wanted, answer: Answer) -> object:
        """Return the message that answers."""


class OnePrompt:
    """``POST /api/v1/predict``."""

    def read(self, body: bytes) -> Wanted:
        """Implement ``Kind``."""
        message = _decoded(body, PredictMessage)
        return _wanted(message, [message.text_prompt])

    def answered(self, wanted: Wanted, answer: Answer) -> object:  # noqa: ARG002 - the other's signature
        """Implement ``Kind``."""
        return _predict_answer(answer.predictions[0])


class SeveralPrompts:
    """``POST /api/v1/predict/batch``."""

    def read(self, body: bytes) -> Wanted:
        """Implement ``Kind``."""
        message = _decoded(body, BatchMessage)
        if not 1 <= len(message.prompts) <= MAX_PROMPTS:
            raise _invalid(f"Send 1 to {MAX_PROMPTS} prompts.")
        return _wanted(message, message.prompts)

    def answered(self, wanted: Wanted, answer: Answer) -> object:
        """Implement ``Kind``."""
        return BatchAnswer(
            wanted.task_id,
            [_predict_answer(prediction) for prediction in answer.predictions],
            answer.total_inference_time_ms,
        )


def health_answer(status: str, *, is_loaded: bool, memory: GpuMemory | None) -> HealthAnswer:
    """Return what ``/health`` says."""
    return HealthAnswer(
        status=status,
        model_loaded=is_loaded,
        gpu_available=memory is not None,
        gpu_name=None if memory is None else memory.gpu_name,
        vram_used_mb=0.0 if memory is None else memory.used_mb,
        vram_total_mb=0.0 if memory is None else memory.total_mb,
    )


def model_info_answer(info: ModelInfo) -> ModelInfoAnswer:
    """Return what ``/api/v1/model/info`` says."""
    return ModelInfoAnswer(
        model_name=info.model_name,
        model_version=info.model_version,
        parameters=info.parameters,
        weights_size_gb=info.weights_size_gb,
        device=info.device,
        dtype=info.dtype,
    )


def _decoded(body: bytes, message: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=message)
    except msgspec.ValidationError as error:
        # It names the field, and nothing of what was sent.
        raise _invalid(f"The request is not the inference API's: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _invalid("The request is no JSON.") from None
    except RecursionError:
        raise _invalid("The request is nested too deeply.") from None


def _wanted(message: PredictMessage | BatchMessage, prompts: Sequence[str]) -> Wanted:
    if len(message.image_url) > MAX_URL_LENGTH:
        raise _invalid(f"The image's address has more than {MAX_URL_LENGTH} characters.")
    cleaned = tuple(clean_prompt(prompt) for prompt in prompts)
    return Wanted(message.task_id, message.user_id, message.image_url, cleaned)


def _predict_answer(prediction: Prediction) -> PredictAnswer:
    return PredictAnswer(
        task_id=prediction.task_id,
        mask_url=prediction.mask_url,
        labels=list(prediction.labels),
        inference_time_ms=prediction.inference_time_ms,
        confidence=prediction.confidence,
        model_version=prediction.model_version,
        metadata=dict(prediction.metadata),
    )


def _invalid(message: str) -> EdgeError:
    return EdgeError(Code.INVALID_REQUEST, message)
