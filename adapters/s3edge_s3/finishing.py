"""Requests that are not broken off in the middle: what they did must be known to be undone."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio


T = TypeVar("T")

GRACE_S = 1.0


async def finished(call: Callable[[], Awaitable[T]], grace_s: float = GRACE_S) -> T:
    """
    Await a call; when cancelled meanwhile, give it ``grace_s`` seconds to end, then be cancelled.

    Raises:
        Exception: What the call raises, unless cancelled.
    """
    results: list[T] = []
    failures: list[Exception] = []
    ended = anyio.Event()
    shield = anyio.CancelScope(shield=True)

    async def run() -> None:
        with shield:
            try:
                results.append(await call())
            except Exception as error:  # noqa: BLE001 - raised below, outside the group
                failures.append(error)
        ended.set()

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        try:
            await ended.wait()
        except anyio.get_cancelled_exc_class():
            shield.deadline = anyio.current_time() + grace_s
            raise
    if failures:
        raise failures[0]
    return results[0]
