"""
A host of images that means no good, for tests of who fetches what others name.

A thread of this process, on a loopback address. It counts what was asked for, and the bytes that
it got rid of::

    with HostileImageHost(image) as host:
        host.url("redirect")  # each name of its attacks, `image`, and `held`
"""

import struct
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


GIBIBYTE = 1024**3

_BLOCK = bytes(64 * 1024)

_DRIP_S = 0.05

_PNG = b"\x89PNG\r\n\x1a\n"


class HostileImageHost:
    """
    The host, for use as a context manager.

    Args:
        image: What it gives honestly, at ``image``, and what its attacks begin with.

    Attributes:
        asked: How often each path was.
        sent_bytes: What clients took of the endless bodies, as far as the system's buffers tell.
        released: Set to have ``held`` end.
    """

    def __init__(self, image: bytes) -> None:
        self.asked: Counter[str] = Counter()
        self.sent_bytes = 0
        self.is_closing = threading.Event()
        self.released = threading.Event()
        self._image = image
        host = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                name = self.path.strip("/")
                host.asked[name] += 1
                _ANSWERS[name](host, self)

            def log_message(self, *_: object) -> None:
                """Say nothing: what was asked is counted."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        """Start it."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it."""
        self.is_closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.server_port

    def url(self, name: str, host: str = "127.0.0.1") -> str:
        """Return the address of an answer."""
        return f"http://{host}:{self.port}/{name}"

    def give_image(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer with the image."""
        _give(handler, self._image, "image/png")

    def redirect(self, handler: BaseHTTPRequestHandler) -> None:
        """Lead to a place inside, which would give an image."""
        handler.send_response(302)
        handler.send_header("Location", self.url("secret"))
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def huge(self, handler: BaseHTTPRequestHandler) -> None:
        """Promise 5 GiB, and begin with an image."""
        handler.send_response(200)
        handler.send_header("Content-Length", str(5 * GIBIBYTE))
        handler.end_headers()
        self._pour(handler, lambda block: block)

    def endless(self, handler: BaseHTTPRequestHandler) -> None:
        """Promise no length, and begin with an image."""
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        self._pour(handler, lambda block: b"%x\r\n%b\r\n" % (len(block), block))

    def slow(self, handler: BaseHTTPRequestHandler) -> None:
        """Send an image so slowly that it never ends, and never pause for long."""
        handler.send_response(200)
        handler.send_header("Content-Length", str(1024 * 1024))
        handler.end_headers()
        try:
            for position in range(1024 * 1024):
                if self.is_closing.wait(_DRIP_S):
                    return
                handler.wfile.write(self._image[position : position + 1] or b"\0")
        except OSError:
            handler.close_connection = True

    def held(self, handler: BaseHTTPRequestHandler) -> None:
        """Send the image, and most of it only once it is released; some seconds are no trouble."""
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(self._image)))
        handler.end_headers()
        sent = 0
        try:
            while sent < len(self._image) and not self.is_closing.is_set():
                end = len(self._image) if self.released.wait(_DRIP_S) else sent + 1
                handler.wfile.write(self._image[sent:end])
                sent = end
        except OSError:
            handler.close_connection = True

    def _pour(self, handler: BaseHTTPRequestHandler, framed: Callable[[bytes], bytes]) -> None:
        """Send an image and 5 GiB of zeros, until the client has had enough."""
        handler.close_connection = True
        try:
            handler.wfile.write(framed(self._image))
            for _ in range(5 * GIBIBYTE // len(_BLOCK)):
                if self.is_closing.is_set():
                    return
                handler.wfile.write(framed(_BLOCK))
                self.sent_bytes += len(_BLOCK)
        except OSError:
            # The client hung up, as it should.
            return


def bomb() -> bytes:
    """Return a PNG of a few hundred bytes that says that it has 60,000 x 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100_000), 9)
    return _PNG + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    )


def _give(handler: BaseHTTPRequestHandler, content: bytes, content_type: str) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", content_type)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def _giving(
    content: bytes, content_type: str
) -> Callable[[HostileImageHost, BaseHTTPRequestHandler], None]:
    return lambda _, handler: _give(handler, content, content_type)


_SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'
)

_HTML = b"<!doctype html><title>No image</title><p>Sign in first."

_ANSWERS: Mapping[str, Callable[[HostileImageHost, BaseHTTPRequestHandler], None]] = {
    "image": HostileImageHost.give_image,
    "secret": HostileImageHost.give_image,
    "redirect": HostileImageHost.redirect,
    "huge": HostileImageHost.huge,
    "endless": HostileImageHost.endless,
    "slow": HostileImageHost.slow,
    "held": HostileImageHost.held,
    "bomb": _giving(bomb(), "image/png"),
    "svg": _giving(_SVG, "image/png"),
    "html": _giving(_HTML, "image/png"),
}
