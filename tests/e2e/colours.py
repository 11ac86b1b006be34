"""
The SDK in both colours, for tests that are written once.

``Client`` and ``AsyncClient`` have the same calls. A test makes one through ``done``, which awaits what
is to be awaited; what waits may hold up the test's event loop, on which nothing else runs.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeAlias, TypeVar, cast, get_args

import pytest

from s3edge.client import (
    AsyncClient,
    AsyncListedResult,
    AsyncResult,
    AsyncResults,
    AsyncTask,
    Client,
    ListedResult,
    Result,
    Results,
    S3EdgeError,
    Task,
)


T = TypeVar("T")
E = TypeVar("E", bound=S3EdgeError)

Colour = Literal["sync", "async"]

COLOURS: Sequence[Colour] = get_args(Colour)

AnyClient: TypeAlias = Client | AsyncClient
AnyTask: TypeAlias = Task | AsyncTask
AnyResult: TypeAlias = Result | AsyncResult


async def done(outcome: T | Awaitable[T]) -> T:
    """Return what a call of either colour comes to."""
    return await cast("Awaitable[T]", outcome) if inspect.isawaitable(outcome) else outcome


async def refused(kind: type[E], call: Callable[[], object]) -> E:
    """Make a call that must come to an error, and return that."""
    with pytest.raises(kind) as raised:
        await done(call())
    return raised.value


async def together(call: Callable[[], Any], times: int) -> list[Any]:
    """Make a call so many times at once, and return what each comes to, its error among them."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(times) as pool:

        async def once() -> Any:
            return await done(await loop.run_in_executor(pool, call))

        return await asyncio.gather(*(once() for _ in range(times)), return_exceptions=True)


async def listed(results: Results | AsyncResults) -> list[ListedResult | AsyncListedResult]:
    """Return all of a list."""
    if isinstance(results, AsyncResults):
        return [result async for result in results]
    return list(results)


@asynccontextmanager
async def client_of(colour: Colour, url: str, token: str | None = None) -> AsyncIterator[AnyClient]:
    """Return a client, and close it in the end."""
    kind = Client if colour == "sync" else AsyncClient
    client = kind(base_url=url, token=token)
    try:
        yield client
    finally:
        await done(client.close())
