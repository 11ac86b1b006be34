"""The requests that are served on a loop."""

import asyncio

import anyio
from anyio.abc import TaskGroup

from s3edge.web.app import PathRoutes, WebApp
from s3edge.web.http import Request
from s3edge_wsgi.environ import RouteTable
from s3edge_wsgi.exchange import Exchange


OPEN_REQUESTS_S = 10.0
"""How long requests that are being served may take to end on a stop."""


class Serving:
    """
    Starts the task of each request, and ends them all in the end. Made on the loop.

    Attributes:
        loop: Where requests are served.
        routes: What is served where.
    """

    def __init__(self, web: WebApp, requests: TaskGroup) -> None:
        self.loop = asyncio.get_running_loop()
        self.routes = RouteTable(web.paths)
        self._web = web
        self._requests = requests
        self._is_open = True
        self._count = 0
        self._stop = anyio.Event()
        self._idle = anyio.Event()

    # In the server's threads.

    def start(self, exchange: Exchange, request: Request, path: PathRoutes | None) -> None:
        """
        Serve a request; its task has a copy of the thread's context.

        Raises:
            RuntimeError: The loop has ended.
        """
        self.loop.call_soon_threadsafe(self._start, exchange, request, path)

    def stop_waiting(self) -> None:
        """Answer all long polls now."""
        self.loop.call_soon_threadsafe(self._web.gateway.stop_waiting)

    # On the event loop.

    def stop(self) -> None:
        """Let ``until_stopped`` return."""
        self._stop.set()

    async def until_stopped(self) -> None:
        """Wait for ``stop``; then answer all long polls, and give requests their time to end."""
        await self._stop.wait()
        self._web.gateway.stop_waiting()
        with anyio.move_on_after(OPEN_REQUESTS_S):
            while self._count:
                self._idle = anyio.Event()
                await self._idle.wait()

    def refuse(self) -> None:
        """Start no more tasks."""
        self._is_open = False

    def _start(self, exchange: Exchange, request: Request, path: PathRoutes | None) -> None:
        if self._is_open:
            self._requests.start_soon(self._serve, exchange, request, path)
        else:
            exchange.refuse()

    async def _serve(self, exchange: Exchange, request: Request, path: PathRoutes | None) -> None:
        self._count += 1
        try:
            await exchange.serve(self._web, request, path)
        finally:
            self._count -= 1
            if not self._count:
                self._idle.set()
