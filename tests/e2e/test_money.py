"""Nothing is ever charged twice or lost, whatever happens to the process, and over each door."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from uuid import uuid4

import pytest

from s3edge.client import (
    Client,
    ConnectionFailed,
    IdempotencyKeyReused,
    InsufficientCredits,
    Task,
    TaskFailed,
)
from s3edge.testing.server import ServerProcess, StartServer
from tests.e2e.colours import (
    AnyClient,
    AnyResult,
    AnyTask,
    Colour,
    client_of,
    done,
    refused,
    together,
)


WITHIN_S = 120.0

CREDITS = 50

pytestmark = pytest.mark.anyio


async def test_fifty_credits_buy_fifty_segmentations(start_door: StartServer, scene: bytes) -> None:
    """Of 200 concurrent requests 50 are accepted and 150 answered 402; the balance ends at 0."""
    server = start_door(S3EDGE_RATE_LIMITS="off", S3EDGE_INITIAL_CREDITS=str(CREDITS))
    token = server.token(uuid4())
    async with (
        client_of("sync", server.url, token) as one,
        client_of("async", server.url, token) as other,
    ):
        image = await done(one.upload(scene))

        async def half_by(client: AnyClient) -> list[object]:
            return await together(lambda: client.segment(image, "red"), 100)

        outcomes = [it for half in await asyncio.gather(*map(half_by, (one, other))) for it in half]
        refusals = [it for it in outcomes if isinstance(it, InsufficientCredits)]
        tasks = [it for it in outcomes if isinstance(it, AnyTask)]
        assert (len(tasks), len(refusals)) == (CREDITS, 150)
        assert {error.status for error in refusals} == {402}
        assert (await done(one.me())).credits == 0
        for task in tasks:
            result: AnyResult = await done(task.wait(timeout=WITHIN_S))
            assert result.status == "done"
    reconciled = server.run("reconcile")
    assert (reconciled.returncode, reconciled.stdout) == (0, "accounts: 1, nothing wrong\n")


async def test_one_key_buys_one_segmentation(
    shared_server: ServerProcess, colour: Colour, scene: bytes
) -> None:
    """Twenty requests with one Idempotency-Key make one task and cost one credit."""
    async with client_of(colour, shared_server.url, shared_server.token(uuid4())) as client:
        image = await done(client.upload(scene))
        key = str(uuid4())
        tasks = await together(lambda: client.segment(image, "red", idempotency_key=key), 20)
        assert len({task.id for task in tasks}) == 1
        replayed = [task.replayed for task in tasks]
        assert (replayed.count(False), replayed.count(True)) == (1, 19)
        assert (await done(client.me())).credits == 99
        changed = await refused(
            IdempotencyKeyReused, lambda: client.segment(image, "x", idempotency_key=key)
        )
        assert changed.status == 422


def test_a_killed_server_loses_nothing(start_door: StartServer, scene: bytes) -> None:
    """Killed under load and started again, every charged task ends and the books are right."""
    server = start_door(S3EDGE_RATE_LIMITS="off", S3EDGE_DISPATCH_CONCURRENCY="2")
    tokens = [server.token(uuid4()) for _ in range(4)]
    accepted: list[tuple[str, Task]] = []
    enough, killed = threading.Event(), threading.Event()

    def load(token: str) -> None:
        # Nothing is sent again: what the crash breaks off stays broken off.
        client = Client(base_url=server.url, token=token, max_retries=0)
        with client, suppress(ConnectionFailed, InsufficientCredits):
            image = client.upload(scene)
            while not killed.is_set():
                accepted.append((token, client.segment(image, "red")))
                if len(accepted) >= 40:
                    enough.set()

    with ThreadPoolExecutor(len(tokens)) as threads:
        loads = [threads.submit(load, token) for token in tokens]
        try:
            assert enough.wait(WITHIN_S)
        finally:
            killed.set()
            server.kill()
            server.start()
    for ended in loads:
        ended.result()
    for token in tokens:
        with Client(base_url=server.url, token=token) as client:
            tasks = [client.task(task) for mine, task in accepted if mine == token]
            # Those that were charged and whose answer was lost on the way end as well.
            for status in ("pending", "processing"):
                tasks += [client.task(result.id) for result in client.results(status=status)]
            assert {end_of(task) for task in tasks} <= {"done", "error"}
    reconciled = server.run("reconcile")
    assert reconciled.returncode == 0, reconciled.stdout


def end_of(task: Task) -> str:
    """Return the status in which a task ends, within two minutes."""
    with suppress(TaskFailed):
        task.wait(timeout=WITHIN_S)
    return task.refresh().status
