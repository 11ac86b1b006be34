"""Ends the waiting for a server that does not answer."""

import asyncio
import socket
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from psycopg import AsyncConnection


class TimeLimit:
    """
    Hangs up when the time is over, so that whoever waits for the connection waits no longer.

    psycopg's own cancellation asks the server to stop and waits for it, which a frozen server makes
    long. Here the socket is shut down from this side; the connection is broken then and cannot be used
    again.

    Args:
        connection: Whose answers are waited for within the context.
        ends_at: When it is over, by the event loop's clock.

    Attributes:
        is_over: Whether it was hung up.
    """

    def __init__(self, connection: AsyncConnection[Any], ends_at: float) -> None:
        self.is_over = False
        self._connection = connection
        self._ends_at = ends_at
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        """Start the clock."""
        self._timer = asyncio.get_running_loop().call_at(self._ends_at, self._hang_up)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it."""
        if self._timer is not None:
            self._timer.cancel()

    def _hang_up(self) -> None:
        if self._connection.closed:
            return
        self.is_over = True
        # libpq keeps its descriptor, and reads from it that there is nothing to come. It is borrowed, and
        # not copied: a process that has none left would wait for ever.
        with suppress(OSError):  # the other side was first
            line = socket.socket(fileno=self._connection.fileno())
            try:
                line.shutdown(socket.SHUT_RDWR)
            finally:
                line.detach()
