"""Reading images when there are more of them than places."""

from collections.abc import AsyncIterator
from uuid import uuid4

import anyio
import pytest

from s3edge.errors import EdgeError
from s3edge.gateway import SystemClock
from s3edge.memory.storage import MemoryObjectStorage
from s3edge.rules.keys import upload_key
from s3edge_inference.server.images import Images
from s3edge_inference.server.metrics import Metrics
from s3edge_inference.server.options import MAX_DOWNLOADS, ServerOptions


pytestmark = pytest.mark.anyio

TIMEOUT_S = 20.0


class StubbornStorage(MemoryObjectStorage):
    """A storage whose reads end when a test says so, cancelled or not."""

    def __init__(self) -> None:
        super().__init__("http://images.invalid", SystemClock())
        self.may_end = anyio.Event()
        self.opened = 0

    async def open(self, key: str) -> AsyncIterator[bytes]:
        """Hold the reader."""
        self.opened += 1
        with anyio.CancelScope(shield=True):
            await self.may_end.wait()
        yield b"no image"


async def test_nobody_waits_for_a_place_without_end() -> None:
    """It is the server that has no room, so the task is for another one."""
    user_id, storage = uuid4(), StubbornStorage()
    url = storage.url_for(upload_key(user_id, uuid4()))
    refused: list[EdgeError] = []

    async def read() -> None:
        try:
            await images.read(url, user_id)
        except EdgeError as error:
            refused.append(error)

    options = ServerOptions("key", image_timeout_s=0.1)
    async with Images(storage, options, Metrics()) as images:
        with anyio.fail_after(TIMEOUT_S):
            async with anyio.create_task_group() as group:
                for _ in range(MAX_DOWNLOADS):
                    group.start_soon(read)
                while storage.opened < MAX_DOWNLOADS:
                    await anyio.sleep(0.01)
                with pytest.raises(EdgeError, match="Too many images") as caught:
                    await images.read(url, user_id)
                storage.may_end.set()
    assert caught.value.retryable
    assert len(refused) == storage.opened == MAX_DOWNLOADS
