"""
Speed, as ratios measured in one run on this machine: ``make bench``.

Each figure is how many requests a second s3edge answers, over how many a bare Starlette application on
the same uvicorn answers that does the least for the same request: it reads the body, and writes a file
where s3edge writes one. Both serve from one process; load comes from another, over loopback.
"""

import asyncio
import io
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
from statistics import median
from urllib.parse import urlsplit
from uuid import uuid4

import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from s3edge.cli.server import app_of, bind, url_of
from s3edge.config import build, parse_settings
from s3edge.testing.server import ServerProcess
from s3edge.testing.standins.postgres import PostgresServer
from s3edge.testing.wsgi_server import APP, CORES, HOOKS, GunicornProcess, WaitressProcess
from s3edge_postgres.address import parse_address
from s3edge_postgres.applying import apply
from s3edge_postgres.migrations import migrations
from tests.benchmarks.lists import compare_lists


CONNECTIONS = 32
SECONDS = 3.0
MEBIBYTE = 1024 * 1024
LAG_UPLOADS = 64
THREADS = 16
ROUNDS = 5

DEFAULTS = {
    "S3EDGE_RATE_LIMITS": "off",
    "S3EDGE_INITIAL_CREDITS": "1000000",
    "S3EDGE_LOG": "error",
}

MULTIPART = "multipart/form-data; boundary=B"

WITHOUT_DATABASE = {"GET /health", "POST /upload, 1 MiB"}

ROOT = Path(__file__).parents[2]
THIS = (sys.executable, "-m", "tests.benchmarks.run")


def main() -> None:
    """Print a row a kind of request, likewise for each door; then how lists and HTTP clients compare."""
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
        compare_doors(stack, folder, servers["SQLite"])
    with tempfile.TemporaryDirectory() as name:
        compare_lists(Path(name))
    # Not above: the servers that are measured are processes of this module, and would load it too.
    from tests.benchmarks.http_clients import compare_http_clients  # noqa: PLC0415

    compare_http_clients()
    print(f"\nlongest stop of the event loop under {LAG_UPLOADS} uploads of 10 MiB at once, with")
    print(f"segmentations running: {longest_stop_ms():.0f} ms")


def serving(stack: ExitStack, folder: Path, settings: Mapping[str, str]) -> ServerProcess:
    """Start a server that keeps what it has in a folder."""
    server = ServerProcess(made(folder), {**DEFAULTS, **settings})
    server.start()
    stack.callback(server.stop)
    return server


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


def compare_doors(stack: ExitStack, folder: Path, starlette: ServerProcess) -> None:
    """
    Measure the doors on the same work, by turns; medians of several rounds, as ratios to Starlette's.

    Starlette is one process; the others have 16 threads, in one process or in two. Each is measured as it
    comes, and with each process kept on a core of its own, as the documentation advises.
    """
    core = f"import os\nos.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})\n"
    servers: dict[str, ServerProcess] = {"Starlette": starlette}
    for name, server in {
        "gunicorn": GunicornProcess(made(folder / "1"), DEFAULTS, threads=THREADS),
        "gunicorn, on a core": GunicornProcess(
            made(folder / "2"), DEFAULTS, threads=THREADS, hooks=HOOKS + CORES
        ),
        "gunicorn, 2 processes": GunicornProcess(
            made(folder / "3"), DEFAULTS, threads=THREADS // 2, workers=2
        ),
        "gunicorn, 2, each on a core": GunicornProcess(
            made(folder / "4"), DEFAULTS, threads=THREADS // 2, workers=2, hooks=HOOKS + CORES
        ),
        "waitress": WaitressProcess(made(folder / "5"), DEFAULTS, threads=THREADS),
        "waitress, on a core": WaitressProcess(
            made(folder / "6"), DEFAULTS, threads=THREADS, source=core + APP
        ),
    }.items():
        server.start()
        stack.callback(server.stop)
        stack.callback(server.release)
        servers[name] = server
    asked = {name: requests_of(server) for name, server in servers.items()}
    print(f"\n{str(THREADS) + ' threads':<28}", end="")
    print("".join(f"{request_name:>21}" for request_name in asked["Starlette"]))
    measured: dict[str, list[str]] = {name: [] for name in servers}
    for request_name in asked["Starlette"]:
        rounds = [
            {
                name: asyncio.run(rate(server.url, asked[name][request_name], SECONDS / 3))
                for name, server in servers.items()
            }
            for _ in range(ROUNDS)
        ]
        rates = {name: median(each[name] for each in rounds) for name in servers}
        for name, one in rates.items():
            measured[name].append(f"{one:>13.0f}{one / rates['Starlette']:>8.2f}")
    for name, row in measured.items():
        print(f"{name:<28}{''.join(row)}")


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
