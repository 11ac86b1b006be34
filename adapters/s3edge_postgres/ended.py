"""What must not be broken off in the middle."""

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any

import anyio


async def ended(work: Coroutine[Any, Any, None]) -> None:
    """
    Do something to its end, then be cancelled.

    anyio's shield alone does not stop asyncio's own cancellation (``Task.cancel``, ``asyncio.timeout``).

    Raises:
        Exception: What the work raises, unless cancelled.
    """
    try:
        waits_for = work.send(None)
    except StopIteration:
        return  # it waits for nothing, as nearly always, and then a task would cost more than the work
    task = asyncio.create_task(_rest(work, waits_for))
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


async def _rest(work: Coroutine[Any, Any, None], waits_for: Any) -> None:
    await _go_on(work, waits_for)


@types.coroutine
def _go_on(work: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    """Do the rest of what has begun and waits for something: as ``await``, but from there on."""
    try:
        while True:
            try:
                came = yield waits_for
            except BaseException as error:  # noqa: BLE001 - a cancellation, say; it is the work's
                waits_for = work.throw(error)
            else:
                waits_for = work.send(came)
    except StopIteration:
        return
