"""The proxy takes a dependency away in each of its ways, at once, and brings it back."""

import socket
import threading
from collections.abc import Iterator

import httpx
import psutil
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from s3edge.cli.server import bind, running_in_thread
from s3edge.testing.standins.fault_proxy import FaultProxy, Mode


SHORT_S = 0.3
"""As long as the tests wait for what never comes."""

LONG_S = 10.0
"""And for what comes at once on an idle machine."""

FAULTS = [mode for mode in Mode if mode is not Mode.PASS]


async def echo(request: Request) -> Response:
    """Answer what was sent."""
    return Response(await request.body())


@pytest.fixture(scope="module")
def upstream() -> Iterator[int]:
    """Run a server that answers what it is sent; give its port."""
    app = Starlette(routes=[Route("/", echo, methods=["GET", "POST"])])
    with bind("127.0.0.1", 0) as listener, running_in_thread(app, listener):
        yield listener.getsockname()[1]


@pytest.fixture
def proxy(upstream: int) -> Iterator[FaultProxy]:
    """Run a proxy in front of it."""
    with FaultProxy("127.0.0.1", upstream) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[httpx.Client]:
    """Return a client of the proxy, which keeps its connection."""
    with httpx.Client(base_url=proxy.url, timeout=LONG_S, trust_env=False) as client:
        yield client


def works(client: httpx.Client) -> bool:
    """Tell whether the dependency answers."""
    return client.post("/", content=b"hello").content == b"hello"


def fault_seen(client: httpx.Client, mode: Mode) -> str:
    """Return what a request comes to, in a word."""
    try:
        answer = client.get("/", timeout=SHORT_S if mode is Mode.HANG else LONG_S)
    except httpx.HTTPError as error:
        return type(error).__name__
    return f"{answer.status_code} {answer.headers['content-type']}"


def test_bytes_pass_both_ways(client: httpx.Client) -> None:
    """Long bodies come back whole, on one connection."""
    content = bytes(range(256)) * 8192
    for _ in range(3):
        assert client.post("/", content=content).content == content


@pytest.mark.parametrize(
    ("mode", "seen"),
    [
        (Mode.REFUSE, {"ConnectError"}),
        (Mode.HANG, {"ReadTimeout"}),
        (Mode.ERROR, {"500 text/plain"}),
        (Mode.GARBAGE, {"200 text/html", "RemoteProtocolError"}),
    ],
)
def test_a_fault_is_there_for_as_long_as_it_is_said(
    proxy: FaultProxy, mode: Mode, seen: set[str]
) -> None:
    """New clients meet it, again and again; afterwards the same address works."""
    url = proxy.url
    proxy.mode = mode
    assert proxy.mode is mode
    for _ in range(2):
        met = set()
        for _ in range(2):
            with httpx.Client(base_url=url, trust_env=False) as client:
                met.add(fault_seen(client, mode))
        assert met == seen
    proxy.mode = Mode.PASS
    with httpx.Client(base_url=url, trust_env=False) as client:
        assert works(client)


@pytest.mark.parametrize("mode", FAULTS)
def test_a_fault_takes_hold_of_connections_there_are(
    proxy: FaultProxy, client: httpx.Client, mode: Mode
) -> None:
    """A pool of connections that worked a moment ago does not get through."""
    assert works(client)
    proxy.mode = mode
    # The first request may still find the old connection, and then that it was cut.
    met = {fault_seen(client, mode) for _ in range(2)}
    assert "200 text/plain" not in met
    assert not any(fault.startswith("200") for fault in met) or mode is Mode.GARBAGE


@pytest.mark.parametrize("before", Mode)
@pytest.mark.parametrize("after", Mode)
def test_any_mode_follows_any(proxy: FaultProxy, before: Mode, after: Mode) -> None:
    """The way a dependency went does not matter for what is next, nor who just came."""
    proxy.mode = before
    with socket.socket() as newcomer:
        newcomer.connect_ex(("127.0.0.1", proxy.port))
        proxy.mode = after
        proxy.mode = Mode.PASS
        with httpx.Client(base_url=proxy.url, trust_env=False) as client:
            assert works(client)


def test_a_frozen_connection_stays_frozen_until_it_is_cut(proxy: FaultProxy) -> None:
    """What is sent meanwhile is never answered, and the end is told when the mode is left."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=LONG_S) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na")
        proxy.mode = Mode.HANG
        client.sendall(b"b")
        client.settimeout(SHORT_S)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(LONG_S)
        proxy.mode = Mode.PASS
        assert told_of_the_end(client)


def told_of_the_end(client: socket.socket) -> bool:
    """Tell whether a connection was ended from the other side."""
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def test_a_client_with_much_to_say_sees_the_error(proxy: FaultProxy) -> None:
    """An upload that is refused in the middle ends with the refusal, not with a broken connection."""
    proxy.mode = Mode.ERROR
    with httpx.Client(base_url=proxy.url, trust_env=False, timeout=LONG_S) as client:
        answer = client.post("/", content=bytes(4 * 1024 * 1024))
    assert (answer.status_code, answer.text) == (500, "fault on demand\n")


def test_an_upstream_that_is_away_cuts_the_client() -> None:
    """Nobody waits for a dependency that is really down."""
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    with (
        FaultProxy("127.0.0.1", port) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), timeout=LONG_S) as client,
    ):
        assert told_of_the_end(client)


@pytest.mark.parametrize("mode", Mode)
def test_nothing_is_left_after_a_stop(upstream: int, mode: Mode) -> None:
    """No thread and no socket, whatever it did last and whoever is still connected."""
    threads = set(threading.enumerate())
    proxy = FaultProxy("127.0.0.1", upstream)
    proxy.start()
    port = proxy.port
    with httpx.Client(base_url=proxy.url, trust_env=False) as client:
        assert works(client)
        proxy.mode = mode
        proxy.stop()
        assert set(threading.enumerate()) == threads
        ours = psutil.Process().net_connections("tcp")
        assert port not in {connection.laddr.port for connection in ours}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    proxy.stop()
    with pytest.raises(RuntimeError, match="does not run"):
        proxy.mode = Mode.PASS


def test_it_can_be_started_again(upstream: int) -> None:
    """Each time on a free port, and once at a time."""
    proxy = FaultProxy("127.0.0.1", upstream)
    for _ in range(2):
        with proxy:
            assert proxy.mode is Mode.PASS
            with pytest.raises(RuntimeError, match="runs already"):
                proxy.start()
            with httpx.Client(base_url=proxy.url, trust_env=False) as client:
                assert works(client)
            proxy.mode = Mode.REFUSE


def test_its_port_is_nobody_elses_while_it_refuses(proxy: FaultProxy) -> None:
    """Another program cannot take the place of a dependency that is away."""
    proxy.mode = Mode.REFUSE
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", proxy.port))
