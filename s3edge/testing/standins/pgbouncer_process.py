"""
A real PgBouncer in transaction mode, in front of a database, for tests.

A server's connection belongs to a client for a transaction only; few of them are made, so that clients
do get each other's. https://www.pgbouncer.org/features.html
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

import psycopg

from s3edge.testing.programs import PGBOUNCER


HOST = "127.0.0.1"

SERVER_CONNECTIONS = 3

START_TIMEOUT_S = 30

# PgBouncer refuses to run as root.
_UNPRIVILEGED = "nobody"

_POLL_S = 0.02

_CONFIGURATION = """
[databases]
* = host={server_host} port={server_port}

[pgbouncer]
listen_addr = {host}
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
default_pool_size = {server_connections}
max_client_conn = 500
server_login_retry = 0.2
"""


class PgBouncerProcess:
    """
    A running PgBouncer, for use as a context manager.

    Args:
        url: Of the database behind it, with user and password.

    Attributes:
        url: The same by way of it.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._port = _free_port()
        self.url = parts._replace(
            netloc=f"{parts.netloc.rpartition('@')[0]}@{HOST}:{self._port}"
        ).geturl()
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        self._server = (parts.hostname or HOST, parts.port or 5432)
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """
        Start it, and return when it answers.

        Raises:
            RuntimeError: It is not installed, or did not start; the message holds its log.
        """
        program = PGBOUNCER.path()
        self._folder = Path(tempfile.mkdtemp(prefix="s3edge-pgbouncer-"))
        try:
            self._start(program, self._folder)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self._remove()

    def _start(self, program: str, folder: Path) -> None:
        users, configuration = folder / "users.txt", folder / "pgbouncer.ini"
        users.write_text(f'"{self._user}" "{self._password}"\n')
        host, port = self._server
        configuration.write_text(
            _CONFIGURATION.format(
                server_host=host,
                server_port=port,
                host=HOST,
                port=self._port,
                users=users,
                server_connections=SERVER_CONNECTIONS,
            )
        )
        if os.geteuid() == 0:
            for path in (folder, users, configuration):
                shutil.chown(path, _UNPRIVILEGED)
        with (folder / "pgbouncer.log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [program, str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=_UNPRIVILEGED if os.geteuid() == 0 else None,
            )
        ends_at = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=10).close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > ends_at:
                    text = (folder / "pgbouncer.log").read_text(errors="replace")
                    raise RuntimeError(f"pgbouncer did not start: {text[-4000:]}") from None
            time.sleep(_POLL_S)

    def _remove(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(START_TIMEOUT_S)
        if self._folder is not None:
            shutil.rmtree(self._folder)
            self._folder = None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
