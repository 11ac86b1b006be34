"""A request that was refused because the database did not answer charges nothing in the end."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest
from anyio.abc import TaskGroup

from s3edge.dispatcher import UNDO_WINDOW_S
from s3edge.errors import Code, EdgeError, unavailable
from s3edge.gateway import Gateway, GatewayOptions
from s3edge.memory import (
    MemoryAuthenticator,
    MemoryDatabase,
    MemoryObjectStorage,
    MemoryRateLimiter,
    ThresholdBackend,
)
from s3edge.ports import Clock
from s3edge.rules.keys import upload_key
from s3edge.rules.lifecycle import RECOVERY_INTERVAL_S
from s3edge.usecases.request_segmentation import SegmentationRequest, request_segmentation
from s3edge.values import NewTask, Reservation, ResultQuery, Task, TaskStatus, User


pytestmark = pytest.mark.anyio

ALICE = User(UUID("a11ce000-0000-4000-8000-000000000001"))


@pytest.fixture(scope="module")
def anyio_backend(jumping_loop: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Let time pass at once."""
    return jumping_loop


class SilentDatabase(MemoryDatabase):
    """Reserves, at once or later, and never says so; may be down for some calls more."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.late: TaskGroup
        self.silent = True
        self.commits_after_s: float | None = 0.0
        self.down_for_calls = 0

    async def reserve_task(self, user: User, new: NewTask) -> Reservation:
        """Implement ``Database``."""
        if not self.silent:
            return await super().reserve_task(user, new)
        if self.commits_after_s is not None:
            if self.commits_after_s == 0:
                await super().reserve_task(user, new)
            else:
                self.late.start_soon(self._late, user, new, self.commits_after_s)
        raise unavailable("The database does not answer.")

    async def fail_task(
        self, task_id: UUID, code: Code, message: str, *, attempt: int | None = None
    ) -> bool:
        """Implement ``Database``."""
        if self.down_for_calls:
            self.down_for_calls -= 1
            raise unavailable("The database does not answer.")
        return await super().fail_task(task_id, code, message, attempt=attempt)

    async def _late(self, user: User, new: NewTask, after_s: float) -> None:
        await anyio.sleep(after_s)
        await super().reserve_task(user, new)


@pytest.fixture
def database(clock: Clock) -> SilentDatabase:
    """Return a database that reserves and does not say so."""
    return SilentDatabase(clock)


@pytest.fixture
def gateway(database: SilentDatabase, clock: Clock) -> Gateway:
    """Return a gateway over it."""
    storage = MemoryObjectStorage("https://edge.test", clock)
    return Gateway(
        authenticator=MemoryAuthenticator(clock),
        storage=storage,
        database=database,
        backend=ThresholdBackend(storage),
        rate_limiter=MemoryRateLimiter(clock),
        options=GatewayOptions(rate_limits=None),
        clock=clock,
    )


async def ask(gateway: Gateway, image_id: UUID, key: str | None = None) -> Reservation:
    """Ask for a segmentation."""

    async def image() -> AsyncIterator[bytes]:
        yield b"image"

    await gateway.storage.put(
        upload_key(ALICE.user_id, image_id), image(), content_type="image/png"
    )
    return await request_segmentation(
        ALICE,
        SegmentationRequest("a cat", image_id=image_id, idempotency_key=key),
        database=gateway.database,
        storage=gateway.storage,
        ids=gateway.ids,
        disown=gateway.disown,
    )


async def ask_in_vain(gateway: Gateway, image_id: UUID, key: str | None = None) -> None:
    """Ask for a segmentation, and be refused."""
    with pytest.raises(EdgeError) as caught:
        await ask(gateway, image_id, key)
    assert caught.value.code is Code.SERVICE_UNAVAILABLE


async def tasks(gateway: Gateway) -> list[Task]:
    """Return all of the user's tasks."""
    return list((await gateway.database.results(ALICE, ResultQuery(limit=100))).tasks)


@pytest.mark.parametrize("down_for_calls", [0, 3])
async def test_a_task_that_nobody_was_told_of_is_taken_back(
    gateway: Gateway, database: SilentDatabase, down_for_calls: int
) -> None:
    """It is refunded as soon as the database answers, and never runs."""
    database.down_for_calls = down_for_calls
    async with gateway.running():
        await ask_in_vain(gateway, uuid4())
        # Whoever waits hears of it: no lease may run out before.
        await anyio.sleep((down_for_calls + 1) * RECOVERY_INTERVAL_S + 1)
        [task] = await tasks(gateway)
    assert (task.status, task.error_code) == (TaskStatus.ERROR, "SERVICE_UNAVAILABLE")
    assert (await database.profile(ALICE)).credits == 100


async def test_a_task_that_appears_late_is_taken_back(
    gateway: Gateway, database: SilentDatabase
) -> None:
    """A database may finish what nobody waits for any more."""
    database.commits_after_s = UNDO_WINDOW_S - 1
    async with anyio.create_task_group() as database.late, gateway.running():
        await ask_in_vain(gateway, uuid4())
        await anyio.sleep(UNDO_WINDOW_S + RECOVERY_INTERVAL_S + 1)
        [task] = await tasks(gateway)
    assert task.status is TaskStatus.ERROR
    assert (await database.profile(ALICE)).credits == 100


async def test_what_never_appears_is_forgotten(gateway: Gateway, database: SilentDatabase) -> None:
    """A reservation that was never made leaves nothing, and nothing is asked for ever."""
    database.commits_after_s = None
    async with gateway.running():
        await ask_in_vain(gateway, uuid4())
        await anyio.sleep(UNDO_WINDOW_S + 3 * RECOVERY_INTERVAL_S)
        database.down_for_calls = 1
        await anyio.sleep(3 * RECOVERY_INTERVAL_S)
    assert database.down_for_calls == 1
    assert await tasks(gateway) == []


async def test_a_stop_takes_back_what_is_in_doubt(
    gateway: Gateway, database: SilentDatabase
) -> None:
    """The process that ends leaves no charge behind."""
    async with gateway.running():
        await ask_in_vain(gateway, uuid4())
    [task] = await tasks(gateway)
    assert task.status is TaskStatus.ERROR
    assert (await database.profile(ALICE)).credits == 100


async def test_a_repeat_with_a_key_gets_the_task(
    gateway: Gateway, database: SilentDatabase
) -> None:
    """With an idempotency key the client finds out by itself, so the task is left to run."""
    image_id = uuid4()
    async with gateway.running():
        await ask_in_vain(gateway, image_id, "a key")
        await anyio.sleep(3 * RECOVERY_INTERVAL_S)
        database.silent = False
        repeat = await ask(gateway, image_id, "a key")
    assert repeat.replayed
    assert [task.id for task in await tasks(gateway)] == [repeat.task.id]
    assert repeat.credits == 99
