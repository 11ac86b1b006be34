"""Puts that are cancelled, at every point: nothing of them stays."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import anyio
import pytest

from s3edge_s3.finishing import finished
from s3edge_s3.parts import PART_BYTES
from s3edge_s3.storage import S3ObjectStorage


pytestmark = pytest.mark.anyio

Store = Any  # RecordingStore in conftest.py
Sent = Any

KEY = "uploads/11111111-0000-4000-8000-000000000000/22222222-0000-4000-8000-000000000000"
SIZES = {"PUT": 10}
IN_PARTS = 2 * PART_BYTES + 10

actions = pytest.mark.parametrize(
    "action", ["PUT", "POST begin", "PUT part 1", "PUT part 3", "POST complete"]
)


async def stream(size_bytes: int) -> AsyncIterator[bytes]:
    """Yield so many bytes."""
    for start in range(0, size_bytes, PART_BYTES):
        yield b"\xa5" * min(PART_BYTES, size_bytes - start)


async def put_and_cancel(
    storage: S3ObjectStorage, size_bytes: int, begun: anyio.Event, *, then: anyio.Event
) -> None:
    """Put, cancel that once ``begun`` is set, and then set ``then``."""
    async with anyio.create_task_group() as group:
        group.start_soon(partial(storage.put, KEY, stream(size_bytes), content_type="image/png"))
        await begun.wait()
        group.cancel_scope.cancel()
        then.set()


@actions
async def test_cancelled_before_the_store_acts(
    store: Store, storage: S3ObjectStorage, action: str
) -> None:
    """The store acts after the put was cancelled."""
    begun, cancelled = anyio.Event(), anyio.Event()

    async def wait(sent: Sent) -> None:
        if sent.action == action:
            begun.set()
            await cancelled.wait()

    store.before = wait
    await put_and_cancel(storage, SIZES.get(action, IN_PARTS), begun, then=cancelled)
    assert store.is_empty


@actions
async def test_cancelled_after_the_store_acted(
    store: Store, storage: S3ObjectStorage, action: str
) -> None:
    """The store has acted when the put is cancelled, and answers after that."""
    begun, cancelled = anyio.Event(), anyio.Event()

    async def wait(sent: Sent) -> None:
        if sent.action == action:
            begun.set()
            await cancelled.wait()

    store.after = wait
    await put_and_cancel(storage, SIZES.get(action, IN_PARTS), begun, then=cancelled)
    assert store.is_empty


@pytest.mark.parametrize("action", ["PUT", "PUT part 1", "POST complete"])
async def test_cancelled_while_the_answer_is_lost(
    store: Store, hasty: S3ObjectStorage, action: str
) -> None:
    """The store has acted and never says so."""
    begun, cancelled = anyio.Event(), anyio.Event()

    async def wait(sent: Sent) -> None:
        if sent.action == action:
            begun.set()
            await store.silence()

    store.after = wait
    await put_and_cancel(hasty, SIZES.get(action, IN_PARTS), begun, then=cancelled)
    assert store.is_empty


@pytest.mark.parametrize("action", ["PUT", "POST complete"])
async def test_cancelled_while_anothers_object_stands(
    store: Store, storage: S3ObjectStorage, action: str
) -> None:
    """What another put stored, the same bytes even, is left alone."""
    store.keep(KEY, b"\xa5" * 10)
    begun, cancelled = anyio.Event(), anyio.Event()

    async def wait(sent: Sent) -> None:
        if sent.action == action:
            begun.set()
            await cancelled.wait()

    store.before = wait
    await put_and_cancel(storage, SIZES.get(action, IN_PARTS), begun, then=cancelled)
    assert list(store.objects) == [KEY]
    assert store.uploads == {}


async def test_a_call_is_finished_although_cancelled() -> None:
    """It ends, and then its caller is cancelled."""
    begun, go_on, ended = anyio.Event(), anyio.Event(), anyio.Event()

    async def call() -> None:
        begun.set()
        await go_on.wait()
        ended.set()

    async with anyio.create_task_group() as group:
        group.start_soon(finished, call)
        await begun.wait()
        group.cancel_scope.cancel()
        go_on.set()
    assert ended.is_set()


async def test_a_call_is_finished_with_its_result_or_error() -> None:
    """Without a cancellation it is as if it was awaited."""

    async def one() -> int:
        return 1

    async def fail() -> int:
        raise ConnectionResetError

    assert await finished(one) == 1
    with pytest.raises(ConnectionResetError):
        await finished(fail)


async def test_a_call_that_does_not_end_is_given_up() -> None:
    """Its grace is over, and both are cancelled."""
    begun = anyio.Event()
    cancelled = []

    async def call() -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            cancelled.append(True)
            raise

    async with anyio.create_task_group() as group:
        group.start_soon(partial(finished, call, grace_s=0.01))
        await begun.wait()
        group.cancel_scope.cancel()
    assert cancelled == [True]
