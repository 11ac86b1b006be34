"""The in-memory ports keep every promise: they are the reference for all others."""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from s3edge.memory import (
    MemoryAuthenticator,
    MemoryDatabase,
    MemoryObjectStorage,
    MemoryRateLimiter,
    ThresholdBackend,
)
from s3edge.ports import InferenceBackend
from s3edge.rules.keys import unsigned, upload_key
from s3edge.testing import (
    AuthenticatorContract,
    AuthenticatorHarness,
    DatabaseContract,
    DatabaseHarness,
    InferenceBackendContract,
    InferenceBackendHarness,
    ManualClock,
    ObjectStorageContract,
    ObjectStorageHarness,
    RateLimiterContract,
    RateLimiterHarness,
    ScriptedGpu,
)
from s3edge.testing.contracts.database_machine import database_machine
from s3edge.values import User


BASE_URL = "http://testserver"


class TestMemoryAuthenticator(AuthenticatorContract):
    """``MemoryAuthenticator``."""

    @pytest.fixture
    def harness(self) -> AuthenticatorHarness:
        """Return an authenticator that knows no token yet."""
        clock = ManualClock()
        authenticator = MemoryAuthenticator(clock)

        async def issue(user: User, lifetime_s: float) -> str:
            return authenticator.issue(user, lifetime_s)

        return AuthenticatorHarness(
            authenticator, issue, clock.sleep, tamper=lambda token: token.swapcase()
        )


class TestMemoryObjectStorage(ObjectStorageContract):
    """``MemoryObjectStorage``."""

    @pytest.fixture
    def harness(self) -> ObjectStorageHarness:
        """Return an empty storage."""
        storage = MemoryObjectStorage(BASE_URL, ManualClock())

        async def keys() -> Collection[str]:
            return storage.keys()

        def foreign_urls(url: str) -> Sequence[str]:
            path = unsigned(url).removeprefix(BASE_URL)
            return [f"{BASE_URL}/other{path}", f"{BASE_URL}/MEDIA/a", f"{BASE_URL}/media"]

        return ObjectStorageHarness(storage, keys, foreign_urls)


@asynccontextmanager
async def open_database() -> AsyncIterator[DatabaseHarness]:
    """Open a database without users; its cost does not divide what they have."""
    clock = ManualClock()
    database = MemoryDatabase(clock, initial_credits=50, segment_cost=3, task_deadline_s=900)
    yield DatabaseHarness(database, clock.sleep, initial_credits=50, segment_cost=3, deadline_s=900)


class TestMemoryDatabase(DatabaseContract):
    """``MemoryDatabase``."""

    @pytest.fixture
    async def harness(self) -> AsyncIterator[DatabaseHarness]:
        """Return an empty database."""
        async with open_database() as harness:
            yield harness


TestMemoryDatabaseMachine = database_machine(open_database).TestCase


def on_empty_storage(
    make: Callable[[MemoryObjectStorage], InferenceBackend],
) -> InferenceBackendHarness:
    """Return a backend's harness on an empty storage."""
    storage = MemoryObjectStorage(BASE_URL, ManualClock())

    async def chunks(content: bytes) -> AsyncIterator[bytes]:
        yield content

    async def put_image(content: bytes, content_type: str) -> str:
        key = upload_key(uuid4(), uuid4())
        await storage.put(key, chunks(content), content_type=content_type)
        return storage.url_for(key)

    return InferenceBackendHarness(make(storage), storage, put_image)


class TestThresholdBackend(InferenceBackendContract):
    """``ThresholdBackend``."""

    @pytest.fixture
    def harness(self) -> InferenceBackendHarness:
        """Return a backend on an empty storage."""
        return on_empty_storage(ThresholdBackend)


class TestScriptedGpu(InferenceBackendContract):
    """``ScriptedGpu``, of which a test has said nothing."""

    @pytest.fixture
    def harness(self) -> InferenceBackendHarness:
        """Return a backend on an empty storage."""
        return on_empty_storage(lambda storage: ScriptedGpu(storage, ManualClock()))


class TestMemoryRateLimiter(RateLimiterContract):
    """``MemoryRateLimiter``."""

    @pytest.fixture
    def harness(self) -> RateLimiterHarness:
        """Return a limiter that has seen nobody."""
        clock = ManualClock()
        return RateLimiterHarness(MemoryRateLimiter(clock), clock.sleep)
