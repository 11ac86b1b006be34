"""
The messages of the inference API, and which of them are believed.

A GPU server is another program, perhaps of another version, perhaps behind a proxy that answers for
it. So an answer is the contract's message in every field, or it is none.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from s3edge.values import (
    BatchPrediction,
    BatchPredictRequest,
    Json,
    ModelInfo,
    Prediction,
    PredictRequest,
)


HEALTH_PATH = "/health"
MODEL_INFO_PATH = "/api/v1/model/info"
PREDICT_PATH = "/api/v1/predict"
BATCH_PATH = "/api/v1/predict/batch"

KEY_HEADER = "X-API-Key"

MAX_ANSWER_BYTES = 1024 * 1024
"""Masks travel by URL, so no message of the contract comes near."""

MAX_URL_LENGTH = 4096
"""A presigned URL with a session token has about 2,000 characters."""

MAX_NAME_LENGTH = 200

MAX_LABELS_DEPTH = 16
"""Labels are kept as they are; what is nested deeper is an attack on those who read it."""

_PRINTABLE_ASCII = re.compile(r"[!-~]+")

NotNegative = Annotated[float, Meta(ge=0)]
Name = Annotated[str, Meta(max_length=MAX_NAME_LENGTH)]

T = TypeVar("T")


class NotInferenceApiError(ValueError):
    """
    An answer is not the contract's message.

    The text says what is wrong in a few words of ours, never of the answer's.
    """


class PredictMessage(Struct, frozen=True):
    """The body of ``POST /api/v1/predict``."""

    image_url: str
    text_prompt: str
    user_id: UUID
    task_id: UUID


class BatchMessage(Struct, frozen=True):
    """The body of ``POST /api/v1/predict/batch``."""

    image_url: str
    prompts: Sequence[str]
    user_id: UUID
    task_id: UUID


class PredictAnswer(Struct, frozen=True):
    """
    The answer to one prompt.

    Attributes:
        task_id: The request's.
        mask_url: Where the mask is.
        labels: What the model found.
        inference_time_ms: How long the model took.
        confidence: 0 to 1.
        model_version: Beyond the contract; taken when a server says it.
        metadata: Likewise: what else the model said.
    """

    task_id: UUID
    mask_url: Annotated[str, Meta(max_length=MAX_URL_LENGTH)]
    labels: list[Any]
    inference_time_ms: NotNegative
    confidence: Annotated[float, Meta(ge=0, le=1)]
    model_version: Name | None = None
    metadata: dict[str, Any] = {}


class BatchAnswer(Struct, frozen=True):
    """The answers to several prompts, in their order."""

    task_id: UUID
    results: list[PredictAnswer]
    total_inference_time_ms: NotNegative


class HealthAnswer(Struct, frozen=True):
    """
    How a server is.

    Only the first two decide anything; the others are shown to the operator, where they are given.
    """

    status: Name
    model_loaded: bool
    gpu_available: bool | None = None
    gpu_name: Name | None = None
    vram_used_mb: float | None = None
    vram_total_mb: float | None = None


class ModelInfoAnswer(Struct, frozen=True):
    """Which model a server runs."""

    model_name: Name
    model_version: Name
    parameters: Annotated[int, Meta(ge=0)]
    weights_size_gb: NotNegative
    device: Name
    dtype: Name


def predict_body(request: PredictRequest) -> bytes:
    """Return the body that asks for one prompt."""
    return msgspec.json.encode(
        PredictMessage(request.image_url, request.text_prompt, request.user_id, request.task_id)
    )


def batch_body(request: BatchPredictRequest) -> bytes:
    """Return the body that asks for several prompts."""
    return msgspec.json.encode(
        BatchMessage(request.image_url, list(request.prompts), request.user_id, request.task_id)
    )


def read_prediction(body: bytes, task_id: UUID) -> Prediction:
    """
    Return what a server predicted for a task.

    Raises:
        NotInferenceApiError: It is not the contract's message, or another task's.
    """
    return _prediction(_decoded(body, PredictAnswer), task_id)


def read_batch(body: bytes, task_id: UUID, prompts: int) -> BatchPrediction:
    """
    Return what a server predicted for so many prompts of a task.

    Raises:
        NotInferenceApiError: It is not the contract's message, another task's or of other prompts.
    """
    answer = _decoded(body, BatchAnswer)
    if answer.task_id != task_id:
        raise NotInferenceApiError("it is another task's")
    if len(answer.results) != prompts:
        raise NotInferenceApiError("it has not one result for each prompt")
    results = [_prediction(result, task_id) for result in answer.results]
    return BatchPrediction(task_id, results, answer.total_inference_time_ms)


def read_health(body: bytes) -> HealthAnswer:
    """
    Return how a server says it is.

    Raises:
        NotInferenceApiError: It is not the contract's message.
    """
    return _decoded(body, HealthAnswer)


def read_model_info(body: bytes) -> ModelInfo:
    """
    Return which model a server says it runs.

    Raises:
        NotInferenceApiError: It is not the contract's message.
    """
    answer = _decoded(body, ModelInfoAnswer)
    return ModelInfo(
        model_name=answer.model_name,
        model_version=answer.model_version,
        parameters=answer.parameters,
        weights_size_gb=answer.weights_size_gb,
        device=answer.device,
        dtype=answer.dtype,
    )


def _decoded(body: bytes, message: type[T]) -> T:
    if len(body) > MAX_ANSWER_BYTES:
        raise NotInferenceApiError("it is too long")
    try:
        return msgspec.json.decode(body, type=message)
    except msgspec.ValidationError:
        raise NotInferenceApiError("it lacks what the contract asks for") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise NotInferenceApiError("it is no JSON") from None
    except RecursionError:
        raise NotInferenceApiError("it is nested too deeply") from None


def _prediction(answer: PredictAnswer, task_id: UUID) -> Prediction:
    if answer.task_id != task_id:
        raise NotInferenceApiError("it is another task's")
    if not _is_http_url(answer.mask_url):
        raise NotInferenceApiError("its mask_url is no HTTP address")
    for said in (answer.labels, answer.metadata):
        if not _can_be_kept(said, MAX_LABELS_DEPTH):
            raise NotInferenceApiError("what it says holds NUL characters or is nested too deeply")
    return Prediction(
        task_id=task_id,
        mask_url=answer.mask_url,
        labels=answer.labels,
        inference_time_ms=answer.inference_time_ms,
        confidence=answer.confidence,
        model_version=answer.model_version,
        metadata=answer.metadata,
    )


def _is_http_url(text: str) -> bool:
    if _PRINTABLE_ASCII.fullmatch(text) is None:
        return False
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc


def _can_be_kept(value: Json, depth: int) -> bool:
    """Tell whether a database can keep a value: Postgres' jsonb takes no NUL character."""
    if isinstance(value, str):
        return "\0" not in value
    if isinstance(value, list):
        return depth > 0 and all(_can_be_kept(item, depth - 1) for item in value)
    if isinstance(value, dict):
        return depth > 0 and all(
            "\0" not in name and _can_be_kept(item, depth - 1) for name, item in value.items()
        )
    return True
