"""A connection carries the requests that were sent, no more, and each is answered once."""

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import uvicorn

from s3edge.cli.stopping import DrainingHttpProtocol


WITHIN_S = 20.0
"""Bounds what a test waits for; nothing is measured."""

CLIENT_TIMEOUT_S = 5.0

INNER = b"GET /inner HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"


class App:
    """Answers each request with its path, after its body; ``/held`` only when it is told to."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.release = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        self.paths.append(scope["path"])
        while (message := await receive())["type"] == "http.request":
            if not message.get("more_body"):
                break
        else:
            self.paths.append("disconnected")
            return
        if scope["path"] == "/held":
            await asyncio.to_thread(self.release.wait, WITHIN_S)
        body = scope["path"].encode()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Served:
    """A running server, and what it is asked."""

    def __init__(self, app: App, server: uvicorn.Server, port: int) -> None:
        self.app = app
        self.server = server
        self._port = port

    def connect(self) -> socket.socket:
        """Return a connection."""
        peer = socket.create_connection(("127.0.0.1", self._port), timeout=WITHIN_S)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return peer

    def connection(self) -> DrainingHttpProtocol:
        """Return the server's end of the only connection."""
        (connection,) = self.server.server_state.connections
        assert isinstance(connection, DrainingHttpProtocol)
        return connection


@pytest.fixture(params=["asyncio", "uvloop"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    """Serve on a socket, in a thread, on each event loop."""
    app = App()
    protocol: Any = partial(DrainingHttpProtocol, client_timeout_s=CLIENT_TIMEOUT_S)
    config = uvicorn.Config(
        app,
        loop=request.param,
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            eventually(lambda: server.started)
            yield Served(app, server, listener.getsockname()[1])
        finally:
            app.release.set()
            server.should_exit = True
            thread.join(WITHIN_S)


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something is so; fail when it never is."""
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def read_to_end(peer: socket.socket) -> bytes:
    """Return all that comes until the other end hangs up."""
    got = b""
    try:
        while piece := peer.recv(65_536):
            got += piece
    except ConnectionResetError:
        pass
    return got


def statuses(answers: bytes) -> list[int]:
    """Return the statuses of the answers, in order."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", answers)]


def message_of(answer: bytes) -> str:
    """Return what an answer in the envelope says is wrong."""
    error = json.loads(answer.rpartition(b"\r\n\r\n")[2])["error"]
    assert error["code"] == "INVALID_REQUEST"
    return str(error["message"])


@pytest.mark.parametrize(
    ("head", "body"),
    [
        pytest.param(
            b"POST /outer HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"Content-Length: 32\r\n\r\n",
            INNER,
            id="a length",
        ),
        pytest.param(
            b"POST /outer HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n",
            b"20\r\n" + INNER + b"\r\n0\r\n\r\n",
            id="chunks",
        ),
        pytest.param(
            b"CONNECT /outer HTTP/1.1\r\nHost: x\r\nContent-Length: 32\r\n\r\n", INNER, id="CONNECT"
        ),
        pytest.param(b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", INNER, id="CONNECT, no length"),
    ],
)
@pytest.mark.parametrize("is_in_pieces", [False, True], ids=["at once", "in two pieces"])
def test_a_body_behind_an_upgrade_is_no_request(
    served: Served, head: bytes, body: bytes, *, is_in_pieces: bool
) -> None:
    """The request is refused, its connection closed, and its body never served."""
    assert len(INNER) == 32
    with served.connect() as peer:
        peer.sendall(head if is_in_pieces else head + body)
        answer = peer.recv(65_536)
        if is_in_pieces:
            with suppress(OSError):
                peer.sendall(body)
        answer += read_to_end(peer)
    assert statuses(answer) == [400]
    assert "leave Upgrade and CONNECT out" in message_of(answer)
    assert served.app.paths == []


@pytest.mark.parametrize("extra", [b"", b"Content-Length: 0\r\n"], ids=["no length", "length 0"])
def test_an_upgrade_without_a_body_is_answered_in_http_1(
    served: Served, extra: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that probes for HTTP/2 is served once; what it sends behind is dropped."""
    with served.connect() as peer:
        peer.sendall(b"GET /outer HTTP/1.1\r\nHost: x\r\n" + UPGRADE + extra + b"\r\n" + INNER)
        answer = read_to_end(peer)
    assert statuses(answer) == [200]
    assert b"connection: close\r\n" in answer
    assert served.app.paths == ["/outer"]
    assert "pgrade" not in caplog.text


def test_an_upgrade_that_the_connection_does_not_name_is_passed_over(served: Served) -> None:
    """Without ``Connection: Upgrade`` it is meant for somebody else: the body is a body."""
    with served.connect() as peer:
        peer.sendall(
            b"POST /outer HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nContent-Length: 32\r\n\r\n"
            + INNER
            + b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        assert statuses(read_to_end(peer)) == [200, 200]
    assert served.app.paths == ["/outer", "/last"]
