"""GPU servers over HTTP keep every promise of the backend, one of them and several."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from uuid import uuid4

import pytest

from s3edge.cli.server import bind, running_in_thread, url_of
from s3edge.masks import store_mask
from s3edge.memory import MemoryObjectStorage
from s3edge.rules.keys import upload_key
from s3edge.testing import (
    InferenceBackendContract,
    InferenceBackendHarness,
    MemoryDeployment,
    memory_deployment,
)
from s3edge.testing.standins.gpu_server import create_app as create_gpu_server
from s3edge_inference.http_backend import HttpBackend
from s3edge_starlette import create_app


KEY = "a-key"


@pytest.fixture(scope="module")
def images() -> Iterator[MemoryDeployment]:
    """Serve the objects of a storage over HTTP, which is how GPU servers read them."""
    with bind("127.0.0.1", 0) as listener:
        deployment = memory_deployment(url_of(listener))
        with running_in_thread(create_app(deployment.web), listener):
            yield deployment


@pytest.fixture(scope="module")
def urls(images: MemoryDeployment) -> Iterator[Sequence[str]]:
    """Run two GPU servers that keep their masks in the same storage."""

    async def store(key: str, png: bytes) -> str:
        return await store_mask(png, key, storage=images.storage)

    with ExitStack() as stack:
        found = []
        for _ in range(2):
            listener = stack.enter_context(bind("127.0.0.1", 0))
            stack.enter_context(running_in_thread(create_gpu_server(KEY, store=store), listener))
            found.append(url_of(listener))
        yield found


async def harness_of(
    urls: Sequence[str], storage: MemoryObjectStorage
) -> AsyncIterator[InferenceBackendHarness]:
    """Yield an open backend on these servers."""

    async def chunks(content: bytes) -> AsyncIterator[bytes]:
        yield content

    async def put_image(content: bytes, content_type: str) -> str:
        key = upload_key(uuid4(), uuid4())
        await storage.put(key, chunks(content), content_type=content_type)
        return storage.url_for(key)

    async with HttpBackend(urls, KEY) as backend:
        yield InferenceBackendHarness(backend, storage, put_image)


class TestHttpBackend(InferenceBackendContract):
    """``HttpBackend`` and one server."""

    @pytest.fixture
    async def harness(
        self, urls: Sequence[str], images: MemoryDeployment
    ) -> AsyncIterator[InferenceBackendHarness]:
        """Return an open backend."""
        async for harness in harness_of(urls[:1], images.storage):
            yield harness


class TestHttpBackendOfSeveral(InferenceBackendContract):
    """``HttpBackend`` and two servers, which take turns."""

    @pytest.fixture
    async def harness(
        self, urls: Sequence[str], images: MemoryDeployment
    ) -> AsyncIterator[InferenceBackendHarness]:
        """Return an open backend."""
        async for harness in harness_of(urls, images.storage):
            yield harness
