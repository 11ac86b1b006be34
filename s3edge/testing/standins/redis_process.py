"""The machine's ``redis-server`` or ``valkey-server``, as a process that keeps nothing."""

import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from s3edge.testing.programs import REDIS_SERVER
from s3edge.testing.standins.watched import HOST, HeldPort, call_watcher_off, start_watched


_TIMEOUT_S = 10
_POLL_S = 0.01

_OPTIONS: Mapping[str, str] = {
    "bind": HOST,
    # Neither snapshots nor a log of commands: what it knew ends with it.
    "save": "",
    "appendonly": "no",
    "daemonize": "no",
}


class RedisProcess:
    """
    A Redis server on loopback; a context manager.

    It ends with whoever started it. Started again, it has the same port, which is kept for it, and
    remembers nothing: no counter, no script.

    Args:
        log: Where it writes what happens, over all its starts.
        options: Of its configuration, as ``{"requirepass": "..."}``; with a ``tls-cert-file`` it speaks
            TLS only.

    Attributes:
        log: The same.
        port: Where it listens on ``HOST``, once it was started.
    """

    def __init__(self, log: Path, options: Mapping[str, str] | None = None) -> None:
        self.log = log
        self.port = 0
        self._held: HeldPort | None = None
        self._options = {**_OPTIONS, **(options or {})}
        self._process: subprocess.Popen[bytes] | None = None

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
        """End it, if it runs, and let its port go."""
        self._remove()

    @property
    def url(self) -> str:
        """Its address, as ``S3EDGE_RATE_LIMIT_STORE`` takes it."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def pid(self) -> int:
        """
        The process's id.

        Raises:
            RuntimeError: It does not run.
        """
        return self._started().pid

    def start(self) -> None:
        """
        Start it, and return when it can be reached.

        Raises:
            RuntimeError: It is not installed, runs already, or did not start; the message says which.
        """
        if self._process is not None:
            raise RuntimeError("the Redis server runs already")
        program = REDIS_SERVER.path()
        if self._held is None:
            self._held = HeldPort(self.port)
            self.port = self._held.port
        written = [
            text
            for name, value in {**self._place(), **self._options}.items()
            for text in (f"--{name}", value)
        ]
        try:
            with self.log.open("ab") as log:
                self._process = start_watched([program, *written], log)
            self._wait_until_it_listens(self._process)
        except BaseException:
            self._remove()
            raise

    def stop(self) -> None:
        """End it at once, as a crash would; paused or not, it forgets everything."""
        process, self._process = self._process, None
        if process is None:
            return
        call_watcher_off(process.stdin)
        process.kill()
        process.wait(timeout=_TIMEOUT_S)

    def pause(self) -> None:
        """Have it hang: connections are made and nothing is answered, until ``resume``."""
        self._started().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on; what it was asked meanwhile, it does now."""
        self._started().send_signal(signal.SIGCONT)

    def _remove(self) -> None:
        self.stop()
        held, self._held = self._held, None
        if held is not None:
            held.release()

    def _place(self) -> Mapping[str, str]:
        if "tls-cert-file" in self._options:
            return {"port": "0", "tls-port": str(self.port)}
        return {"port": str(self.port)}

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the Redis server does not run")
        return self._process

    def _wait_until_it_listens(self, process: subprocess.Popen[bytes]) -> None:
        ends_at = time.monotonic() + _TIMEOUT_S
        while True:
            try:
                socket.create_connection((HOST, self.port), timeout=_TIMEOUT_S).close()
                return
            except OSError:
                if process.poll() is not None or time.monotonic() > ends_at:
                    log = self.log.read_text(errors="replace")
                    raise RuntimeError(f"Redis did not start: {log[-4000:]}") from None
            time.sleep(_POLL_S)
