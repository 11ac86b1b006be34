"""What tests of background dispatch share: a gateway over ports in memory, and a user with tasks."""

from typing import Any
from uuid import UUID, uuid4

from s3edge.gateway import Gateway, GatewayOptions
from s3edge.memory import (
    MemoryAuthenticator,
    MemoryDatabase,
    MemoryObjectStorage,
    MemoryRateLimiter,
)
from s3edge.ports import Clock, InferenceBackend
from s3edge.rules.keys import unsigned, upload_key
from s3edge.values import NewTask, Task, User


ALICE = User(UUID("a11ce000-0000-4000-8000-000000000001"))


def gateway_of(
    database: MemoryDatabase,
    storage: MemoryObjectStorage,
    backend: InferenceBackend,
    clock: Clock,
    **options: Any,
) -> Gateway:
    """Return a gateway over these ports."""
    return Gateway(
        authenticator=MemoryAuthenticator(clock),
        storage=storage,
        database=database,
        backend=backend,
        rate_limiter=MemoryRateLimiter(clock),
        options=GatewayOptions(**options),
        clock=clock,
    )


async def reserved(
    database: MemoryDatabase, storage: MemoryObjectStorage, user: User = ALICE
) -> Task:
    """Return a task that its user paid for."""
    url = unsigned(storage.url_for(upload_key(user.user_id, uuid4())))
    return (await database.reserve_task(user, NewTask(uuid4(), url, "a cat"))).task


async def stored(database: MemoryDatabase, task: Task) -> Task:
    """Return a task as it stands now."""
    found = await database.task(User(task.user_id), task.id)
    assert found is not None
    return found
