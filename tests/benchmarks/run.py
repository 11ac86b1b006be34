"""
Speed, as ratios measured in one run on this machine: ``make bench``.

Each figure is how many requests a second s3edge answers, over how many a bare Starlette application on
the same uvicorn answers that does the least for the same request: it reads the body, and writes a file
where s3edge writes one. Both serve from one process; load comes from another, over loopback.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from s3edge.cli.server import app_of, bind, url_of
from s3edge.config import build, parse_settings
from s3edge.testing.server import ServerProcess
from s3edge.testing.standins.postgres import PostgresServer
from s3edge_postgres.address import parse_address
from s3edge_postgres.applying import apply
from s3edge_postgres.migrations import migrations
from tests.benchmarks.doors import compare_doors
from tests.benchmarks.lists import compare_lists
from tests.benchmarks.load import (
    MEBIBYTE,
    MULTIPART,
    picture,
    rate,
    request,
    requests_of,
    serving,
    upload_form,
)


LAG_UPLOADS = 64

WITHOUT_DATABASE = {"GET /health", "POST /upload, 1 MiB"}

ROOT = Path(__file__).parents[2]
THIS = (sys.executable, "-m", "tests.benchmarks.run")


def main() -> None:
    """Print a row a kind of request, and tables of the doors; then how lists and HTTP clients compare."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres = stack.enter_context(PostgresServer(folder))
        url = postgres.create_plain_database("bench")
        apply(parse_address(url), lambda _: migrations())
        servers = {
            "SQLite": serving(stack, folder / "sqlite", {}),
            "Postgres": serving(stack, folder / "postgres", {"S3EDGE_DATABASE": url}),
        }
        bare = subprocess.Popen(
            [*THIS, "bare", str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        stack.callback(bare.wait)
        stack.callback(bare.terminate)
        assert bare.stdout is not None
        compare(servers, bare.stdout.readline().strip())
    with tempfile.TemporaryDirectory() as name:
        compare_doors(Path(name))
    with tempfile.TemporaryDirectory() as name:
        compare_lists(Path(name))
    # Not above: the servers that are measured are processes of this module, and would load it too.
    from tests.benchmarks.http_clients import compare_http_clients  # noqa: PLC0415

    compare_http_clients()
    print(f"\nlongest stop of the event loop under {LAG_UPLOADS} uploads of 10 MiB at once, with")
    print(f"segmentations running: {longest_stop_ms():.0f} ms")


def compare(servers: Mapping[str, ServerProcess], bare_url: str) -> None:
    """Measure all servers, request by request; what no database has a part in, by the first only."""
    print(f"{'request':<32}{'bare/s':>10}{'s3edge/s':>10}{'ratio':>8}")
    asked = {name: requests_of(server) for name, server in servers.items()}
    for request_name in next(iter(asked.values())):
        for name, server in servers.items():
            message = asked[name][request_name]
            if request_name in WITHOUT_DATABASE:
                if name != next(iter(servers)):
                    continue
                row = request_name
            else:
                row = f"{request_name}, {name}"
            theirs = asyncio.run(rate(bare_url, message))
            ours = asyncio.run(rate(server.url, message))
            print(f"{row:<32}{theirs:>10.0f}{ours:>10.0f}{ours / theirs:>8.2f}")


def serve_bare(folder: str) -> None:
    """Serve an application that does the least."""

    async def read(request: Request) -> JSONResponse:
        return JSONResponse({"success": True})

    async def write(request: Request) -> JSONResponse:
        async with request.form() as form:
            path = Path(folder) / str(uuid4())
            content = await form["file"].read()  # type: ignore[union-attr]
            await asyncio.to_thread(_write, path, content)
        return JSONResponse({"success": True})

    async def parse(request: Request) -> JSONResponse:
        await request.json()
        return JSONResponse({"success": True}, status_code=202)

    app = Starlette(
        routes=[
            Route("/health", read),
            Route("/api/v1/me", read),
            Route("/api/v1/results", read),
            Route("/api/v1/upload", write, methods=["POST"]),
            Route("/api/v1/segment", parse, methods=["POST"]),
        ]
    )
    with bind("127.0.0.1", 0) as listener:
        print(url_of(listener), flush=True)
        config = uvicorn.Config(app, log_level="error", access_log=False)
        uvicorn.Server(config).run([listener])


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    path.unlink()


def longest_stop_ms() -> float:
    """Return the longest time for which the server's event loop did nothing else, under load."""
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [*THIS, "lag", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert server.stdout is not None
        url, token = server.stdout.readline().split()
        image = picture()
        form = upload_form(image + bytes(10 * MEBIBYTE - len(image)))
        message = request("POST", "/api/v1/upload", token, form, MULTIPART)
        asyncio.run(once_each(url, [message] * LAG_UPLOADS))
        server.terminate()
        measured, _ = server.communicate()
        return float(measured)


async def once_each(url: str, messages: list[bytes]) -> None:
    """Send requests side by side, each on a connection of its own, and segment what was uploaded."""
    parts = urlsplit(url)

    async def one(message: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(message)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 20"), head
        length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
        body = await reader.readexactly(int(length.partition(b":")[2]))
        writer.close()
        return body

    token = messages[0].partition(b"Bearer ")[2].partition(b"\r\n")[0].decode()

    async def upload_and_segment(message: bytes) -> None:
        image_id = json.loads(await one(message))["data"]["image_id"]
        body = json.dumps({"image_id": image_id, "text_prompt": "red"}).encode()
        await one(request("POST", "/api/v1/segment", token, body, "application/json"))

    await asyncio.gather(*(upload_and_segment(message) for message in messages))


def serve_with_watch(folder: str) -> None:
    """Serve s3edge with a coroutine beside it that notices when the loop stands still."""
    settings = parse_settings({"S3EDGE_DATA_DIR": folder, "S3EDGE_RATE_LIMITS": "off"})
    with bind("127.0.0.1", 0) as listener:
        deployment = build(settings, bound_url=url_of(listener))
        app = app_of(deployment)
        serve = app.router.lifespan_context
        longest = 0.0

        async def watch() -> None:
            nonlocal longest
            interval_s = 0.005
            while True:
                began = time.perf_counter()
                await asyncio.sleep(interval_s)
                longest = max(longest, time.perf_counter() - began - interval_s)

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            async with serve(app):
                watching = asyncio.create_task(watch())
                yield
                watching.cancel()

        app.router.lifespan_context = lifespan
        issuer = deployment.gateway.authenticator.issuer  # type: ignore[attr-defined]
        print(url_of(listener), issuer.issue(uuid4()), flush=True)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
        # uvicorn raises the signal again when it has stopped, and the figure is printed after that.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            server.run([listener])
        finally:
            print(longest * 1000, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["bare"]:
        serve_bare(sys.argv[2])
    elif sys.argv[1:2] == ["lag"]:
        serve_with_watch(sys.argv[2])
    else:
        main()
