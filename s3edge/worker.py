"""A process that runs queued tasks and serves no requests."""

import anyio

from s3edge.gateway import Gateway, opened
from s3edge.ports import TaskQueue


async def run_worker(gateway: Gateway, queue: TaskQueue, stop: anyio.Event) -> None:
    """
    Run tasks from a queue until told to stop; then let those that run end within the grace period.

    Args:
        gateway: Runs a task; its own background work is not begun.
        queue: Hands the tasks out.
        stop: Set when it is time to stop.
    """
    async with opened((gateway.database, gateway.storage, gateway.backend, queue)):
        await queue.work(
            gateway.dispatch,
            concurrency=gateway.concurrency,
            grace_s=gateway.options.grace_s,
            stop=stop,
        )
