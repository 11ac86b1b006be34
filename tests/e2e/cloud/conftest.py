"""Supabase, an object store and a GPU server, and servers that stand on them."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3edge.testing.server import ServerProcess, StartServer
from s3edge.testing.standins.cloud import Cloud
from s3edge.testing.standins.postgres import PostgresServer


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


@pytest.fixture(scope="session")
def edge(
    cloud_processes: Cloud, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """Run one server for all tests that need nothing special."""
    server = server_of(cloud_processes, tmp_path_factory.mktemp("edge"))
    server.start()
    yield server
    assert server.stop() == 0
    assert_no_secret(cloud_processes, server)


@pytest.fixture
def unstarted_edge(cloud: Cloud, tmp_path: Path) -> ServerProcess:
    """Return a server that does not run, for the commands of its deployment."""
    return server_of(cloud, tmp_path)


@pytest.fixture
def start_edge(cloud: Cloud, tmp_path: Path) -> Iterator[StartServer]:
    """Start servers with settings of their own; they are ended with the test."""
    servers: list[ServerProcess] = []

    def start(*arguments: str, **settings: str) -> ServerProcess:
        folder = tmp_path / f"server-{len(servers)}"
        folder.mkdir()
        server = server_of(cloud, folder, **settings)
        server.arguments = arguments
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        if server.is_running():
            server.kill()
        assert_no_secret(cloud, server)


def server_of(cloud: Cloud, folder: Path, **settings: str) -> ServerProcess:
    """Return a server, from environment variables only, that logs all it can."""
    return ServerProcess(
        folder,
        {**cloud.settings(), "S3EDGE_RATE_LIMITS": "off", "S3EDGE_LOG": "debug", **settings},
    )


def assert_no_secret(cloud: Cloud, server: ServerProcess) -> None:
    """Check everything that a server logged: no secret, no token, no signed URL."""
    log = server.log.read_text()
    assert log
    for secret in cloud.secrets():
        assert secret not in log
    found = TOKEN_OR_SIGNATURE.search(log)
    assert found is None, log[max(0, found.start() - 300) : found.start()]
