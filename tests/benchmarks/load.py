"""What is sent to a server, and how many answers a second come back."""

import asyncio
import io
import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

from PIL import Image

from s3edge.testing.server import ServerProcess


CONNECTIONS = 32
SECONDS = 3.0
MEBIBYTE = 1024 * 1024

DEFAULTS = {
    "S3EDGE_RATE_LIMITS": "off",
    "S3EDGE_INITIAL_CREDITS": "1000000",
    "S3EDGE_LOG": "error",
}

MULTIPART = "multipart/form-data; boundary=B"


def serving(stack: ExitStack, folder: Path, settings: Mapping[str, str]) -> ServerProcess:
    """Start a server that keeps what it has in a folder."""
    server = ServerProcess(made(folder), {**DEFAULTS, **settings})
    server.start()
    stack.callback(server.stop)
    return server


def made(folder: Path) -> Path:
    """Make a folder."""
    folder.mkdir()
    return folder


def requests_of(server: ServerProcess) -> Mapping[str, bytes]:
    """Return the requests of one user, who has uploaded an image."""
    token = server.token(uuid4())
    image = picture()
    with server.client() as client:
        client.headers["Authorization"] = f"Bearer {token}"
        uploaded = client.post("/api/v1/upload", files={"file": ("x.png", image, "image/png")})
        image_id = uploaded.json()["data"]["image_id"]
    body = json.dumps({"image_id": image_id, "text_prompt": "red"}).encode()
    form = upload_form(image + bytes(MEBIBYTE - len(image)))
    return {
        "GET /health": request("GET", "/health", token),
        "GET /me": request("GET", "/api/v1/me", token),
        "GET /results": request("GET", "/api/v1/results", token),
        "POST /upload, 1 MiB": request("POST", "/api/v1/upload", token, form, MULTIPART),
        "POST /segment": request("POST", "/api/v1/segment", token, body, "application/json"),
    }


def picture() -> bytes:
    """Return a small PNG."""
    encoded = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 40, 40)).save(encoded, "PNG")
    return encoded.getvalue()


def upload_form(image: bytes) -> bytes:
    """Return the multipart body of an upload."""
    head = (
        '--B\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n'
        "Content-Type: image/png\r\n\r\n"
    )
    return head.encode() + image + b"\r\n--B--\r\n"


def request(
    method: str, path: str, token: str, body: bytes = b"", content_type: str = "text/plain"
) -> bytes:
    """Return a request as it goes over the wire."""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def rate(url: str, message: bytes, seconds: float = SECONDS) -> float:
    """Return how many answers a second a server gives to one request, over and over."""
    parts = urlsplit(url)
    ends_at = time.perf_counter() + seconds
    started = time.perf_counter()

    async def connection() -> int:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        answers = 0
        while time.perf_counter() < ends_at:
            writer.write(message)
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 20"), head
            length = next(
                line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
            )
            await reader.readexactly(int(length.partition(b":")[2]))
            answers += 1
        writer.close()
        return answers

    counts = await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return sum(counts) / (time.perf_counter() - started)
