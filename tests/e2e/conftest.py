"""Real server processes on loopback, and what is sent to them."""

import io
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from s3edge.testing.server import ServerProcess, StartServer
from tests.e2e.colours import COLOURS, Colour
from tests.e2e.doors import DOORS, UVICORN, Door, is_decided


FOLDER = Path(__file__).parent

LIMITS_OFF = {"S3EDGE_RATE_LIMITS": "off"}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a test that neither runs over every door nor says why not."""
    if not isinstance(item, pytest.Function):
        return
    test = f"{item.path.relative_to(FOLDER).as_posix()}::{item.originalname}"
    by_hand = any("door" in mark.args[0] for mark in item.iter_markers("parametrize"))
    if not is_decided(test, item.fixturenames, by_hand):
        pytest.fail(
            f"{test} does not run over every door; take the fixture `door`, or what builds on it,"
            " or give the reason in tests/e2e/doors.py",
            pytrace=False,
        )


@pytest.fixture(params=DOORS, ids=str)
def door(request: pytest.FixtureRequest) -> Door:
    """Return each door in turn."""
    found: Door = request.param
    return found


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> Colour:
    """Return each colour of the SDK in turn."""
    found: Colour = request.param
    return found


class Servers:
    """
    Servers in folders of their own, which are ended together.

    Args:
        folder: Where the folders are made.
        settings: Of all of them.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.started: list[ServerProcess] = []
        self._folder = folder
        self._settings = settings

    def start(self, door: Door, *arguments: str, **settings: str) -> ServerProcess:
        """Return a new server that runs."""
        folder = self._folder / f"server-{len(self.started)}"
        folder.mkdir()
        server = door.process(folder, {**self._settings, **settings}, arguments)
        self.started.append(server)
        server.start()
        return server

    def end(self) -> None:
        """Kill those that run."""
        with ExitStack() as stack:
            for server in self.started:
                stack.callback(server.end)


class SharedServers:
    """
    One server a door, started when it is first needed.

    Args:
        servers: Starts them.
    """

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._by_door: dict[str, ServerProcess] = {}

    def at(self, door: Door) -> ServerProcess:
        """Return the server that a door is on."""
        if door.name not in self._by_door:
            self._by_door[door.name] = self._servers.start(door)
        return self._by_door[door.name]


@pytest.fixture(scope="session")
def shared_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedServers]:
    """Return servers with every default but the limits, for the session."""
    servers = Servers(tmp_path_factory.mktemp("shared"), LIMITS_OFF)
    yield SharedServers(servers)
    servers.end()


@pytest.fixture
def shared_server(door: Door, shared_servers: SharedServers) -> ServerProcess:
    """Return the door's server that tests share: each has users of its own, and leaves it running."""
    return shared_servers.at(door)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """Return what starts servers of the test's own."""
    servers = Servers(tmp_path, {})
    yield servers
    servers.end()


@pytest.fixture
def start_door(door: Door, servers: Servers) -> StartServer:
    """Start servers with settings of their own on the door; they are ended with the test."""

    def start(*arguments: str, **settings: str) -> ServerProcess:
        return servers.start(door, *arguments, **settings)

    return start


@pytest.fixture
def start_server(servers: Servers) -> StartServer:
    """Start ``s3edge serve`` with settings of its own; it is ended with the test."""

    def start(*arguments: str, **settings: str) -> ServerProcess:
        return servers.start(UVICORN, *arguments, **settings)

    return start


@pytest.fixture
def server(start_server: StartServer) -> ServerProcess:
    """Return ``s3edge serve`` with every default but the limits."""
    return start_server(**LIMITS_OFF)


@pytest.fixture(scope="session")
def scene() -> bytes:
    """Return a PNG: a red disc on grey."""
    image = Image.new("RGB", (96, 64), (120, 124, 128))
    ImageDraw.Draw(image).ellipse((30, 12, 70, 52), fill=(210, 30, 40))
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()
