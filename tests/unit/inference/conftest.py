"""GPU servers that answer as a test says, and backends on them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

import pytest

from s3edge.errors import EdgeError
from s3edge.testing import ManualClock
from s3edge.testing.standins.scripted_server import Reply, ScriptedServer, reply
from s3edge.values import PredictRequest
from s3edge_inference.http_backend import HttpBackend


KEY = "the-secret-key"

TASK = UUID("11111111-1111-4111-8111-111111111111")
USER = UUID("22222222-2222-4222-8222-222222222222")
IMAGE_URL = "http://images.test/a?X-Amz-Signature=hunter2"

WELL: Mapping[str, Any] = {
    "/health": {
        "status": "ok",
        "model_loaded": True,
        "gpu_available": True,
        "gpu_name": "NVIDIA L4",
        "vram_used_mb": 5120,
        "vram_total_mb": 23034,
    },
    "/api/v1/model/info": {
        "model_name": "sam3",
        "model_version": "3.0",
        "parameters": 848_000_000,
        "weights_size_gb": 3.4,
        "device": "cuda:0",
        "dtype": "bfloat16",
    },
    "/api/v1/predict": {
        "task_id": str(TASK),
        "mask_url": "https://masks.test/m?sig=1",
        "labels": ["car"],
        "inference_time_ms": 12.5,
        "confidence": 0.75,
    },
}


@pytest.fixture
def time() -> ManualClock:
    """Let time stand still until the test moves it."""
    return ManualClock()


@pytest.fixture
def well() -> Mapping[str, Reply]:
    """Return the contract's answers, by path."""
    return {path: reply(body) for path, body in WELL.items()}


@pytest.fixture
async def server(well: Mapping[str, Reply]) -> AsyncIterator[ScriptedServer]:
    """Run one server."""
    server = ScriptedServer(dict(well))
    async with server.serving():
        yield server


@pytest.fixture
async def other(well: Mapping[str, Reply]) -> AsyncIterator[ScriptedServer]:
    """Run another."""
    server = ScriptedServer(dict(well))
    async with server.serving():
        yield server


def seconds_of(time: ManualClock) -> Callable[[], float]:
    """Return a clock's time in seconds."""
    return lambda: time.now().timestamp()


@pytest.fixture
async def backend(server: ScriptedServer, time: ManualClock) -> AsyncIterator[HttpBackend]:
    """Return an open backend on one server."""
    async with HttpBackend([server.url], KEY, now=seconds_of(time), place_timeout_s=0) as backend:
        yield backend


@pytest.fixture
async def both(
    server: ScriptedServer, other: ScriptedServer, time: ManualClock
) -> AsyncIterator[HttpBackend]:
    """Return an open backend on both servers."""
    async with HttpBackend(
        [server.url, other.url], KEY, now=seconds_of(time), place_timeout_s=0
    ) as backend:
        yield backend


@pytest.fixture
def refusal() -> Callable[[HttpBackend], Awaitable[EdgeError]]:
    """Say how a prediction is refused, having looked that no secret is in it."""

    async def refusal_of(backend: HttpBackend) -> EdgeError:
        with pytest.raises(EdgeError) as caught:
            await backend.predict(PredictRequest(TASK, USER, IMAGE_URL, "the red car"))
        texts = f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"
        assert not any(secret in texts for secret in (KEY, "hunter2", "127.0.0.1"))
        return caught.value

    return refusal_of


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[int, str]]]:
    """Return the lines that were logged, having looked that no secret is in them."""

    def lines() -> list[tuple[int, str]]:
        found = [
            (record.levelno, record.getMessage())
            for record in caplog.records
            if record.name.startswith("s3edge")
        ]
        assert not any(secret in line for _, line in found for secret in (KEY, "hunter2"))
        return found

    return lines
