"""The Starlette door on uvicorn keeps every promise, alone and mounted under a prefix."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from s3edge.cli.server import bind, running_in_thread, url_of
from s3edge.testing import DoorContract, DoorHarness, MemoryDeployment, memory_deployment
from s3edge.values import User
from s3edge_starlette import create_app


PREFIX = "/segmentation"


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
        with bind("127.0.0.1", 0) as listener:
            url = url_of(listener)
            deployment = memory_deployment(url)
            token = deployment.authenticator.issue(User(uuid4()))
            with running_in_thread(create_app(deployment.web), listener):
                yield DoorHarness(url, token, lambda: len(deployment.storage.keys()))


class TestMountedStarletteDoor(DoorContract):
    """``create_app``, under a prefix of another application."""

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls) -> Iterator[DoorHarness]:
        """Return a running server."""
        with bind("127.0.0.1", 0) as listener:
            url = url_of(listener) + PREFIX
            deployment = memory_deployment(url)
            token = deployment.authenticator.issue(User(uuid4()))
            with running_in_thread(mounted(deployment), listener):
                yield DoorHarness(url, token, lambda: len(deployment.storage.keys()))
