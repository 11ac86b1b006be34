"""A process that runs queued tasks and serves no requests."""

from collections.abc import Awaitable, Callable

import anyio

from s3edge.gateway import Gateway, opened
from s3edge.ports import TaskQueue


async def run_worker(
    gateway: Gateway,
    queue: TaskQueue,
    stop: anyio.Event,
    prepare: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """
    Run tasks from a queue until told to stop; then let those that run end within the grace period.

    Args:
        gateway: Runs a task; its own background work is not begun.
        queue: Hands the tasks out.
        stop: Set when it is time to stop.
        prepare: What must be done before any task is taken; a stop cancels it.
    """
    async with opened((gateway.database, gateway.storage, gateway.backend, queue)):
        if prepare is not None:
            await _until(stop, prepare)
        await queue.work(
            gateway.dispatch,
            concurrency=gateway.concurrency,
            grace_s=gateway.options.grace_s,
            stop=stop,
        )


async def _until(stop: anyio.Event, call: Callable[[], Awaitable[None]]) -> None:
    """Wait for a call, or for the stop if that comes first."""

    async def give_up() -> None:
        await stop.wait()
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(give_up)
        await call()
        group.cancel_scope.cancel()
