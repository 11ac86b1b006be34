"""How suites call a port many times at once."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import anyio

from s3edge.errors import EdgeError


T = TypeVar("T")


async def at_once(
    calls: Iterable[Callable[[], Awaitable[T]]],
) -> tuple[list[T], list[EdgeError]]:
    """Run calls concurrently; return what they returned and how they were refused."""
    returned: list[T] = []
    refusals: list[EdgeError] = []

    async def run(call: Callable[[], Awaitable[T]]) -> None:
        try:
            returned.append(await call())
        except EdgeError as error:
            refusals.append(error)

    async with anyio.create_task_group() as group:
        for call in calls:
            group.start_soon(run, call)
    return returned, refusals
