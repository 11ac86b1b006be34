"""
Requests that a client sends ahead of their answers, a bounded number of them.

uvicorn parses whatever one read brings, and queues every request in it: a read of 256 KiB holds 14,000
small ones, and while they are parsed nobody else is served. Here a few wait for their turn; what is
behind them stays unparsed, and unread in the kernel, until answers have gone out (RFC 9112, section
9.3.2, lets a client pipeline, and leaves to the server how far it reads ahead).
"""

from asyncio import Transport
from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


MAX_PIPELINED = 16
"""How many requests of one connection wait behind the one that is being served, and a slice's more."""

SLICE_BYTES = 1024
"""
How much is parsed at once where no end is known: outside of a body, and in chunks.

It bounds by how much the queue may grow beyond its bound: the parser cannot be stopped in between.
"""


class HeldFlow(FlowControl):
    """uvicorn's, which reads no further while something that was read is not parsed."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport)
        self._is_held = False

    def hold(self) -> None:
        """Stop reading, whoever wants to go on."""
        self._is_held = True
        self.pause_reading()

    def release(self) -> None:
        """Go on, if it was held."""
        if self._is_held:
            self._is_held = False
            self.resume_reading()

    def resume_reading(self) -> None:
        """Go on, unless it is held: an application that asks for a body asks for what is unparsed."""
        if not self._is_held:
            super().resume_reading()


class PipelinedHttpProtocol(HttpToolsProtocol):
    """uvicorn's own protocol, held to ``MAX_PIPELINED``."""

    flow: HeldFlow

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # uvicorn lets data behind a request that is the last of its connection pass for more requests.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=False)
        self._unparsed = bytearray()
        self._is_at_its_end = False
        # Of a body whose length is known: up to there no other request can begin.
        self._body_left = 0
        # Whether a head is complete whose message is not.
        self.is_in_body = False

    @property
    def is_answering(self) -> bool:
        """Whether a request has come whose answer is not complete."""
        cycle = getattr(self, "cycle", None)
        return cycle is not None and not cycle.response_complete

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Control the flow in our own way."""
        super().connection_made(transport)
        self.flow = HeldFlow(transport)

    def data_received(self, data: bytes) -> None:
        """Parse what there is room for, and keep the rest."""
        self._unparsed += data
        self._parse()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """
        Keep the connection of a client that sends no more, while answers are due.

        A request that is complete may have been paid for. One whose body ends early is a client that is
        gone, as is a connection on which nothing is due: there the transport closes.
        """
        if not self.is_answering or self.is_in_body:
            return None
        self._read_no_more()
        return True

    def on_headers_complete(self) -> None:
        """Note how far the body goes."""
        super().on_headers_complete()
        self.is_in_body = True
        self._body_left = next(
            (int(value) for name, value in self.headers if name == b"content-length"), 0
        )

    def on_body(self, body: bytes) -> None:
        """Hand a piece of body on."""
        self._body_left -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request."""
        self.is_in_body = False
        self._body_left = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with what was kept, after the next request was begun."""
        super().on_response_complete()
        self._parse()

    def _parse(self) -> None:
        while self._unparsed and not self._is_full():
            if self.transport.is_closing() or self._has_read_its_last():
                self._unparsed.clear()
                break
            size = max(SLICE_BYTES, self._body_left)
            piece = bytes(self._unparsed[:size])
            del self._unparsed[:size]
            self._feed(piece)
        if self.transport.is_closing():
            return
        if self._unparsed:
            self.flow.hold()
        else:
            self.flow.release()

    def _feed(self, piece: bytes) -> None:
        """Parse a slice."""
        super().data_received(piece)

    def _is_full(self) -> bool:
        """Return whether enough waits: requests, or a body that nobody reads before its turn comes."""
        return len(self.pipeline) >= MAX_PIPELINED or (
            bool(self.pipeline) and len(self.cycle.body) > HIGH_WATER_LIMIT
        )

    def _read_no_more(self) -> None:
        """Let the answers that are due go out, and hang up behind the last of them."""
        self.cycle.keep_alive = False
        self.is_in_body = False
        self._is_at_its_end = True

    def _has_read_its_last(self) -> bool:
        """Return whether the connection ends behind the requests that were read."""
        cycle = getattr(self, "cycle", None)
        return self._is_at_its_end or (
            cycle is not None and not cycle.keep_alive and not self.is_in_body
        )
