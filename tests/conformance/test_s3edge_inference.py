"""The CPU predictor in worker processes keeps every promise of the backend."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from s3edge.memory import MemoryObjectStorage
from s3edge.rules.keys import upload_key
from s3edge.testing import InferenceBackendContract, InferenceBackendHarness, ManualClock
from s3edge_inference.cpu import CpuPredictor
from s3edge_inference.in_process import InProcessBackend


class TestInProcessBackend(InferenceBackendContract):
    """``InProcessBackend`` with the CPU predictor."""

    @pytest.fixture
    def harness(self) -> InferenceBackendHarness:
        """Return a backend on an empty storage."""
        storage = MemoryObjectStorage("http://testserver", ManualClock())

        async def chunks(content: bytes) -> AsyncIterator[bytes]:
            yield content

        async def put_image(content: bytes, content_type: str) -> str:
            key = upload_key(uuid4(), uuid4())
            await storage.put(key, chunks(content), content_type=content_type)
            return storage.url_for(key)

        return InferenceBackendHarness(
            InProcessBackend(storage, CpuPredictor(), processes=1), storage, put_image
        )
