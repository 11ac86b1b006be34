"""The stand-in of a GPU server as a process of its own."""

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import IO, Any, Self

import httpx
from attrs import define, field


STOP_TIMEOUT_S = 10

CONTROL_TIMEOUT_S = 30
"""How long it may take to say what it does, on a busy machine."""

KEPT_LINES = 1000

_MODULE = "s3edge.testing.standins.gpu_server"

_SERVING = "Serving at "


@define
class GpuServerProcess:
    """
    A running GPU server; a context manager.

    It ends with whoever started it. Started again, it has the same address and remembers nothing.

    Attributes:
        api_key: What it expects in ``X-API-Key``.
        storage: ``memory:``, or the endpoint and the bucket: ``http://127.0.0.1:9000/bucket``.
        access_key_id: Of the storage.
        secret_access_key: The same.
        region: The same.
        public_base_url: How masks are addressed; by default by endpoint and bucket.
        supabase_url: Where it writes outcomes by itself, if at all.
        service_key: With which key.
        database_url: Where it writes them instead: ``postgresql://...``, which may hold a password.
        port: Where it listens; 0 takes a free one, and keeps it.
        process: The process, once it was started.
        log: The last lines that it wrote to standard error.
    """

    api_key: str = field(default="stand-in-key", repr=False)
    storage: str = "memory:"
    access_key_id: str = field(default="", repr=False)
    secret_access_key: str = field(default="", repr=False)
    region: str = "us-east-1"
    public_base_url: str = ""
    supabase_url: str = ""
    service_key: str = field(default="", repr=False)
    database_url: str = field(default="", repr=False)
    port: int = 0
    process: subprocess.Popen[str] | None = field(default=None, repr=False)
    log: deque[str] = field(factory=lambda: deque(maxlen=KEPT_LINES), repr=False)
    _reader: threading.Thread | None = field(default=None, init=False, repr=False)

    def __enter__(self) -> Self:
        """Start it, and return when it can be reached."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it, if it runs."""
        self.stop()

    @property
    def url(self) -> str:
        """Where it is reached, once it was started."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._started().pid

    def start(self) -> None:
        """
        Start it, and return when it can be reached.

        Raises:
            RuntimeError: It did not start; the text is what it printed.
        """
        self.process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", _MODULE, "--until-stdin-ends", *self._options()],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | self._secrets(),
        )
        lines = self.process.stderr
        assert lines is not None
        self.port = self._announced(lines)
        # Somebody must read the log, or the pipe fills and the server stands still.
        self._reader = threading.Thread(target=self.log.extend, args=(lines,))
        self._reader.start()

    def stop(self) -> None:
        """Ask it to stop, and wait until it has; requests that run are given a second."""
        if self.process is not None:
            self.process.terminate()
            self._wait()

    def kill(self) -> None:
        """End it as a crash would."""
        self._started().kill()
        self._wait()

    def control(self, **behaviour: Any) -> Mapping[str, Any]:
        """Change what it does, as ``gpu_behaviour.Behaviour`` has it, and return its report."""
        return self._report("POST", behaviour)

    def report(self) -> Mapping[str, Any]:
        """Return its behaviour and its counters."""
        return self._report("GET")

    def _report(self, method: str, behaviour: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        response = httpx.request(
            method,
            f"{self.url}/_control",
            json=behaviour,
            timeout=CONTROL_TIMEOUT_S,
            trust_env=False,
        )
        response.raise_for_status()
        report: Mapping[str, Any] = response.json()
        return report

    def _options(self) -> list[str]:
        options = {
            "--port": str(self.port),
            "--storage": self.storage,
            "--access-key-id": self.access_key_id,
            "--region": self.region,
            "--public-base-url": self.public_base_url,
            "--supabase-url": self.supabase_url,
        }
        # Joined, because a value may begin with a dash.
        return [f"{name}={value}" for name, value in options.items() if value]

    def _secrets(self) -> dict[str, str]:
        """Return what must be in no listing of processes."""
        return {
            "GPU_SERVER_API_KEY": self.api_key,
            "GPU_SERVER_SECRET_ACCESS_KEY": self.secret_access_key,
            "GPU_SERVER_SERVICE_KEY": self.service_key,
            "GPU_SERVER_DATABASE_URL": self.database_url,
        }

    def _announced(self, lines: IO[str]) -> int:
        """Return the port in what it prints when it starts."""
        printed = []
        for line in lines:
            printed.append(line)
            if line.startswith(_SERVING):
                return int(line.rpartition(":")[2])
        self._wait()
        raise RuntimeError("".join(printed))

    def _wait(self) -> None:
        process = self._started()
        process.wait(timeout=STOP_TIMEOUT_S)
        if self._reader is not None:
            self._reader.join()
            self._reader = None
        for stream in (process.stdin, process.stderr):
            if stream is not None:
                stream.close()
        self.process = None

    def _started(self) -> subprocess.Popen[str]:
        if self.process is None:
            raise RuntimeError("the GPU server was not started")
        return self.process
