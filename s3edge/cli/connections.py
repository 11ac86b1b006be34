"""
Bounds the connections of one process below what the system lets it open.

Every connection is an open file. When they run out, an event loop can accept nobody and tell nobody, and
the database, the storage and a temporary file cannot be opened either. So the last ones are kept, and a
client that comes when the others are taken is told so.
"""

import logging
from asyncio import Transport
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from s3edge.cli.http_protocol import written
from s3edge.cli.pace import PacedHttpProtocol
from s3edge.errors import unavailable
from s3edge.web.envelope import failure
from s3edge.web.log_interval import LogInterval


RETRY_AFTER_S = 1

REFUSAL_S = 1.0
"""How long a refusal is left to be read: to hang up over what a client has sent would reset it."""

_log = logging.getLogger(__name__)


class ConnectionBound:
    """
    The connections of one process; its protocols share it.

    Args:
        most: How many there may be.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._refused = 0
        self._log_interval = LogInterval()

    def admits_one(self, now: float) -> bool:
        """Count a new connection, or refuse it when all are taken, and log that once a minute."""
        if self._count < self._most:
            self._count += 1
            return True
        self._refused += 1
        if self._log_interval.is_over(now):
            _log.warning(
                "connections beyond %d were refused: %d since the last such line; raise the limit of"
                " open files to hold more",
                self._most,
                self._refused,
            )
            self._refused = 0
        return False

    def lose_one(self) -> None:
        """Count a connection no more."""
        self._count -= 1


class CountedHttpProtocol(PacedHttpProtocol):
    """
    A protocol that refuses a connection beyond the bound.

    Args:
        bound: What all connections of the process have in common.
    """

    def __init__(self, *args: Any, bound: ConnectionBound, **options: Any) -> None:
        super().__init__(*args, **options)
        self._bound = bound
        self._is_counted = False

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Take the connection, or say that there is no room for it."""
        super().connection_made(transport)
        self._is_counted = self._bound.admits_one(self.loop.time())
        if self._is_counted:
            return
        error = unavailable(
            "The server can hold no more connections; try again.",
            retry_after_s=RETRY_AFTER_S,
        )
        response = failure(error, uuid4(), datetime.now(UTC))
        transport.write(written(response.with_headers([("connection", "close")])))
        self.loop.call_later(REFUSAL_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room."""
        if self._is_counted:
            self._is_counted = False
            self._bound.lose_one()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Serve who was taken; whoever was refused has its answer."""
        if self._is_counted:
            super().data_received(data)
        else:
            self.transport.close()
