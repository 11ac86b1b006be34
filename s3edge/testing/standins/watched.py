"""Programs that end with whoever started them, however that ended."""

import socket
import subprocess
from collections.abc import Sequence
from typing import IO


HOST = "127.0.0.1"

# Becomes the command that follows, and leaves a watcher behind. Its standard input is a pipe, which
# ends when whoever started it is gone; a line instead calls the watcher off. Killed, because a process
# that was paused hears no other signal.
_UNTIL_PARENT_ENDS = """
( ( read -r _ <&3 && exit; kill -KILL $$ ) 2>/dev/null & ) 3<&0
exec "$@" </dev/null
"""


def start_watched(
    command: Sequence[str], log: IO[bytes], *, user: str | None = None
) -> subprocess.Popen[bytes]:
    """
    Start a program that is killed when this process is gone.

    Args:
        command: The program and its arguments.
        log: Where all that it writes goes.
        user: Whom it runs as; by default us.
    """
    return subprocess.Popen(  # noqa: S603 - our own command
        ["/bin/sh", "-c", _UNTIL_PARENT_ENDS, "sh", *command],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        start_new_session=True,
        user=user,
    )


def call_watcher_off(pipe: IO[bytes] | None) -> None:
    """Have the program's end be nobody's business but ours, before it is ended."""
    if pipe is None:
        return
    try:
        pipe.write(b"stopped\n")
        pipe.close()
    except BrokenPipeError:
        return  # there is no watcher any more


def free_port() -> int:
    """Return a port of ``HOST`` on which nobody listens."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
