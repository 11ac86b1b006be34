"""Clients that neither send nor read are hung up on; all others are served, on either event loop."""

import asyncio
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import pytest
import uvicorn

from s3edge.cli.pace import MIN_BYTES_PER_S, PacedHttpProtocol, Patience
from tests.waiting import eventually


LIMIT_S = 0.5
LONG_S = 3 * LIMIT_S

PATIENT_LIMIT_S = 1.5
"""Where nobody may be cut: a pause that a busy machine makes is no slow client's."""

STEADY_S = 2 * PATIENT_LIMIT_S

WITHIN_S = 20.0
"""Bounds what a test waits for; nothing is measured."""

Loop = Literal["asyncio", "uvloop"]

SMALL = 4096
"""Of the kernel's buffers, so that what nobody reads stays with the server."""

BEGUN = b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"


def test_patience_ends_when_nothing_moves() -> None:
    """Who does nothing has the limit, and no more."""
    patience = Patience(10)
    patience.renew(100)
    assert not patience.runs_out(109, 0)
    assert patience.runs_out(110, 0)


def test_one_byte_now_and_then_earns_next_to_nothing() -> None:
    """A byte every nine seconds does not hold a place for longer than the limit."""
    patience = Patience(10)
    patience.renew(0)
    assert [patience.runs_out(now, 1) for now in (9, 18)] == [False, True]


def test_a_steady_pace_may_be_kept_for_ever() -> None:
    """At the least pace nothing is lost, though each piece is small."""
    patience = Patience(10)
    patience.renew(0)
    assert not any(patience.runs_out(now, MIN_BYTES_PER_S) for now in range(1, 1000))


def test_haste_is_not_saved_up() -> None:
    """Megabytes at once allow no longer rest than the limit."""
    patience = Patience(10)
    patience.renew(0)
    assert not patience.runs_out(1, 100 * 1024 * 1024)
    assert not patience.runs_out(10, 0)
    assert patience.runs_out(11, 0)


def test_time_that_is_not_the_clients_is_left_out() -> None:
    """While the server itself does not read, nobody is late."""
    patience = Patience(10)
    patience.renew(0)
    assert not patience.runs_out(9, 0)
    patience.hold(1000)
    assert not patience.runs_out(1000.5, 0)
    assert patience.runs_out(1001, 0)


class App:
    """What is served: ``/count`` reads, ``/wait`` is silent, ``/much`` and ``/some`` write."""

    def __init__(self) -> None:
        self.saw_disconnect = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        headers = [(b"x-is", b"app")]
        if scope["query_string"] == b"close":
            headers.append((b"connection", b"close"))
        if scope["path"] == "/count":
            body = str(await self._count(receive)).encode()
        elif scope["path"] == "/wait":
            await asyncio.sleep(LONG_S)
            body = b"waited"
        elif scope["path"] == "/some":
            body = bytes(40_000)
        else:
            body = b"ok"
        if scope["path"] == "/much":
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            for _ in range(2_000):
                await send({"type": "http.response.body", "body": bytes(32_768), "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            return
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _count(self, receive: Any) -> int:
        count = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.saw_disconnect.set()
                return count
            count += len(message["body"])
            if not message.get("more_body"):
                return count


class Served:
    """A running server, and what it is asked."""

    def __init__(self, app: App, server: uvicorn.Server, port: int) -> None:
        self.app = app
        self.server = server
        self._port = port

    def connect(self) -> socket.socket:
        """Return a connection that takes in little by itself."""
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        peer.settimeout(WITHIN_S)
        peer.connect(("127.0.0.1", self._port))
        return peer

    def has_no_connection(self) -> bool:
        """Return whether the server holds none."""
        return not self.server.server_state.connections


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Loop:
    """Return the name of each event loop."""
    name: Loop = request.param
    return name


@pytest.fixture
def served(loop: Loop) -> Iterator[Served]:
    """Serve with little patience."""
    with serving(loop, LIMIT_S) as served:
        yield served


@pytest.fixture
def served_patiently(loop: Loop) -> Iterator[Served]:
    """Serve with more of it."""
    with serving(loop, PATIENT_LIMIT_S) as served:
        yield served


@contextmanager
def serving(loop: Loop, limit_s: float) -> Iterator[Served]:
    """Serve on a socket, in a thread."""
    app = App()
    protocol: Any = partial(PacedHttpProtocol, client_timeout_s=limit_s)
    config = uvicorn.Config(
        app,
        loop=loop,
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            eventually(lambda: server.started)
            yield Served(app, server, listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(WITHIN_S)


def stays_open(peer: socket.socket) -> bool:
    """Return whether nothing comes from the other end, and no end, for longer than the limit."""
    return not select.select([peer], [], [], LONG_S)[0]


def read_until(peer: socket.socket, end: bytes) -> None:
    """Read what comes until it ends so."""
    got = b""
    while not got.endswith(end):
        piece = peer.recv(65_536)
        assert piece, got
        got += piece


def read_to_end(peer: socket.socket) -> bytes:
    """Return all that comes until the other end hangs up."""
    got = b""
    try:
        while piece := peer.recv(65_536):
            got += piece
    except ConnectionResetError:
        pass
    return got


@pytest.mark.parametrize(
    "beginning",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\r\n", id="an empty line"),
        pytest.param(b"GET /ok HTT", id="half a line"),
        pytest.param(b"GET /ok HTTP/1.1\r\nHost: x\r\n", id="no end"),
    ],
)
def test_a_head_that_does_not_end_is_cut(served: Served, beginning: bytes) -> None:
    """Whether nothing comes at all or something, the connection is closed without an answer."""
    with served.connect() as peer:
        peer.sendall(beginning)
        assert read_to_end(peer) == b""


def test_a_head_that_drips_is_cut(served: Served) -> None:
    """Bytes of a head earn no time: it is small."""
    sent = 0
    with served.connect() as peer:
        peer.sendall(b"GET /ok HTTP/1.1\r\nX: ")
        try:
            while sent < 1000:
                peer.sendall(b"y")
                sent += 1
                if select.select([peer], [], [], LIMIT_S / 5)[0]:
                    break
        except OSError:
            pass
    assert sent < 100


def test_the_next_head_on_a_connection_has_the_same_time(served: Served) -> None:
    """Also behind an answer a head that was begun must end."""
    with served.connect() as peer:
        peer.sendall(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\nGET /ok")
        assert read_to_end(peer).count(b"HTTP/1.1 200") == 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param([], id="nothing"),
        pytest.param([bytes(60_000)], id="much and then nothing"),
        pytest.param([b"x"] * 200, id="a byte now and then"),
    ],
)
def test_a_body_that_comes_too_slowly_is_cut(served: Served, body: list[bytes]) -> None:
    """The application sees the client leave; nobody is answered."""
    with served.connect() as peer:
        peer.sendall(BEGUN)
        for piece in body:
            peer.sendall(piece)
            if served.app.saw_disconnect.wait(LIMIT_S / 5):
                break
        assert served.app.saw_disconnect.wait(WITHIN_S)
        assert read_to_end(peer) == b""


def test_a_body_that_comes_slowly_and_steadily_is_taken(served_patiently: Served) -> None:
    """A poor network needs longer than the limit, and is served."""
    pieces = [bytes(1000)] * 20
    head = b"POST /count?close HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n"
    with served_patiently.connect() as peer:
        peer.sendall(head)
        for piece in pieces:
            # Nothing is answered meanwhile; that it takes its time is the test.
            assert not select.select([peer], [], [], STEADY_S / len(pieces))[0]
            peer.sendall(piece)
        assert read_to_end(peer).endswith(b"20000")


def test_a_body_that_nobody_reads_any_more_is_not_waited_for(served: Served) -> None:
    """The answer came before the body's end; whoever stops there is cut as well."""
    with served.connect() as peer:
        peer.sendall(b"POST /ok HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n1")
        assert read_to_end(peer).endswith(b"ok")


def test_a_server_that_is_silent_blames_nobody(served: Served) -> None:
    """A long poll is held for longer than the limit, and answered."""
    with served.connect() as peer:
        peer.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        read_until(peer, b"waited")


@pytest.mark.parametrize("request_body", [b"", b"\r\n"], ids=["at rest", "an empty line"])
def test_an_idle_connection_is_kept(served: Served, request_body: bytes) -> None:
    """Between two requests there is nothing that a client owes."""
    with served.connect() as peer:
        for _ in range(2):
            peer.sendall(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n")
            read_until(peer, b"ok")
            peer.sendall(request_body)
            assert stays_open(peer)
        # And uvicorn's own timer runs, or it would be kept for ever.
        (connection,) = served.server.server_state.connections
        assert isinstance(connection, PacedHttpProtocol)
        assert connection.timeout_keep_alive_task is not None


def test_who_does_not_read_a_stream_is_cut(served: Served) -> None:
    """64 MiB are asked for and none is read: the connection is closed, and the application goes on."""
    with served.connect() as peer:
        peer.sendall(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: bool(served.server.server_state.tasks))
        eventually(served.has_no_connection)
        eventually(lambda: not served.server.server_state.tasks)


@pytest.mark.parametrize("target", [b"/some", b"/some?close"])
def test_who_does_not_read_the_end_of_an_answer_is_cut(served: Served, target: bytes) -> None:
    """Too little is left to pause for, and closing alone would wait for its reader for ever."""
    with served.connect() as peer:
        peer.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: served.server.server_state.total_requests == 1)
        eventually(served.has_no_connection)


def test_who_does_not_read_a_refusal_is_cut(served: Served) -> None:
    """Also what is no HTTP is answered, and the answer not waited for."""
    with served.connect() as peer:
        peer.sendall(b"GET /some HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: served.server.server_state.total_requests == 1)
        peer.sendall(b"\xff\xff\r\n\r\n")
        eventually(served.has_no_connection)


def test_who_reads_slowly_and_steadily_gets_everything(served_patiently: Served) -> None:
    """It takes longer than the limit, and the answer arrives whole."""
    got = 0
    with served_patiently.connect() as peer:
        peer.sendall(b"GET /some?close HTTP/1.1\r\nHost: x\r\n\r\n")
        while piece := peer.recv(1000):
            got += len(piece)
            time.sleep(STEADY_S / 40)
    assert got > 40_000
