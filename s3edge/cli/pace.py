"""
Hangs up on clients that take a connection and then neither send nor read.

uvicorn waits for ever for the rest of a head, for the next piece of a body, and for somebody to read
what was written. Here a client has a limited time for each, and earns more by what it moves, as with
the ``MinRate`` of Apache's mod_reqtimeout: a slow network is served, one byte now and then is not. The
server's own time is never counted: neither a long poll, nor a body that the storage is slow to take.
"""

import logging
from asyncio import TimerHandle, Transport
from typing import Any

from s3edge.cli.http_protocol import BoundedHttpProtocol


MIN_BYTES_PER_S = 8 * 1024
"""
The pace that a client may keep for ever: 64 kbit/s, at which the largest upload takes 21 minutes.

A slow mobile network has four times as much. With less, an upload might hold its place for hours.
"""

LOOKS = 10
"""How often a connection is looked at within the limit."""

_log = logging.getLogger(__name__)


class Patience:
    """
    The time that a client has left: a leaky bucket that bytes fill and time drains.

    Args:
        limit_s: How much it holds, in seconds: what one may do nothing for.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._left_s = limit_s
        self._seen_at = 0.0

    def renew(self, now: float) -> None:
        """Begin anew."""
        self._left_s = self._limit_s
        self._seen_at = now

    def hold(self, now: float) -> None:
        """Leave out the time since the last look: it was not the client's."""
        self._seen_at = now

    def runs_out(self, now: float, moved_bytes: int) -> bool:
        """Count the time since the last look, and what was moved in it; return whether none is left."""
        left_s = self._left_s - (now - self._seen_at) + moved_bytes / MIN_BYTES_PER_S
        self._left_s = min(self._limit_s, left_s)
        self._seen_at = now
        return self._left_s <= 0


class PacedHttpProtocol(BoundedHttpProtocol):
    """
    A protocol that hangs up on who is too slow.

    It looks at a connection only while the client owes something: the rest of a request, or reading.

    Args:
        client_timeout_s: How long a client may do nothing, and the most that a head may take.
    """

    def __init__(self, *args: Any, client_timeout_s: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self._look_interval_s = client_timeout_s / LOOKS
        self._next_look: TimerHandle | None = None
        self._to_send = Patience(client_timeout_s)
        self._to_read = Patience(client_timeout_s)
        # Whether a message has begun, or must begin, that is not complete.
        self._is_owed_bytes = False
        self._body_bytes = 0
        self._unread_bytes = 0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Expect a head."""
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no more."""
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        super().connection_lost(exc)

    def _parse(self) -> None:
        """Parse, and see to it that somebody watches a connection on which nothing is under way."""
        super()._parse()
        if (
            self.timeout_keep_alive_task is None
            and not self._is_owed_bytes
            and not self.is_answering
            and not self.transport.is_closing()
        ):
            # A body that went on behind its answer, or an empty line: uvicorn has called its timer off.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Expect no more."""
        self._is_owed_bytes = False
        return super().eof_received()

    def on_message_begin(self) -> None:
        """Expect the rest of a head."""
        super().on_message_begin()
        self._expect()

    def on_headers_complete(self) -> None:
        """Expect a body."""
        super().on_headers_complete()
        self._expect()

    def on_body(self, body: bytes) -> None:
        """Note what came; a head earns no time, because it fits into one packet."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Expect nothing: it is the server's turn."""
        self._is_owed_bytes = False
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Look whether the client reads."""
        super().pause_writing()
        self._look_later()

    def resume_writing(self) -> None:
        """Note that it did."""
        super().resume_writing()
        self._to_read.renew(self.loop.time())

    def on_response_complete(self) -> None:
        """Look whether the end of the answer is read: too little of it is left for a pause."""
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._look_later()

    def send_400_response(self, msg: str) -> None:
        """Expect no more, and look whether the refusal is read."""
        self._is_owed_bytes = False
        super().send_400_response(msg)
        self._look_later()

    def _expect(self) -> None:
        self._is_owed_bytes = True
        self._body_bytes = 0
        self._to_send.renew(self.loop.time())
        self._look_later()

    def _look_later(self) -> None:
        if self._next_look is None:
            self._next_look = self.loop.call_later(self._look_interval_s, self._look)

    def _look(self) -> None:
        self._next_look = None
        now = self.loop.time()
        if self._sends_too_slowly(now):
            self._hang_up("sent")
        elif self._reads_too_slowly(now):
            self._hang_up("read")
        elif self._is_owed_bytes or self._unread_bytes:
            self._look_later()

    def _hang_up(self, did: str) -> None:
        _log.info("a client %s too little for too long; its connection is closed", did)
        # Not close(): that would wait for the client to read.
        self.transport.abort()

    def _sends_too_slowly(self, now: float) -> bool:
        if not self._is_owed_bytes or self.transport.is_closing():
            return False
        if self.flow.read_paused:
            self._to_send.hold(now)
            return False
        moved, self._body_bytes = self._body_bytes, 0
        return self._to_send.runs_out(now, moved)

    def _reads_too_slowly(self, now: float) -> bool:
        before, self._unread_bytes = self._unread_bytes, self.transport.get_write_buffer_size()
        if not before:
            self._to_read.renew(now)
        return bool(self._unread_bytes) and self._to_read.runs_out(
            now, max(0, before - self._unread_bytes)
        )
