"""
The machine's ``pgbouncer`` in transaction mode, in front of a database, for tests.

A connection of the server's belongs to a client for one transaction; there are few of them, so that
clients do get each other's. https://www.pgbouncer.org/features.html
"""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

import psycopg

from s3edge.testing.programs import PGBOUNCER
from s3edge.testing.standins.watched import HOST, HeldPort, call_watcher_off, start_watched


SERVER_CONNECTIONS = 3

_TIMEOUT_S = 30
_POLL_S = 0.02

# It refuses to run as root, and then reads its files as somebody without any rights.
_UNPRIVILEGED = "nobody" if os.geteuid() == 0 else None

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
    A running PgBouncer on loopback; a context manager.

    It ends with whoever started it.

    Args:
        url: Of the database behind it, with user and password.

    Attributes:
        url: The same database by way of it, once it was started.
    """

    def __init__(self, url: str) -> None:
        self.url = ""
        self._parts = parts = urlsplit(url)
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        self._server_host, self._server_port = parts.hostname or HOST, parts.port or 5432
        self._held: HeldPort | None = None
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """
        Start it, and return when it answers.

        Raises:
            RuntimeError: It is not installed, or did not start; the message says which.
        """
        program = PGBOUNCER.path()
        self._folder = folder = Path(tempfile.mkdtemp(prefix="s3edge-pgbouncer-"))
        try:
            self._held = HeldPort()
            credentials = self._parts.netloc.rpartition("@")[0]
            netloc = f"{credentials}@{HOST}:{self._held.port}"
            self.url = self._parts._replace(netloc=netloc).geturl()
            configuration = self._write_files(folder, self._held.port)
            with (folder / "pgbouncer.log").open("wb") as log:
                self._process = start_watched(
                    [program, str(configuration)], log, user=_UNPRIVILEGED
                )
            self._wait_until_it_answers(self._process, folder / "pgbouncer.log")
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

    def _write_files(self, folder: Path, port: int) -> Path:
        """Return the configuration, written beside the list of users."""
        users, configuration = folder / "users.txt", folder / "pgbouncer.ini"
        users.write_text(f'"{self._user}" "{self._password}"\n')
        configuration.write_text(
            _CONFIGURATION.format(
                server_host=self._server_host,
                server_port=self._server_port,
                host=HOST,
                port=port,
                users=users,
                server_connections=SERVER_CONNECTIONS,
            )
        )
        if _UNPRIVILEGED is not None:
            for path in (folder, users, configuration):
                shutil.chown(path, _UNPRIVILEGED)
        return configuration

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes], log: Path) -> None:
        ends_at = time.monotonic() + _TIMEOUT_S
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=_TIMEOUT_S).close()
                return
            except psycopg.OperationalError:
                if process.poll() is not None or time.monotonic() > ends_at:
                    text = log.read_text(errors="replace")
                    raise RuntimeError(f"PgBouncer did not start: {text[-4000:]}") from None
            time.sleep(_POLL_S)

    def _remove(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            call_watcher_off(process.stdin)
            process.kill()
            process.wait(timeout=_TIMEOUT_S)
        held, self._held = self._held, None
        if held is not None:
            held.release()
        if self._folder is not None:
            shutil.rmtree(self._folder)
            self._folder = None
