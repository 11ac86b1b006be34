"""Supabase, an object store and a GPU server, and servers that stand on them."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from s3edge.testing.server import ServerProcess, StartServer
from s3edge.testing.standins.cloud import Cloud
from s3edge.testing.standins.postgres import PostgresServer
from tests.e2e.conftest import Servers, SharedServers
from tests.e2e.doors import Door


TOKEN_OR_SIGNATURE = re.compile(
    r"eyJ[\w-]{10,}\.|X-Amz-Signature=|AWS4-HMAC-SHA256 Cred|postgresql://\w+:"
)


@pytest.fixture(scope="session")
def cloud_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Run the processes for the session."""
    folder = tmp_path_factory.mktemp("cloud")
    with PostgresServer(folder) as postgres, Cloud(folder, postgres) as cloud:
        yield cloud


@pytest.fixture
def cloud(cloud_processes: Cloud) -> Cloud:
    """Return the processes as they are when nothing is wrong."""
    cloud_processes.reset()
    return cloud_processes


@pytest.fixture(scope="module")
def shared_edges(
    cloud_processes: Cloud, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedServers]:
    """Return one server a door, for all tests of a file that need nothing special."""
    with sharing(cloud_processes, tmp_path_factory.mktemp("edges")) as servers:
        yield servers


@pytest.fixture
def edge(door: Door, shared_edges: SharedServers) -> ServerProcess:
    """Return the door's server that tests share."""
    return shared_edges.at(door)


@pytest.fixture
def unstarted_edge(cloud: Cloud, tmp_path: Path) -> ServerProcess:
    """Return a server that does not run, for the commands of its deployment."""
    return ServerProcess(tmp_path, settings_of(cloud))


@pytest.fixture
def start_edge(door: Door, cloud: Cloud, tmp_path: Path) -> Iterator[StartServer]:
    """Start servers with settings of their own on the door; they are ended with the test."""
    servers = Servers(tmp_path, settings_of(cloud))

    def start(*arguments: str, **settings: str) -> ServerProcess:
        return servers.start(door, *arguments, **settings)

    yield start
    servers.end()
    for server in servers.started:
        assert_no_secret(cloud, server)


@contextmanager
def sharing(cloud: Cloud, folder: Path, **settings: str) -> Iterator[SharedServers]:
    """Return one server a door, with settings of their own; in the end each stops, and well."""
    servers = Servers(folder, {**settings_of(cloud), **settings})
    try:
        yield SharedServers(servers)
        assert [server.stop() for server in servers.started] == [0] * len(servers.started)
    finally:
        servers.end()
    for server in servers.started:
        assert_no_secret(cloud, server)


def settings_of(cloud: Cloud) -> Mapping[str, str]:
    """Return settings, all of them as the environment has them, with which all is logged that can be."""
    return {**cloud.settings(), "S3EDGE_RATE_LIMITS": "off", "S3EDGE_LOG": "debug"}


def assert_no_secret(cloud: Cloud, server: ServerProcess) -> None:
    """Check everything that a server logged: no secret, no token, no signed URL."""
    log = server.log.read_text()
    assert log
    for secret in cloud.secrets():
        assert secret not in log
    found = TOKEN_OR_SIGNATURE.search(log)
    assert found is None, log[max(0, found.start() - 300) : found.start()]
