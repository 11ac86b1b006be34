"""
Contract suites: what an implementation of a port must pass.

An adapter's test subclasses the suite of its port and supplies one fixture, ``harness``::

    class TestMyStorage(ObjectStorageContract):
        @pytest.fixture
        async def harness(self) -> ObjectStorageHarness: ...

The tests are async and run by anyio's pytest plugin: a fixture ``anyio_backend`` that returns
``"asyncio"`` picks the loop. Call ``pytest.register_assert_rewrite("s3edge.testing")`` in the
``conftest.py`` to see values in failures. What differs between correct adapters is a field of the
harness; no subclass overrides a test.

``s3edge.testing.contracts.database_machine`` also drives a database through random interleavings.
"""

from s3edge.testing.clock import ManualClock
from s3edge.testing.contracts.authenticator import AuthenticatorContract, AuthenticatorHarness
from s3edge.testing.contracts.database import DatabaseContract, DatabaseHarness
from s3edge.testing.contracts.door import DoorContract, DoorHarness
from s3edge.testing.contracts.inference_backend import (
    InferenceBackendContract,
    InferenceBackendHarness,
)
from s3edge.testing.contracts.object_storage import ObjectStorageContract, ObjectStorageHarness
from s3edge.testing.contracts.rate_limiter import RateLimiterContract, RateLimiterHarness
from s3edge.testing.contracts.task_queue import TaskQueueContract, TaskQueueHarness
from s3edge.testing.deployment import (
    Deployment,
    MemoryDeployment,
    deployment_on,
    memory_deployment,
)
from s3edge.testing.scripted_gpu import ScriptedGpu
from s3edge.testing.signing_in import SignIn, SignInAsync


__all__ = [
    "AuthenticatorContract",
    "AuthenticatorHarness",
    "DatabaseContract",
    "DatabaseHarness",
    "Deployment",
    "DoorContract",
    "DoorHarness",
    "InferenceBackendContract",
    "InferenceBackendHarness",
    "ManualClock",
    "MemoryDeployment",
    "ObjectStorageContract",
    "ObjectStorageHarness",
    "RateLimiterContract",
    "RateLimiterHarness",
    "ScriptedGpu",
    "SignIn",
    "SignInAsync",
    "TaskQueueContract",
    "TaskQueueHarness",
    "deployment_on",
    "memory_deployment",
]
