"""An upload by the SDK is never in memory as a whole."""

import asyncio
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from s3edge.client import AsyncClient, Client
from s3edge.rules.images import MAX_IMAGE_BYTES
from s3edge.testing.server import ServerProcess


ALLOWED_BYTES = 2 * 1024 * 1024
CHUNK_BYTES = 64 * 1024

Told = list[tuple[int, int]]


@pytest.fixture
def large(scene: bytes, tmp_path: Path) -> Path:
    """Return a file of exactly 10 MiB."""
    path = tmp_path / "large.png"
    path.write_bytes(scene)
    with path.open("r+b") as file:
        file.truncate(MAX_IMAGE_BYTES)
    return path


def chunks_of(path: Path) -> Iterator[bytes]:
    """Yield a file, as something that can be read only once."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def peak_of(work: Callable[[], object]) -> int:
    """Return how many bytes Python held at the most while something was done, beyond before."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def check_progress(told: Told) -> None:
    """Progress grew with every call and ended with the whole file."""
    sent = [each for each, _ in told]
    assert sent == sorted(set(sent))
    assert len(sent) > 100
    assert told[-1] == (MAX_IMAGE_BYTES, MAX_IMAGE_BYTES)
    assert {total for _, total in told} == {MAX_IMAGE_BYTES}


@pytest.fixture(params=["path", "file", "iterator"])
def source(request: pytest.FixtureRequest, large: Path) -> Iterator[Any]:
    """Return the file in each form that does not have it in memory."""
    with large.open("rb") as file:
        yield {"path": large, "file": file, "iterator": chunks_of(large)}[request.param]


def test_uploading_10_mib_holds_2(server: ServerProcess, source: Any) -> None:
    """By ``Client``, to a server in a process of its own."""
    told: Told = []
    with Client(base_url=server.url, token=server.token(uuid4())) as client:
        client.me()
        peak = peak_of(
            lambda: client.upload(
                source, on_progress=lambda sent, total: told.append((sent, total))
            )
        )
    assert peak <= ALLOWED_BYTES
    check_progress(told)


def test_uploading_10_mib_holds_2_awaited(server: ServerProcess, source: Any) -> None:
    """By ``AsyncClient``, likewise."""
    told: Told = []
    token = server.token(uuid4())

    async def upload() -> None:
        async with AsyncClient(base_url=server.url, token=token) as client:
            # What is loaded once for all calls is not the upload's.
            await client.me()
            tracemalloc.reset_peak()
            await client.upload(source, on_progress=lambda sent, total: told.append((sent, total)))

    peak = peak_of(lambda: asyncio.run(upload()))
    assert peak <= ALLOWED_BYTES
    check_progress(told)
