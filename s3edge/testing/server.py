"""A real server process, for tests that need a socket, a crash or an orderly stop."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar, Protocol
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
from attrs import define, field

from s3edge.gateway import RandomIds, SystemClock
from s3edge.values import Tier
from s3edge_embedded.issuer import LocalIssuer


START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 60
POLL_S = 0.05


@define
class ServerProcess:
    """
    One ``s3edge serve`` process and the folder it keeps its data in.

    Attributes:
        folder: Where it runs; its data directory is ``data`` in there.
        settings: Its ``S3EDGE_`` settings, besides the data directory.
        arguments: Of its command, besides.
        url: Where it is reached, once it was started; another one after each start.
        process: The process, once it was started.
    """

    folder: Path
    settings: Mapping[str, str]
    command: ClassVar[Sequence[str]] = ("serve", "--port", "0")
    announcement: ClassVar[re.Pattern[str]] = re.compile(r"Serving at (http://\S+?);")
    arguments: Sequence[str] = ()
    url: str = ""
    process: subprocess.Popen[str] | None = None
    _reader: threading.Thread | None = field(default=None, init=False, repr=False)

    @property
    def data_dir(self) -> Path:
        """Where its data is."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What it wrote to standard error, over all its starts; whole once it has ended."""
        return self.folder / "log"

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._started().pid

    def start(self) -> None:
        """Start it on a free port, and return when it answers."""
        self.url = self._start()
        httpx.get(self.url + "/health", timeout=START_TIMEOUT_S).raise_for_status()

    def _start(self) -> str:
        """Start it, and return what it announces."""
        # A session of its own, so that a crash takes its worker processes along.
        self.process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, *self._program(), *self.arguments],
            env=self._environ(),
            pass_fds=self._inherited(),
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            start_new_session=True,
        )
        lines = self.process.stderr
        assert lines is not None
        announced = self._announced(lines)
        # Somebody must read the log, or the pipe fills and the server stands still.
        self._reader = threading.Thread(target=self._keep_log, args=(lines,))
        self._reader.start()
        return announced

    def kill(self) -> None:
        """End it as a crash would, and whatever it started."""
        process = self._started()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._finish_log()

    def end(self) -> None:
        """Kill it if it runs: nobody needs it, nor its address, any more."""
        if self.is_running():
            self.kill()

    def stop(self) -> int:
        """Ask it to stop, and return its exit status."""
        self.ask_to_stop()
        return self.wait()

    def ask_to_stop(self) -> None:
        """Send it the signal, and do not wait."""
        self._started().send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Wait until it has ended, and return its exit status."""
        status = self._started().wait(timeout=STOP_TIMEOUT_S)
        self._finish_log()
        return status

    def connect(self) -> socket.socket:
        """Return a bare connection to it, for what an HTTP library would not send."""
        parts = urlsplit(self.url)
        return socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=30)

    def is_running(self) -> bool:
        """Return whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command of the same deployment."""
        return subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "s3edge", *arguments],
            env=self._environ(),
            capture_output=True,
            text=True,
            cwd=self.folder,
            timeout=STOP_TIMEOUT_S,
            check=False,
        )

    def token(self, user_id: UUID, tier: str = "enterprise") -> str:
        """
        Return a token signed by the local issuer, as ``s3edge token`` would make one.

        It is made here, with the deployment's key: a process for each would take a second of the machine.
        """
        data_dir = self.folder / self._environ()["S3EDGE_DATA_DIR"]
        return LocalIssuer(data_dir, SystemClock(), RandomIds()).issue(user_id, Tier(tier))

    def client(self, user_id: UUID | None = None, tier: str = "enterprise") -> httpx.Client:
        """Return a client signed in as a user, by default as somebody new."""
        token = self.token(user_id or uuid4(), tier)
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=60
        )

    def _started(self) -> subprocess.Popen[str]:
        if self.process is None:
            message = "the server was not started"
            raise RuntimeError(message)
        return self.process

    def _program(self) -> Sequence[str]:
        """Return what Python runs."""
        return ["-m", "s3edge", *self.command]

    def _inherited(self) -> Sequence[int]:
        """Return the open files that it gets from this process."""
        return ()

    def _announced(self, lines: IO[str]) -> str:
        """Return what the process says of itself when it has started."""
        printed = []
        for line in lines:
            printed.append(line)
            self._log_line(line)
            match = self.announcement.search(line)
            if match is not None:
                return match[1]
        raise RuntimeError("".join(printed))

    def _keep_log(self, lines: IO[str]) -> None:
        with lines:
            for line in lines:
                self._log_line(line)

    def _log_line(self, line: str) -> None:
        with self.log.open("a") as log:
            log.write(line)

    def _finish_log(self) -> None:
        if self._reader is not None:
            self._reader.join(timeout=STOP_TIMEOUT_S)
            self._reader = None

    def _environ(self) -> Mapping[str, str]:
        clean = {name: value for name, value in os.environ.items() if "S3EDGE" not in name}
        return clean | {"S3EDGE_DATA_DIR": str(self.data_dir)} | dict(self.settings)


@define
class WorkerProcess(ServerProcess):
    """One ``s3edge worker`` process; it has no address."""

    command: ClassVar[Sequence[str]] = ("worker",)
    announcement = re.compile(r"Working on the queue, (\d+) tasks")

    def start(self) -> None:
        """Start it, and return when it works."""
        self._start()


@define
class PullProcess(WorkerProcess):
    """One ``s3edge inference work`` process."""

    command = ("inference", "work")


@define
class InferenceProcess(ServerProcess):
    """One ``s3edge inference serve`` process."""

    command = ("inference", "serve", "--port", "0")

    def start(self) -> None:
        """Start it on a free port, and return when its model is loaded."""
        super().start()
        ends_at = time.monotonic() + START_TIMEOUT_S
        while not self.health()["model_loaded"]:
            if time.monotonic() > ends_at:
                raise TimeoutError
            time.sleep(POLL_S)

    def health(self) -> Mapping[str, Any]:
        """Return what it says of itself."""
        answer: Mapping[str, Any] = httpx.get(self.url + "/health", timeout=START_TIMEOUT_S).json()
        return answer


class StartServer(Protocol):
    """Starts servers, each with arguments and settings of its own."""

    def __call__(self, *arguments: str, **settings: str) -> ServerProcess:
        """Return a running server."""
