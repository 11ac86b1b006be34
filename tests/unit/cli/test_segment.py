"""``s3edge segment``, ended while the server works; how it goes on otherwise, ``tests/e2e`` shows."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from uuid import UUID

import pytest
from PIL import Image

from s3edge.cli.segment import words_on
from s3edge.client import ConnectionFailed


TASK_ID = UUID("6b6f2c1e-2222-4222-8222-222222222222")

UPLOADED = {
    "image_id": "6b6f2c1e-3333-4333-8333-333333333333",
    "image_url": "http://media.test/i",
    "size_bytes": 1,
    "content_type": "image/png",
}

TIMEOUT_S = 30
"""Of each wait: what is waited for comes much sooner, or never."""


class BusyApi(ThreadingHTTPServer):
    """Accepts images and segmentations, and never answers how a task stands."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.polled = Event()
        self.ending = Event()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: BusyApi

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        data = UPLOADED if self.path.endswith("/upload") else {"task_id": str(TASK_ID)}
        body = json.dumps({"success": True, "data": {"status": "pending", **data}}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        assert self.path.startswith(f"/api/v1/tasks/{TASK_ID}?")
        self.server.polled.set()
        self.server.ending.wait(TIMEOUT_S)


@pytest.fixture
def api() -> Iterator[BusyApi]:
    """Return a server whose tasks never end."""
    with BusyApi() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.ending.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Return the path of an image."""
    encoded = io.BytesIO()
    Image.new("RGB", (4, 3)).save(encoded, "PNG")
    path = tmp_path / "image.png"
    path.write_bytes(encoded.getvalue())
    return path


def command(*arguments: str) -> list[str]:
    """Return what runs the command; shells that run tests in the background ignore SIGINT for them."""
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        " from s3edge.__main__ import main; main()"
    )
    return [sys.executable, "-c", program, "segment", *arguments]


def test_an_interrupted_wait_names_the_task_that_goes_on(api: BusyApi, image: Path) -> None:
    """Its credit is spent, so it is said how to get at what that bought."""
    started = subprocess.Popen(
        command(str(image), "red", "--url", api.url, "--token", "t"),
        env={"PATH": os.environ["PATH"]},
        cwd=image.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with started:
        polled = api.polled.wait(TIMEOUT_S)
        started.send_signal(signal.SIGINT)
        out, said = started.communicate(timeout=TIMEOUT_S)
    assert polled
    assert (started.returncode, out, said.count("\n")) == (1, "", 1)
    assert f"task {TASK_ID} was accepted and goes on" in said
    assert f"Client().task('{TASK_ID}').wait()" in said


def test_an_empty_token_is_not_the_environments(image: Path) -> None:
    """``--token "$NOT_SET"`` asks as nobody, and never as somebody else."""
    ran = subprocess.run(
        command(str(image), "red", "--token", ""),
        env={"PATH": os.environ["PATH"], "S3EDGE_TOKEN": "of-the-environment"},
        cwd=image.parent,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "no access token" in ran.stderr


@pytest.mark.parametrize(
    ("failed", "advice"),
    [
        ("http://127.0.0.1:1", "Is the server at http://127.0.0.1:1/api running?"),
        ("http://127.0.0.1:2", "set its S3EDGE_PUBLIC_URL to the address at which it is reached"),
    ],
)
def test_who_cannot_be_reached_is_told_apart(failed: str, advice: str) -> None:
    """It is the server, or the place where the server says that its images are."""
    error = ConnectionFailed(f"{failed} cannot be reached.")
    assert advice in words_on(error, "http://127.0.0.1:1/api")
