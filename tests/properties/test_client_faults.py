"""However bad the network, the SDK charges nothing twice and forgets nothing that was accepted."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from uuid import UUID, uuid4

import httpx
import pytest
from attrs import define, field
from PIL import Image

from s3edge.client import AsyncClient, Client, S3EdgeError
from s3edge.client.drivers import transport_to
from s3edge.testing import MemoryDeployment, memory_deployment
from s3edge.testing.clock import ManualClock
from s3edge.testing.faulty_transport import (
    ALL_FAULTS,
    AsyncFaultyTransport,
    Fault,
    Faults,
    FaultyTransport,
)
from s3edge.values import Tier, User
from s3edge_starlette import create_app


BASE_URL = "http://s3edge.test"
RUNS = 1000
SEGMENTS = 3

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]


@pytest.fixture
def image() -> bytes:
    """Return the smallest PNG that Pillow writes."""
    encoded = io.BytesIO()
    Image.new("L", (1, 1), 255).save(encoded, "PNG")
    return encoded.getvalue()


@define
class Books:
    """
    What one user asked for, and was told.

    Attributes:
        asked: How many segmentations, each under a key of its own.
        accepted: The task by its key.
        refused: How many of them were given up, after which nobody knows whether they exist.
    """

    asked: int = 0
    accepted: dict[str, UUID] = field(factory=dict)
    refused: int = 0

    def accept(self, key: str | None, task_id: UUID) -> None:
        """Remember an answer; one key must always be answered with the same task."""
        assert key is not None
        assert self.accepted.setdefault(key, task_id) == task_id

    def refuse(self, error: S3EdgeError) -> None:
        """Remember that a call was given up, which only a bad network may bring about."""
        assert error.retryable, error
        self.refused += 1


def check(books: Books, listed: list[UUID], balance: int, granted: int) -> None:
    """Hold what was charged against what was asked for and what was answered."""
    tasks = set(listed)
    assert len(listed) == len(tasks)
    assert set(books.accepted.values()) <= tasks
    assert len(books.accepted) == len(set(books.accepted.values()))
    # Whatever was given up exists once or not at all.
    assert len(books.accepted) <= len(tasks) <= len(books.accepted) + books.refused <= books.asked
    assert granted - balance == len(tasks)


def add(total: dict[Fault, int], faults: Faults) -> None:
    """Count what went wrong."""
    for fault, count in faults.counts.items():
        total[fault] = total.get(fault, 0) + count


def check_that_faults_happened(total: dict[Fault, int]) -> None:
    """A test of faults without faults would show nothing."""
    assert {fault: total.get(fault, 0) > RUNS // 10 for fault in ALL_FAULTS} == dict.fromkeys(
        ALL_FAULTS, True
    )


@pytest.fixture
async def deployment() -> AsyncIterator[MemoryDeployment]:
    """Run a deployment in memory."""
    deployment = memory_deployment(BASE_URL)
    async with deployment.gateway.running():
        yield deployment


async def test_async_client_under_faults(deployment: MemoryDeployment, image: bytes) -> None:
    """A thousand users of ``AsyncClient``, each behind a network of its own: the books are right."""
    app = create_app(deployment.web, runs_gateway=False)
    total: dict[Fault, int] = {}
    for seed in range(RUNS):
        time = ManualClock(chance=seed % 11 / 10)
        faults = Faults(seed, time, rate=0.1 + seed % 7 / 10)
        network = AsyncFaultyTransport(httpx.ASGITransport(app), faults)
        token = deployment.authenticator.issue(User(uuid4(), Tier.PRO))
        books = Books()
        async with AsyncClient(
            base_url=BASE_URL, token=token, transport=network, surroundings=time.surroundings()
        ) as client:
            uploaded = None
            for _ in range(20):
                try:
                    uploaded = await client.upload(image)
                    break
                except S3EdgeError:
                    continue
            assert uploaded is not None, seed
            for _ in range(SEGMENTS):
                books.asked += 1
                try:
                    task = await client.segment(uploaded, "what is bright")
                    books.accept(task.idempotency_key, task.id)
                except S3EdgeError as error:
                    books.refuse(error)
                    key = error.idempotency_key
                    # Half of those who were refused ask again, under the key that the error names.
                    if seed % 2:
                        try:
                            again = await client.segment(
                                uploaded, "what is bright", idempotency_key=key
                            )
                        except S3EdgeError:
                            continue
                        books.accept(key, again.id)
                        books.refused -= 1
            await network.deliver_late()
        async with AsyncClient.for_app(app, token=token, runs_lifespan=False) as clean:
            listed = [result.id async for result in clean.results()]
            check(books, listed, (await clean.me()).credits, 100)
            if seed % 10 == 0:
                for task_id in books.accepted.values():
                    await clean.task(task_id).wait(timeout=60)
        add(total, faults)
    check_that_faults_happened(total)


@pytest.fixture
def app_network(
    sync_deployment: MemoryDeployment,
) -> Iterator[httpx.BaseTransport]:
    """Reach a deployment in memory that runs on a thread of its own."""
    inner = transport_to(create_app(sync_deployment.web), runs_lifespan=True)
    yield inner
    inner.close()


@pytest.fixture
def sync_deployment() -> MemoryDeployment:
    """Return a deployment in memory; whoever serves it runs it."""
    return memory_deployment(BASE_URL)


def test_client_under_faults(
    sync_deployment: MemoryDeployment, app_network: httpx.BaseTransport, image: bytes
) -> None:
    """A thousand users of ``Client``: likewise."""
    total: dict[Fault, int] = {}
    for seed in range(RUNS):
        time = ManualClock(chance=seed % 11 / 10)
        faults = Faults(seed, time, rate=0.1 + seed % 7 / 10)
        network = FaultyTransport(_Shared(app_network), faults)
        token = sync_deployment.authenticator.issue(User(uuid4(), Tier.PRO))
        books = Books()
        with Client(
            base_url=BASE_URL, token=token, transport=network, surroundings=time.surroundings()
        ) as client:
            uploaded = None
            for _ in range(20):
                try:
                    uploaded = client.upload(image)
                    break
                except S3EdgeError:
                    continue
            assert uploaded is not None, seed
            for _ in range(SEGMENTS):
                books.asked += 1
                try:
                    task = client.segment(uploaded, "what is bright")
                    books.accept(task.idempotency_key, task.id)
                except S3EdgeError as error:
                    books.refuse(error)
            network.deliver_late()
        with Client(base_url=BASE_URL, token=token, transport=_Shared(app_network)) as clean:
            check(books, [result.id for result in clean.results()], clean.me().credits, 100)
        add(total, faults)
    check_that_faults_happened(total)


class _Shared(httpx.BaseTransport):
    """A transport that is not closed with the client that borrows it."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._inner.handle_request(request)


async def test_concurrent_repeats_are_one(deployment: MemoryDeployment, image: bytes) -> None:
    """Ten at once under one key get one task, of which one was new, and pay once."""
    app = create_app(deployment.web, runs_gateway=False)
    token = deployment.authenticator.issue(User(uuid4(), Tier.PRO))
    async with AsyncClient.for_app(app, token=token, runs_lifespan=False) as client:
        uploaded = await client.upload(image)
        tasks = await asyncio.gather(
            *(client.segment(uploaded, "bright", idempotency_key="mine") for _ in range(10))
        )
        assert len({task.id for task in tasks}) == 1
        assert sorted(task.replayed for task in tasks) == [False] + [True] * 9
        assert (await client.me()).credits == 99
