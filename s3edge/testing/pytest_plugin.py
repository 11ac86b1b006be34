"""
Fixtures with a whole deployment in memory, for the tests of code that uses the SDK.

Switch it on in the top ``conftest.py``::

    pytest_plugins = ["s3edge.testing.pytest_plugin"]
"""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from s3edge.client import Client
from s3edge.client.session import IN_PROCESS_URL
from s3edge.testing.deployment import MemoryDeployment, memory_deployment
from s3edge.values import Tier, User
from s3edge_starlette import create_app


@pytest.fixture
def s3edge_deployment() -> MemoryDeployment:
    """A deployment in memory that nothing has happened to; the client runs it."""
    return memory_deployment(IN_PROCESS_URL)


@pytest.fixture
def s3edge_user() -> User:
    """Who ``s3edge_client`` is signed in as: somebody new, with 100 credits; override it for others."""
    return User(uuid4(), Tier.PRO)


@pytest.fixture
def s3edge_client(s3edge_deployment: MemoryDeployment, s3edge_user: User) -> Iterator[Client]:
    """A client of that deployment; what is brighter than half gets segmented."""
    token = s3edge_deployment.authenticator.issue(s3edge_user)
    with Client.for_app(create_app(s3edge_deployment.web), token=token) as client:
        yield client
