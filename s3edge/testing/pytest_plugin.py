"""
Fixtures with a whole deployment in memory, for the tests of code that uses the SDK, and of adapters.

Switch it on in the top ``conftest.py``::

    pytest_plugins = ["s3edge.testing.pytest_plugin"]

Any of the fixtures may be overridden. ``@pytest.mark.s3edge(...)`` says what an operator would decide:
the keywords are ``Asked``'s.
"""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from attrs import fields, frozen

from s3edge.client import Client
from s3edge.client.session import IN_PROCESS_URL
from s3edge.gateway import GatewayOptions
from s3edge.memory import MemoryObjectStorage
from s3edge.plugins import missing
from s3edge.ports import InferenceBackend, ObjectStorage
from s3edge.rules.limits import DEFAULT_RATE_LIMITS, parse_rate_limits
from s3edge.testing.clock import ManualClock
from s3edge.testing.deployment import Deployment, deployment_on
from s3edge.testing.scripted_gpu import ScriptedGpu
from s3edge.testing.signing_in import SignIn, SignInAsync, SigningIn
from s3edge.values import Tier, User


MARKER = "s3edge"


@frozen
class Asked:
    """
    What a test asks of the deployment: ``@pytest.mark.s3edge(rate_limits=True, initial_credits=3)``.

    Attributes:
        rate_limits: Whether the real limits hold; or changes to them, as in ``S3EDGE_RATE_LIMITS``:
            ``"free.segment=2/minute"``.
        initial_credits: What a new user has.
        segment_cost: What a segmentation costs.
        task_deadline_s: When an unanswered task is overdue, in seconds.
    """

    rate_limits: bool | str = False
    initial_credits: int = 100
    segment_cost: int = 1
    task_deadline_s: float = 900

    @property
    def options(self) -> GatewayOptions:
        """What it means for the gateway."""
        if isinstance(self.rate_limits, str):
            return GatewayOptions(rate_limits=parse_rate_limits(self.rate_limits))
        return GatewayOptions(rate_limits=DEFAULT_RATE_LIMITS if self.rate_limits else None)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    names = ", ".join(field.name for field in fields(Asked))
    config.addinivalue_line("markers", f"{MARKER}({names}): what the deployment in memory is like.")


@pytest.fixture
def s3edge_clock() -> ManualClock:
    """The time of the deployment and its clients: it passes when the test says so, or a client waits."""
    return ManualClock()


@pytest.fixture
def s3edge_base_url() -> str:
    """Where the deployment takes itself to be reached; override it where a host mounts it elsewhere."""
    return IN_PROCESS_URL


@pytest.fixture
def s3edge_storage(s3edge_base_url: str, s3edge_clock: ManualClock) -> ObjectStorage:
    """What holds images and masks; override it with a storage of your own."""
    return MemoryObjectStorage(s3edge_base_url, s3edge_clock)


@pytest.fixture
def s3edge_gpu(s3edge_storage: ObjectStorage, s3edge_clock: ManualClock) -> ScriptedGpu:
    """A GPU that does what the test says; until then, it finds what is brighter than half."""
    return ScriptedGpu(s3edge_storage, s3edge_clock)


@pytest.fixture
def s3edge_backend(s3edge_gpu: ScriptedGpu) -> InferenceBackend:
    """What segments; override it with a backend of your own."""
    return s3edge_gpu


@pytest.fixture
def s3edge_deployment(
    request: pytest.FixtureRequest,
    s3edge_clock: ManualClock,
    s3edge_storage: ObjectStorage,
    s3edge_backend: InferenceBackend,
) -> Deployment:
    """A deployment in memory that nothing has happened to; the clients run it."""
    asked = _asked(request.node)
    return deployment_on(
        s3edge_storage,
        clock=s3edge_clock,
        options=asked.options,
        backend=s3edge_backend,
        initial_credits=asked.initial_credits,
        segment_cost=asked.segment_cost,
        task_deadline_s=asked.task_deadline_s,
    )


@pytest.fixture
def s3edge_app(s3edge_deployment: Deployment) -> Callable[..., Any]:
    """The application that clients reach; override it for another door, or for a host of your own."""
    try:
        # Whoever overrides this fixture need not have Starlette.
        from s3edge_starlette import create_app  # noqa: PLC0415
    except ModuleNotFoundError as error:
        message = f"the fixture s3edge_app needs {missing(error.name)}"
        raise pytest.fail.Exception(message, pytrace=False) from None
    return create_app(s3edge_deployment.web)


@pytest.fixture
def s3edge_signing_in(
    s3edge_app: Callable[..., Any],
    s3edge_base_url: str,
    s3edge_deployment: Deployment,
    s3edge_clock: ManualClock,
) -> Iterator[SigningIn]:
    """What all clients of a test share; the application runs from the first call to the test's end."""
    signing_in = SigningIn(s3edge_app, s3edge_base_url, s3edge_deployment, s3edge_clock)
    yield signing_in
    signing_in.close()


@pytest.fixture
def s3edge_sign_in(s3edge_signing_in: SigningIn) -> SignIn:
    """Signs somebody in: ``s3edge_sign_in("alice", tier="free", credits=3)`` returns a ``Client``."""
    return SignIn(s3edge_signing_in)


@pytest.fixture
def s3edge_sign_in_async(s3edge_signing_in: SigningIn) -> SignInAsync:
    """Signs somebody in and returns an ``AsyncClient``; for any plugin that runs asynchronous tests."""
    return SignInAsync(s3edge_signing_in)


@pytest.fixture
def s3edge_user() -> User:
    """Who ``s3edge_client`` is signed in as: somebody new, with 100 credits; override it for others."""
    return User(uuid4(), Tier.PRO)


@pytest.fixture
def s3edge_client(s3edge_sign_in: SignIn, s3edge_user: User) -> Client:
    """A client of that deployment, signed in as somebody new."""
    return s3edge_sign_in(s3edge_user)


def _asked(item: pytest.Item) -> Asked:
    """Return what a test's markers say; the nearest counts."""
    asked: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers(MARKER))):
        asked |= marker.kwargs
        if marker.args:
            raise pytest.UsageError(f"@pytest.mark.{MARKER} takes keywords only")
    unknown = asked.keys() - {field.name for field in fields(Asked)}
    if unknown:
        names = ", ".join(field.name for field in fields(Asked))
        raise pytest.UsageError(
            f"@pytest.mark.{MARKER} does not know {', '.join(sorted(unknown))}; it takes {names}"
        )
    return Asked(**asked)
