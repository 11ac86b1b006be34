"""A gateway, and its HTTP application, that tell a test's clock when somebody waits for them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager

from anyio import to_thread
from attrs import define, evolve

from s3edge.gateway import Gateway
from s3edge.testing.clock import ManualClock
from s3edge.testing.clocked_loop import ClockedLoop
from s3edge.web.app import PathRoutes, WebApp
from s3edge.web.http import Request, Response


@define
class ClockedGateway(Gateway):
    """A gateway whose ``clock`` is a ``ManualClock``."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Gateway]:
        """Serve within this context."""
        loop = asyncio.get_running_loop()
        if isinstance(loop, ClockedLoop):
            loop.workers = to_thread.current_default_thread_limiter()
        clock = clock_of(self)
        with ExitStack() as to_the_end:
            async with AsyncExitStack() as stack:
                with clock.waiting():
                    running = await stack.enter_async_context(Gateway.running(self))
                try:
                    yield running
                finally:
                    to_the_end.enter_context(clock.closing())


class ClockedWebApp(WebApp):
    """A web application of a ``ClockedGateway``."""

    @asynccontextmanager
    async def response_to(
        self, request: Request, path: PathRoutes | None
    ) -> AsyncIterator[Response]:
        """Serve a request: until there is a response, somebody waits for it."""
        clock = clock_of(self.gateway)
        request = evolve(request, body=_supplied(request.body, clock))
        async with AsyncExitStack() as stack:
            with clock.waiting():
                response = await stack.enter_async_context(super().response_to(request, path))
            if not isinstance(response.body, bytes):
                response = evolve(response, body=_demanded(response.body, clock))
            yield response


def clock_of(gateway: Gateway) -> ManualClock:
    """Return the clock that a test moves."""
    if not isinstance(gateway.clock, ManualClock):
        message = "a clocked gateway needs a ManualClock"
        raise TypeError(message)
    return gateway.clock


async def _supplied(body: AsyncIterator[bytes], clock: ManualClock) -> AsyncIterator[bytes]:
    """Yield a request's body; what comes next is up to the client, who may be in another thread."""
    while True:
        with clock.not_waiting():
            chunk = await anext(body, None)
        if chunk is None:
            return
        yield chunk


async def _demanded(body: AsyncIterator[bytes], clock: ManualClock) -> AsyncIterator[bytes]:
    """Yield a response's body, which the client waits for."""
    while True:
        with clock.waiting():
            chunk = await anext(body, None)
        if chunk is None:
            return
        yield chunk
