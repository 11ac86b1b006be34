"""Programs that end with whoever started them, however that ended."""

import socket
import subprocess
import sys
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


class HeldPort:
    """
    A port of ``HOST`` that is kept for a program, whether that runs or not.

    It is bound and nobody listens: while the program is down, connections are refused. The system gives
    it to nobody who asks for any port; who asks for it with ``SO_REUSEADDR``, as servers do, has it too.
    Linux works so; elsewhere a program could not have it as well, and it is only one that was free.

    Args:
        port: Which one; 0 is any that is free.

    Attributes:
        port: The same.
    """

    def __init__(self, port: int = 0) -> None:
        self._socket = socket.socket()
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((HOST, port))
            self.port: int = self._socket.getsockname()[1]
        except OSError:
            self._socket.close()
            raise
        if sys.platform != "linux":
            self._socket.close()

    def release(self) -> None:
        """Let others have it."""
        self._socket.close()
