"""What must not be broken off in the middle."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import anyio


async def ended(work: Coroutine[Any, Any, None]) -> None:
    """
    Do something to its end, then be cancelled.

    anyio's shield alone does not stop asyncio's own cancellation (``Task.cancel``, ``asyncio.timeout``).

    Raises:
        Exception: What the work raises, unless cancelled.
    """
    task = asyncio.create_task(work)
    cancellation = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancellation = error
    if cancellation is not None:
        # Looked at, or asyncio logs it as one that nobody has heard of.
        _ = task.cancelled() or task.exception()
        raise cancellation
    task.result()
