"""
HTTP/1.1 for uvicorn, with what it leaves open closed.

uvicorn's httptools protocol sets no limit to what stands before and behind a body, and takes trailers
for headers. Here a request's head and its trailers are bounded, trailers are dropped (RFC 9110, section
6.5.1: they must not be merged unless their meaning allows it), and what is no HTTP is answered in the
envelope like everything else.

Behind a request that asks for another protocol (``Upgrade``, ``CONNECT``) its parser leaves the body
unread, and would take it for the next request: a proxy that reuses connections would hand one client the
answer of another. No other protocol is spoken here, so such a request is the last of its connection, and
with a body it is refused (RFC 9110, section 7.8, lets a server ignore the field).
"""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from s3edge.cli.pipelining import PipelinedHttpProtocol
from s3edge.errors import Code, EdgeError
from s3edge.web.envelope import failure
from s3edge.web.http import Response


MAX_HEAD_BYTES = 64 * 1024
"""Of a request line with its headers, of trailers, and of anything else that is not the body."""

NO_UPGRADE = "This server speaks HTTP/1.1 only; leave Upgrade and CONNECT out."


class BoundedHttpProtocol(PipelinedHttpProtocol):
    """A protocol held to ``MAX_HEAD_BYTES``, which takes a body for nothing else."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # Bytes since the parser last came to something: a head that is complete, or a piece of body.
        self._pending_bytes = 0
        self._came_to_something = False
        self._head_is_complete = False
        # Why the request that is being read is refused, where the parser has no words for it.
        self._refusal: str | None = None

    def _feed(self, piece: bytes) -> None:
        """Parse, and give up on a client whose bytes come to nothing."""
        self._came_to_something = False
        super()._feed(piece)
        if self._came_to_something:
            self._pending_bytes = 0
            return
        self._pending_bytes += len(piece)
        if self._pending_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"Send at most {MAX_HEAD_BYTES // 1024} KiB of headers.")

    def on_message_begin(self) -> None:
        """Expect a head."""
        self._head_is_complete = False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, and drop a trailer."""
        if not self._head_is_complete:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to serve."""
        self._head_is_complete = self._came_to_something = True
        is_upgrade = self.parser.should_upgrade()
        if is_upgrade and (self.parser.get_method() == b"CONNECT" or self._has_body()):
            self._refusal = NO_UPGRADE
            # The parser stops here, and uvicorn has the request refused.
            raise ValueError(NO_UPGRADE)
        super().on_headers_complete()
        if is_upgrade:
            # What follows was meant for another protocol.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Hand a piece of body on."""
        self._came_to_something = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request."""
        self._came_to_something = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """
        Refuse in the envelope what cannot be read as a request, and hang up.

        What was read before is answered first: it may have been paid for. A request that breaks off in
        its body is refused when its turn comes; what is behind a request is dropped without a word.
        """
        response = failure(
            EdgeError(Code.INVALID_REQUEST, self._refusal or msg), uuid4(), datetime.now(UTC)
        ).with_headers([("connection", "close")])
        if self.is_answering and not self.is_in_body:
            self._read_no_more()
        elif self.pipeline:
            self.pipeline[0] = (self.cycle, _refusing(response))
            self._read_no_more()
        elif self.is_in_body and self.cycle.response_started:
            # It has an answer already, or half of one; another one behind it would help nobody.
            self.transport.close()
        else:
            self.transport.write(written(response))
            self.transport.close()

    def _has_body(self) -> bool:
        """Return whether the head announces a body, an empty one left out."""
        return any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in self.headers
        )

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: uvicorn would advise the operator to install a WebSocket library."""


def _body_of(response: Response) -> bytes:
    return response.body if isinstance(response.body, bytes) else b""


def written(response: Response) -> bytes:
    """Return a refusal as it goes over the wire, where there is no request that it answers."""
    body = _body_of(response)
    status = HTTPStatus(response.status)
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in response.headers)
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def _refusing(response: Response) -> Any:
    """Return an ASGI application that answers so."""

    async def refuse(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001 - ASGI's signature
        body = _body_of(response)
        headers = [(name.encode(), value.encode()) for name, value in response.headers]
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return refuse
