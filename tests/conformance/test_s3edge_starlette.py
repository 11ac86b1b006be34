"""The Starlette door on uvicorn keeps every promise, alone and mounted under a prefix."""

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from uuid import uuid4

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from s3edge.testing import DoorContract, DoorHarness, MemoryDeployment, memory_deployment
from s3edge.values import User
from s3edge_starlette import create_app


PREFIX = "/segmentation"


@contextmanager
def listening() -> Iterator[tuple[socket.socket, str]]:
    """Give a listening socket and its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def served(app: Starlette, listener: socket.socket) -> Iterator[None]:
    """Serve an application in a thread."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def mounted(deployment: MemoryDeployment) -> Starlette:
    """Return an application of somebody else's that has ours under a prefix."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with deployment.gateway.running():
            yield

    ours = create_app(deployment.web, runs_gateway=False)
    return Starlette(routes=[Mount(PREFIX, ours)], lifespan=lifespan)


class TestStarletteDoor(DoorContract):
    """``create_app``, alone."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls) -> Iterator[DoorHarness]:
        """Return a running server."""
        with listening() as (listener, url):
            deployment = memory_deployment(url)
            token = deployment.authenticator.issue(User(uuid4()))
            with served(create_app(deployment.web), listener):
                yield DoorHarness(url, token)


class TestMountedStarletteDoor(DoorContract):
    """``create_app``, under a prefix of another application."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls) -> Iterator[DoorHarness]:
        """Return a running server."""
        with listening() as (listener, url):
            deployment = memory_deployment(url + PREFIX)
            token = deployment.authenticator.issue(User(uuid4()))
            with served(mounted(deployment), listener):
                yield DoorHarness(url + PREFIX, token)
