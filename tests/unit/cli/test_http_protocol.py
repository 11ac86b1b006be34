"""A connection carries the requests that were sent, no more, and each is answered once."""

import asyncio
import json
import re
import resource
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import pytest
import uvicorn

from s3edge.cli.connections import ConnectionBound
from s3edge.cli.open_files import KEPT_FILES, most_connections
from s3edge.cli.pipelining import MAX_PIPELINED, SLICE_BYTES
from s3edge.cli.stopping import DrainingHttpProtocol
from tests.waiting import eventually


WITHIN_S = 20.0
"""Bounds what a test waits for; nothing is measured."""

CLIENT_TIMEOUT_S = 5.0

MOST = 3
"""How many connections the server takes."""

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

    def connections(self) -> list[Any]:
        """Return the server's ends of the connections that it holds."""
        return list(self.server.server_state.connections)

    def reads_no_more(self) -> bool:
        """Return whether the only connection has its last request."""
        return any(
            cycle is not None and not cycle.keep_alive
            for cycle in (connection.cycle for connection in self.connections())
        )


@pytest.fixture(params=["asyncio", "uvloop"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    """Serve on a socket, in a thread, on each event loop."""
    app = App()
    protocol: Any = partial(
        DrainingHttpProtocol, client_timeout_s=CLIENT_TIMEOUT_S, bound=ConnectionBound(MOST)
    )
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


def message_of(answer: bytes, code: str = "INVALID_REQUEST") -> str:
    """Return what an answer in the envelope says is wrong."""
    error = json.loads(answer.rpartition(b"\r\n\r\n")[2])["error"]
    assert error["code"] == code
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


def test_requests_that_are_sent_ahead_are_answered_in_order(served: Served) -> None:
    """More than may wait at once, with and without bodies: each is answered, in its turn."""
    count = 3 * MAX_PIPELINED
    with served.connect() as peer:
        for number in range(count):
            body = bytes(number * 1000)
            peer.sendall(
                b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (number, len(body))
                + body
            )
        peer.sendall(b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert statuses(read_to_end(peer)) == [200] * (count + 1)
    assert served.app.paths == [*(f"/{number}" for number in range(count)), "/last"]


def test_chunked_bodies_that_are_sent_ahead_stay_whole(served: Served) -> None:
    """A slice may end anywhere: in a chunk, in its size, or in the next head."""
    message = b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    message += (
        b"".join(b"%x\r\n%b\r\n" % (size, bytes(size)) for size in (1, 700, 1500, 3)) + b"0\r\n\r\n"
    )
    with served.connect() as peer:
        peer.sendall(message * 40 + b"GET /last HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert statuses(read_to_end(peer)) == [200] * 41


def test_what_is_sent_far_ahead_stays_with_the_client(served: Served) -> None:
    """Behind a request that takes long, a few wait, and the rest is not read; then all are answered."""
    ahead = b"GET /ahead HTTP/1.1\r\n\r\n"
    count = 0
    with served.connect() as peer:
        peer.sendall(b"GET /held HTTP/1.1\r\n\r\n")
        eventually(lambda: served.app.paths == ["/held"])
        # Until neither the server nor the kernel takes any more.
        peer.settimeout(0)
        rest = b""
        while select.select([], [peer], [], 0.5)[1]:
            rest = rest or ahead * 10_000
            count += 10_000 * (len(rest) == len(ahead) * 10_000)
            rest = rest[peer.send(rest) :]
            assert count < 10_000_000
        (connection,) = served.connections()
        assert (
            MAX_PIPELINED <= len(connection.pipeline) <= MAX_PIPELINED + SLICE_BYTES // len(ahead)
        )
        assert len(served.app.paths) == 1


def test_others_are_served_while_one_sends_ahead(served: Served) -> None:
    """Thousands of requests in one write are served one after the other, between those of others."""
    count = 5_000
    with served.connect() as greedy, served.connect() as other:
        writing = threading.Thread(
            target=greedy.sendall,
            args=(
                b"GET /greedy HTTP/1.1\r\n\r\n" * count
                + b"GET /end HTTP/1.1\r\nConnection: close\r\n\r\n",
            ),
        )
        writing.start()
        eventually(lambda: bool(served.app.paths))
        other.sendall(b"GET /other HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert statuses(read_to_end(other)) == [200]
        assert statuses(read_to_end(greedy)) == [200] * (count + 1)
        writing.join(WITHIN_S)
    assert served.app.paths.index("/other") < served.app.paths.index("/end")


def test_nothing_behind_the_last_request_is_served(served: Served) -> None:
    """Who says ``Connection: close`` has said all."""
    with served.connect() as peer:
        peer.sendall(b"GET /last HTTP/1.1\r\nConnection: close\r\n\r\n" + INNER * 100)
        assert statuses(read_to_end(peer)) == [200]
    assert served.app.paths == ["/last"]


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"\x01\r\n\r\n", id="no HTTP"),
        pytest.param(b"GET / HTTP/1.1\r\nA: " + b"a" * 200_000, id="a head without an end"),
        pytest.param(b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", id="CONNECT"),
    ],
)
def test_garbage_behind_requests_takes_no_answer_from_them(served: Served, garbage: bytes) -> None:
    """Each of those that were complete is answered, then the connection is closed."""
    with served.connect() as peer:
        peer.sendall(b"GET /held HTTP/1.1\r\n\r\n" + INNER + garbage)
        eventually(served.reads_no_more)
        served.app.release.set()
        assert statuses(read_to_end(peer)) == [200, 200]
    assert served.app.paths == ["/held", "/inner"]


def test_a_request_that_breaks_off_is_refused_in_its_turn(served: Served) -> None:
    """What is ahead of it is answered first; the application does not see it."""
    with served.connect() as peer:
        peer.sendall(
            b"GET /held HTTP/1.1\r\n\r\n"
            b"POST /broken HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxGARBAGE"
        )
        peer.shutdown(socket.SHUT_WR)
        eventually(served.reads_no_more)
        served.app.release.set()
        answers = read_to_end(peer)
    assert statuses(answers) == [200, 400]
    assert message_of(answers) == "Invalid HTTP request received."
    assert served.app.paths == ["/held"]


def test_a_request_that_breaks_off_alone_is_refused_at_once(served: Served) -> None:
    """Its own application is told that the client is gone."""
    with served.connect() as peer:
        peer.sendall(
            b"POST /broken HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\nGARBAGE\r\n"
        )
        assert statuses(read_to_end(peer)) == [400]
    eventually(lambda: served.app.paths == ["/broken", "disconnected"])


@pytest.mark.parametrize("is_ahead", [False, True], ids=["alone", "with one behind"])
def test_who_sends_no_more_is_answered(served: Served, *, is_ahead: bool) -> None:
    """A client may close its own direction behind its last request."""
    with served.connect() as peer:
        peer.sendall(b"GET /held HTTP/1.1\r\n\r\n" + INNER * is_ahead)
        peer.shutdown(socket.SHUT_WR)
        eventually(lambda: served.app.paths == ["/held"])
        eventually(served.reads_no_more)
        served.app.release.set()
        assert statuses(read_to_end(peer)) == [200] * (1 + is_ahead)


def test_all_that_was_sent_ahead_is_answered_to_who_sends_no_more(served: Served) -> None:
    """Also what was not parsed, and not even read, when the other end was closed."""
    count = 5_000
    with served.connect() as peer:

        def write() -> None:
            peer.sendall(INNER * count)
            peer.shutdown(socket.SHUT_WR)

        writing = threading.Thread(target=write)
        writing.start()
        assert statuses(read_to_end(peer)) == [200] * count
        writing.join(WITHIN_S)


def test_who_closes_in_the_middle_of_a_body_is_gone(served: Served) -> None:
    """The application hears of it, and nobody is answered."""
    with served.connect() as peer:
        peer.sendall(b"POST /half HTTP/1.1\r\nContent-Length: 10\r\n\r\n12345")
        peer.shutdown(socket.SHUT_WR)
        assert read_to_end(peer) == b""
    eventually(lambda: served.app.paths == ["/half", "disconnected"])


@pytest.mark.parametrize(
    "beginning", [b"", b"GET /half HTTP/1.1\r\n"], ids=["nothing", "half a head"]
)
def test_who_closes_without_a_request_is_let_go(served: Served, beginning: bytes) -> None:
    """Nothing is due, so the connection is closed at once."""
    with served.connect() as peer:
        peer.sendall(beginning)
        peer.shutdown(socket.SHUT_WR)
        assert read_to_end(peer) == b""
    eventually(lambda: not served.server.server_state.connections)


@pytest.mark.parametrize("asks", [False, True], ids=["silent", "asks"])
def test_a_connection_too_many_is_told_so(
    served: Served, caplog: pytest.LogCaptureFixture, *, asks: bool
) -> None:
    """It is answered and closed, those that are held are served, and one that ends makes room."""
    with ExitStack() as stack:
        held = [stack.enter_context(served.connect()) for _ in range(MOST)]
        eventually(lambda: len(served.connections()) == MOST)
        for _ in range(2):
            with served.connect() as peer:
                if asks:
                    peer.sendall(INNER)
                refusal = read_to_end(peer)
            assert statuses(refusal) == [503]
            assert b"retry-after: 1\r\n" in refusal
            assert "no more connections" in message_of(refusal, "SERVICE_UNAVAILABLE")
        assert served.app.paths == []
        assert caplog.text.count("connections beyond 3 were refused") == 1

        held[0].sendall(b"GET /last HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert statuses(read_to_end(held[0])) == [200]
        eventually(lambda: len(served.connections()) < MOST)
        with served.connect() as peer:
            peer.sendall(b"GET /next HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert statuses(read_to_end(peer)) == [200]
    assert served.app.paths == ["/last", "/next"]


def test_connections_leave_files_for_everything_else() -> None:
    """The bound follows the process's own limit, and leaves half where there are few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        for limit, most in ((4096, 4096 - KEPT_FILES), (1000, 500)):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            assert most_connections() == most
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
