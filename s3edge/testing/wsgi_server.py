"""The WSGI door on real servers, as processes of their own."""

import re
import socket
from collections.abc import Sequence
from typing import ClassVar

import httpx
from attrs import define, field

from s3edge.testing.server import START_TIMEOUT_S, ServerProcess


BACKLOG = 128

MODULE = "served"

APP = """
import os

from s3edge.cli.logs import configure_logs
from s3edge.config import build, parse_settings
from s3edge_wsgi import create_app

settings = parse_settings(os.environ)
configure_logs(settings.log_level)
deployment = build(settings, bound_url="")
app = create_app(deployment.web, max_waits=4)
"""
"""What is served unless a test says otherwise: what the settings say."""

HOOKS = f"""
import signal


def post_worker_init(worker):
    from {MODULE} import app

    stop = signal.getsignal(signal.SIGTERM)

    def stop_without_waits(number, frame):
        app.stop_waiting()
        stop(number, frame)

    signal.signal(signal.SIGTERM, stop_without_waits)


def worker_exit(server, worker):
    from {MODULE} import app

    app.close()
"""
"""gunicorn's configuration, as the documentation has it but for the names."""

CORES = """
import os


def pre_fork(server, worker):
    by_age = sorted(server.WORKERS.values(), key=lambda other: other.age, reverse=True)
    staying = by_age[: server.num_workers - 1]
    taken = [getattr(other, "core", None) for other in staying]
    worker.core = min(sorted(os.sched_getaffinity(0)), key=taken.count)


def post_fork(server, worker):
    os.sched_setaffinity(0, {worker.core})
"""
"""gunicorn's configuration that keeps each process on a core of its own; from the documentation, too."""

WAITRESS = """
import logging, signal, socket, sys

import waitress

logging.basicConfig()
logging.getLogger("waitress").setLevel(logging.INFO)
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
from served import app
waitress.serve(app, sockets=[socket.socket(fileno=int(sys.argv[1]))], threads=int(sys.argv[2]))
"""


@define
class WsgiServerProcess(ServerProcess):
    """
    A server with a module ``served`` in its folder, whose ``app`` it serves.

    It inherits a socket that listens, so that its address is known before it is started, and stays.

    Attributes:
        source: The module's text.
        mount: The prefix under which the module has the door; part of the ``url``.
        threads: How many threads each process has.
        health: What answers once it serves, below its address.
    """

    source: str = APP
    mount: str = ""
    threads: int = 8
    health: str = "/health"
    _listener: socket.socket = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        """Listen, and write down what is served."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}{self.mount}"
        self.settings = {
            "S3EDGE_PUBLIC_URL": self.url,
            "S3EDGE_LOG": "warning",
            **self.settings,
        }
        (self.folder / f"{MODULE}.py").write_text(self.source)
        self._configure()

    def release(self) -> None:
        """Give up the address."""
        self._listener.close()

    def end(self) -> None:
        """Kill it if it runs, and give up the address."""
        super().end()
        self.release()

    def start(self) -> None:
        """Start it, and return when it answers."""
        self._start()
        httpx.get(self.url + self.health, timeout=START_TIMEOUT_S).raise_for_status()

    def _configure(self) -> None:
        """Write down how the server is to run."""

    def _inherited(self) -> Sequence[int]:
        return (self._listener.fileno(),)


@define
class GunicornProcess(WsgiServerProcess):
    """
    gunicorn with threads.

    Attributes:
        workers: How many processes serve.
        hooks: Its configuration.
    """

    announcement: ClassVar[re.Pattern[str]] = re.compile(r"(Booting worker)")
    workers: int = 1
    hooks: str = HOOKS

    def _configure(self) -> None:
        (self.folder / "gunicorn.conf.py").write_text(self.hooks)

    def _program(self) -> Sequence[str]:
        return [
            *("-m", "gunicorn", f"{MODULE}:app"),
            *("--bind", f"fd://{self._listener.fileno()}"),
            *("--worker-class", "gthread", "--threads", str(self.threads)),
            *("--workers", str(self.workers)),
            "--no-control-socket",
        ]


@define
class WaitressProcess(WsgiServerProcess):
    """waitress."""

    announcement: ClassVar[re.Pattern[str]] = re.compile(r"(Serving on)")

    def _program(self) -> Sequence[str]:
        return ["-c", WAITRESS, str(self._listener.fileno()), str(self.threads)]
