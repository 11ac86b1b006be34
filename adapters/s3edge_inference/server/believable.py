"""
What a predictor says of an image, as a gateway will read it.

A gateway takes a server that answers nonsense for one that is broken, and rests it, for everybody. So an
answer that it would not believe must not go out: it is the model's failure, on one image.
"""

from uuid import UUID

import msgspec
from attrs import evolve

from s3edge.values import ModelInfo
from s3edge_inference.inference_api import (
    MAX_ANSWER_BYTES,
    MAX_NAME_LENGTH,
    NotInferenceApiError,
    PredictAnswer,
    read_model_info,
    read_prediction,
)
from s3edge_inference.predictors import PredictorUnavailable, Segmentation
from s3edge_inference.server.messages import model_info_answer


MAX_SAID_BYTES = MAX_ANSWER_BYTES // 16
"""Labels and metadata of one prompt: the answer to ten of them is still one that gateways read."""

_ANY_TASK = UUID(int=0)

_ANY_URL = "http://mask/"


class NotBelievableError(ValueError):
    """A predictor's answer is none; the text says what its author has to mend."""


def believable(segmentation: Segmentation) -> Segmentation:
    """
    Return a predictor's answer as plain values, by the gateway's own rules.

    Arrays' own floats are taken for the numbers that they are; what JSON does not know is not.

    Raises:
        NotBelievableError: A gateway would not believe it.
    """
    if not isinstance(segmentation.mask_png, bytes):
        raise NotBelievableError(_fault(f"mask_png is {_type(segmentation.mask_png)}, not bytes"))
    try:
        labels = list(segmentation.labels)
        for label in labels:
            if not isinstance(label, str):
                raise TypeError(f"a label is {_type(label)}, not str")  # noqa: TRY301
        said = PredictAnswer(
            task_id=_ANY_TASK,
            mask_url=_ANY_URL,
            # Subclasses of str, numpy.str_ among them, are no JSON as they are.
            labels=[str(label) for label in labels],
            inference_time_ms=0.0,
            confidence=float(segmentation.confidence),
            metadata=dict(segmentation.metadata),
        )
        encoded = msgspec.json.encode(said)
        read = read_prediction(encoded, _ANY_TASK)
    except NotInferenceApiError as error:
        wanted = f"confidence is 0 to 1 (here {segmentation.confidence!r}), the rest is JSON"
        message = _fault(f"{error}: {wanted}")
        raise NotBelievableError(message) from None
    except (TypeError, ValueError, RecursionError) as error:
        # Of msgspec's: it names the type that it cannot encode.
        raise NotBelievableError(_fault(str(error))) from None
    if len(encoded) > MAX_SAID_BYTES:
        message = _fault(f"labels and metadata have {len(encoded)} bytes, over {MAX_SAID_BYTES}")
        raise NotBelievableError(message)
    return evolve(
        segmentation,
        labels=tuple(read.labels),
        confidence=read.confidence,
        metadata=read.metadata,
    )


def believable_info(info: ModelInfo) -> ModelInfo:
    """
    Return which model a predictor says it is, by the same rules: each of its answers names the version.

    Raises:
        PredictorUnavailable: A gateway would not believe it.
    """
    try:
        return read_model_info(msgspec.json.encode(model_info_answer(info)))
    except (TypeError, ValueError) as error:
        # NotInferenceApiError is a ValueError; msgspec's name the type that it cannot encode.
        reason = str(error)
    message = (
        f"what the predictor's info() says cannot be used: {reason}; names have"
        f" {MAX_NAME_LENGTH} characters at the most, and numbers are plain ones from 0"
    )
    raise PredictorUnavailable(message)


def _fault(what: str) -> str:
    return f"the predictor's answer cannot be used: {what}"


def _type(value: object) -> str:
    return type(value).__name__
