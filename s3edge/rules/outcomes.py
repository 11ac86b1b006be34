"""What of a prediction is kept as a task's result."""

from s3edge.rules.keys import unsigned
from s3edge.values import Json, Outcome, Prediction


def outcome_of(prediction: Prediction) -> Outcome:
    """Return the result that a prediction makes; what the contract names wins over the model's own."""
    metadata: dict[str, Json] = {
        **prediction.metadata,
        "inference_time_ms": prediction.inference_time_ms,
        "confidence": prediction.confidence,
    }
    if prediction.model_version is not None:
        metadata["model_version"] = prediction.model_version
    return Outcome(unsigned(prediction.mask_url), prediction.labels, metadata)
