"""Real server processes on loopback, and what talks to them."""

import io
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO
from uuid import UUID, uuid4

import attrs
import httpx
import psutil
import pytest
from PIL import Image, ImageDraw


STARTED = re.compile(r"Serving at (http://\S+?);")


@attrs.define
class ServerProcess:
    """One ``s3edge serve`` process and the folder it keeps its data in."""

    data_dir: Path
    log: Path
    environ: Mapping[str, str]
    process: subprocess.Popen[str] | None = None
    url: str = ""

    def start(self) -> None:
        """Start it and read its address from what it prints."""
        command = [sys.executable, "-m", "s3edge", "serve", "--port", "0"]
        self.process = subprocess.Popen(
            command, env=self._environ(), stderr=subprocess.PIPE, text=True, cwd=self.data_dir
        )
        assert self.process.stderr is not None
        first = self.process.stderr.readline()
        match = STARTED.search(first)
        assert match, first + self.process.stderr.read()
        self.url = match[1]
        # Somebody must read the log, or the pipe fills and the server stands still.
        threading.Thread(target=self._keep_log, args=(self.process.stderr,)).start()
        httpx.get(self.url + "/health", timeout=30).raise_for_status()

    def kill(self) -> None:
        """End it as a crash would, with whatever it started."""
        assert self.process is not None
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait()
        psutil.wait_procs(family, timeout=20)

    def stop(self) -> int:
        """Ask it to stop and return its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command of the same deployment."""
        return subprocess.run(
            [sys.executable, "-m", "s3edge", *arguments],
            env=self._environ(),
            capture_output=True,
            text=True,
            cwd=self.data_dir,
            timeout=60,
            check=False,
        )

    def token(self, user_id: UUID, tier: str = "enterprise") -> str:
        """Return a token, as an operator would make one."""
        made = self.run("token", "--user", str(user_id), "--tier", tier)
        assert made.returncode == 0, made.stderr
        return made.stdout.strip()

    def client(self, user_id: UUID | None = None, tier: str = "enterprise") -> httpx.Client:
        """Return a client signed in as a user."""
        token = self.token(user_id or uuid4(), tier)
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=60
        )

    def _keep_log(self, lines: IO[str]) -> None:
        with self.log.open("a") as log, lines:
            log.writelines(lines)

    def _environ(self) -> Mapping[str, str]:
        clean = {name: value for name, value in os.environ.items() if "S3EDGE" not in name}
        return clean | {"S3EDGE_DATA_DIR": str(self.data_dir / "data")} | dict(self.environ)


StartServer = Callable[..., ServerProcess]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Start servers with settings of their own; they are ended with the test."""
    servers: list[ServerProcess] = []

    def start(**settings: str) -> ServerProcess:
        folder = tmp_path / f"server-{len(servers)}"
        folder.mkdir()
        server = ServerProcess(folder, folder / "log", settings)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        if server.process is not None and server.process.poll() is None:
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
