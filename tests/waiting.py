"""Waits for what happens in another thread or process."""

import time
from collections.abc import Callable

import anyio

from s3edge.testing.server import ServerProcess


WITHIN_S = 60.0
"""How long anything may take on a busy machine; what never happens is a failure, and not a hang."""

_LOOK_S = 0.01


def eventually(condition: Callable[[], bool]) -> None:
    """Return when something is so; fail when it never is."""
    ends_at = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < ends_at, "it never came to that"
        time.sleep(_LOOK_S)


async def until(condition: Callable[[], bool]) -> None:
    """Do the same on an event loop, which goes on meanwhile."""
    with anyio.fail_after(WITHIN_S):
        while not condition():
            await anyio.sleep(_LOOK_S)


def wait_until_refused(server: ServerProcess) -> None:
    """Wait until a server that was asked to stop takes no more connections."""

    def is_refused() -> bool:
        try:
            server.connect().close()
        except ConnectionRefusedError:
            return True
        return False

    eventually(is_refused)
