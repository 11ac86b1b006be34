"""One worker of the queue, from its start to its orderly end."""

import asyncio
from typing import Any

import anyio
import procrastinate

from s3edge.rules.lifecycle import HEARTBEAT_S, LEASE_S


STALLED_S = LEASE_S
"""After how many seconds without a heartbeat a worker is taken for dead, as with leases."""

POLL_S = 2.0
"""How often a worker looks for jobs that no notification told of: those that were due only later."""


async def run_queue_worker(
    app: procrastinate.App,
    failed: anyio.Event,
    queue: str,
    concurrency: int,
    grace_s: float,
    stop: anyio.Event,
) -> None:
    """
    Run one worker until told to stop, or until its database fails; then let its jobs end in time.

    Raises:
        ConnectorException: The database failed.
        psycopg.Error: The same.
    """
    ends = [asyncio.create_task(event.wait()) for event in (stop, failed)]
    opening: asyncio.Task[Any] = asyncio.create_task(app.open_async().__aenter__())
    try:
        await asyncio.wait([opening, *ends], return_when=asyncio.FIRST_COMPLETED)
        if not opening.done():
            return
        opening.result()
        worker = asyncio.create_task(
            app.run_worker_async(
                queues=[queue],
                name=queue,
                concurrency=concurrency,
                install_signal_handlers=False,
                fetch_job_polling_interval=POLL_S,
                shutdown_graceful_timeout=grace_s,
                update_heartbeat_interval=HEARTBEAT_S,
                stalled_worker_timeout=STALLED_S,
                delete_jobs="successful",
            )
        )
        try:
            await asyncio.wait([worker, *ends], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _finished(worker)
    finally:
        for task in (opening, *ends):
            task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([opening, *ends])
            await app.close_async()


async def _finished(worker: asyncio.Task[None]) -> None:
    """Have a worker stop in its orderly way, which a cancellation asks for, once."""
    worker.cancel()
    with anyio.CancelScope(shield=True):
        await asyncio.wait([worker])
    if not worker.cancelled():
        worker.result()
