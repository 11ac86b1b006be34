"""The CPU predictor keeps every promise of the backend, by itself and behind the server's engine."""

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import uuid4

import attrs
import pytest

from s3edge.memory import MemoryObjectStorage
from s3edge.rules.keys import upload_key
from s3edge.testing import InferenceBackendContract, InferenceBackendHarness, ManualClock
from s3edge_inference.cpu import CpuPredictor
from s3edge_inference.engine_backend import EngineBackend
from s3edge_inference.in_process import InProcessBackend
from s3edge_inference.server.options import ServerOptions


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


@attrs.frozen
class CpuInThread(CpuPredictor):
    """The predictor in a thread of this process, batch after batch."""

    in_processes: bool = attrs.field(default=False, init=False)


class TestEngineBackend(InferenceBackendContract):
    """
    ``EngineBackend``, with the predictor run as one on a GPU is.

    Its images are on a host, because it gives an upload to nobody but the user whose it is.
    """

    @pytest.fixture
    async def harness(self) -> AsyncIterator[InferenceBackendHarness]:
        """Run a backend on an empty storage, beside a host of images."""
        storage = MemoryObjectStorage("http://testserver", ManualClock())
        images: dict[str, bytes] = {}
        with image_host(images) as host:

            async def put_image(content: bytes, content_type: str) -> str:
                path = f"/{len(images)}"
                images[path] = content
                return f"http://{host}{path}"

            options = ServerOptions(key="", private_image_hosts=frozenset({host}))
            async with EngineBackend(CpuInThread(), storage, options) as backend:
                await backend.load()
                yield InferenceBackendHarness(backend, storage, put_image)


@contextmanager
def image_host(images: dict[str, bytes]) -> Iterator[str]:
    """Run a host that gives what is in a dictionary, and return its name and port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(images[self.path])

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
