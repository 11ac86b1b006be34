"""Real server processes on loopback, and what is sent to them."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from s3edge.testing.server import ServerProcess, StartServer


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Start servers with settings of their own; they are ended with the test."""
    servers: list[ServerProcess] = []

    def start(*arguments: str, **settings: str) -> ServerProcess:
        folder = tmp_path / f"server-{len(servers)}"
        folder.mkdir()
        server = ServerProcess(folder, settings, arguments)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        if server.is_running():
            server.kill()


@pytest.fixture
def server(start_server: StartServer) -> ServerProcess:
    """Return a server with every default but the limits."""
    return start_server(S3EDGE_RATE_LIMITS="off")


@pytest.fixture(scope="session")
def scene() -> bytes:
    """Return a PNG: a red disc on grey."""
    image = Image.new("RGB", (96, 64), (120, 124, 128))
    ImageDraw.Draw(image).ellipse((30, 12, 70, 52), fill=(210, 30, 40))
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()
