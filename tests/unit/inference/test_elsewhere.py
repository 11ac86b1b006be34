"""What a gateway has in the model's place when the queue's workers have the model."""

from uuid import uuid4

import pytest

from s3edge.errors import Code, EdgeError
from s3edge.values import BatchPredictRequest, PredictRequest
from s3edge_inference.elsewhere import ElsewhereBackend


pytestmark = pytest.mark.anyio


async def test_it_is_never_down_and_predicts_nothing() -> None:
    """Readiness does not depend on it; a task that came here by mistake would not end for it."""
    backend = ElsewhereBackend()
    await backend.check()
    assert [finding.ok async for finding in backend.examine()] == [True]
    one = PredictRequest(uuid4(), uuid4(), "http://x/", "red")
    several = BatchPredictRequest(uuid4(), uuid4(), "http://x/", ["red"])
    for call in (backend.predict(one), backend.predict_batch(several), backend.model_info()):
        with pytest.raises(EdgeError) as caught:
            await call
        assert (caught.value.code, caught.value.retryable) == (Code.SERVICE_UNAVAILABLE, True)
