"""What hands requests to an application in this process, ASGI or WSGI, from either colour."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeAlias

import httpx

from s3edge.client.in_process import Lifespan, LoopThread, is_asgi


NewEventLoop: TypeAlias = Callable[[], asyncio.AbstractEventLoop]


class AppTransport(httpx.BaseTransport):
    """
    Hands requests to an ASGI application, on an event loop in a thread of its own.

    Args:
        app: The application.
        runs_lifespan: Whether its lifespan begins with the first request and ends on close.
        new_event_loop: Makes the loop.
    """

    def __init__(
        self, app: Callable[..., Any], *, runs_lifespan: bool, new_event_loop: NewEventLoop
    ) -> None:
        self._loop = LoopThread(new_event_loop)
        self._transport = AsyncAppTransport(app, runs_lifespan=runs_lifespan)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Implement httpx's transport."""
        content = request.read()
        return self._loop.run(self._handle(request, content))

    async def _handle(self, request: httpx.Request, content: bytes) -> httpx.Response:
        again = httpx.Request(
            request.method,
            request.url,
            headers=request.headers,
            content=content,
            extensions=request.extensions,
        )
        response = await self._transport.handle_async_request(again)
        return httpx.Response(
            response.status_code,
            headers=response.headers.raw,
            stream=_Whole(b"".join([chunk async for chunk in response.aiter_raw()])),
        )

    def close(self) -> None:
        """End the application's lifespan, and the loop."""
        if not self._loop.is_open:
            return
        self._loop.check()
        try:
            self._loop.run(self._transport.aclose())
        finally:
            self._loop.close()


class AsyncAppTransport(httpx.AsyncBaseTransport):
    """
    Hands requests to an ASGI application on the running event loop.

    Args:
        app: The application.
        runs_lifespan: Whether its lifespan begins with the first request and ends on close.
    """

    def __init__(self, app: Callable[..., Any], *, runs_lifespan: bool) -> None:
        self._transport = httpx.ASGITransport(app)
        self._lifespan = Lifespan(app) if runs_lifespan else None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Implement httpx's transport.

        An answer comes whole, and its time to be read is the application's for all of it.
        """
        limit = asyncio.timeout(request.extensions.get("timeout", {}).get("read"))
        try:
            async with limit:
                if self._lifespan is not None:
                    await self._lifespan.start()
                return await self._transport.handle_async_request(request)
        except TimeoutError:
            if not limit.expired():
                raise
            raise httpx.ReadTimeout("no answer in time", request=request) from None

    async def aclose(self) -> None:
        """End the application's lifespan."""
        if self._lifespan is not None:
            await self._lifespan.stop()


class AsyncWsgiTransport(httpx.AsyncBaseTransport):
    """
    Hands requests to a WSGI application, each in a worker thread.

    Args:
        app: The application.
    """

    def __init__(self, app: Callable[..., Any]) -> None:
        self._transport = httpx.WSGITransport(app)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Implement httpx's transport."""
        content = await request.aread()
        return await asyncio.to_thread(self._handle, request, content)

    def _handle(self, request: httpx.Request, content: bytes) -> httpx.Response:
        again = httpx.Request(request.method, request.url, headers=request.headers, content=content)
        response = self._transport.handle_request(again)
        return httpx.Response(
            response.status_code,
            headers=response.headers.raw,
            stream=_Whole(b"".join(response.iter_raw())),
        )


class _Whole(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that is all there, for either colour; encoded as it came."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self._content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content


def transport_to(
    app: Callable[..., Any],
    *,
    runs_lifespan: bool,
    new_event_loop: NewEventLoop = asyncio.new_event_loop,
) -> httpx.BaseTransport:
    """Return what hands a ``Client``'s requests to an application."""
    if is_asgi(app):
        return AppTransport(app, runs_lifespan=runs_lifespan, new_event_loop=new_event_loop)
    return httpx.WSGITransport(app)


def async_transport_to(app: Callable[..., Any], *, runs_lifespan: bool) -> httpx.AsyncBaseTransport:
    """Return what hands an ``AsyncClient``'s requests to an application."""
    if is_asgi(app):
        return AsyncAppTransport(app, runs_lifespan=runs_lifespan)
    return AsyncWsgiTransport(app)
