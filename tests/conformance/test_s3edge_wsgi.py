"""The WSGI door keeps every promise on gunicorn and on waitress, alone and mounted under a prefix."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from s3edge.testing import DoorContract, DoorHarness
from s3edge.testing.wsgi_server import GunicornProcess, WaitressProcess, WsgiServerProcess


LIMITS_OFF = {"S3EDGE_RATE_LIMITS": "off"}

MOUNTED = """
import os

from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from s3edge.config import build, parse_settings
from s3edge_wsgi import create_app

deployment = build(parse_settings(os.environ), bound_url="")
host = Flask(__name__)
app = DispatcherMiddleware(host, {"/segmentation": create_app(deployment.web, max_waits=4)})
"""


def stored(data_dir: Path) -> int:
    """Return how many files of images there are, unfinished ones too."""
    files = [path for path in (data_dir / "media").rglob("*") if path.is_file()]
    return len([path for path in files if path.name not in {".media-secret", ".base-urls"}])


@contextmanager
def serving(server: WsgiServerProcess) -> Iterator[DoorHarness]:
    """Run a server within the context."""
    try:
        server.start()
        yield DoorHarness(server.url, server.token(uuid4()), lambda: stored(server.data_dir))
        assert server.stop() == 0
    finally:
        if server.is_running():
            server.kill()
        server.release()


class TestThreads(DoorContract):
    """gunicorn, one process with threads."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoorHarness]:
        """Return a running server."""
        folder = tmp_path_factory.mktemp("gunicorn")
        with serving(GunicornProcess(folder, LIMITS_OFF)) as harness:
            yield harness


class TestProcessesMountedInFlask(DoorContract):
    """
    gunicorn, two processes with threads, the door under a prefix of a Flask application.

    The application is loaded before the processes are forked.
    """

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoorHarness]:
        """Return a running server."""
        folder = tmp_path_factory.mktemp("flask")
        server = GunicornProcess(
            folder,
            LIMITS_OFF,
            ("--preload",),
            source=MOUNTED,
            mount="/segmentation",
            workers=2,
            hooks="",
        )
        with serving(server) as harness:
            yield harness


class TestWaitress(DoorContract):
    """waitress, which reads a body whole before it calls the application."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoorHarness]:
        """Return a running server."""
        with serving(WaitressProcess(tmp_path_factory.mktemp("waitress"), LIMITS_OFF)) as harness:
            yield harness
