"""The requests that are served on a loop."""

import asyncio

import anyio

from s3edge.web.app import PathRoutes, WebApp
from s3edge.web.http import Request
from s3edge_wsgi.environ import RouteTable
from s3edge_wsgi.exchange import Exchange, Stopped


OPEN_REQUESTS_S = 10.0
"""How long requests that are being served may take to end on a stop."""


class Serving:
    """
    Starts the task of each request, and ends them all in the end. Made on the loop.

    Attributes:
        loop: Where requests are served.
        routes: What is served where.
    """

    def __init__(self, web: WebApp) -> None:
        self.loop = asyncio.get_running_loop()
        self.routes = RouteTable(web.paths)
        self._web = web
        # No task group: to start a task in one takes nine times as long.
        self._open: dict[asyncio.Task[None], Exchange] = {}
        self._handed_over: set[Exchange] = set()
        self._is_open = True
        self._stop = anyio.Event()
        self._idle = anyio.Event()

    # In the server's threads.

    def start(self, exchange: Exchange, request: Request, path: PathRoutes | None) -> None:
        """
        Serve a request; its task has a copy of the thread's context.

        Raises:
            Stopped: The loop has ended.
        """
        self._handed_over.add(exchange)
        try:
            self.loop.call_soon_threadsafe(self._start, exchange, request, path)
        except RuntimeError:
            raise Stopped from None

    def refuse_rest(self) -> None:
        """Refuse what a loop that has ended took, and did not come to."""
        for exchange in tuple(self._handed_over):
            exchange.refuse()

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
            await self._until_idle()

    async def end(self) -> None:
        """Start no more tasks, and end those that there are."""
        self._is_open = False
        for exchange in self._open.values():
            exchange.cancel()
        with anyio.CancelScope(shield=True):
            await self._until_idle()

    def _start(self, exchange: Exchange, request: Request, path: PathRoutes | None) -> None:
        self._handed_over.discard(exchange)
        if not self._is_open:
            exchange.refuse()
            return
        task = self.loop.create_task(exchange.serve(self._web, request, path))
        self._open[task] = exchange
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        exchange = self._open.pop(task)
        if task.cancelled():
            # Perhaps before it began, and so without a word.
            exchange.refuse()
        if not self._open:
            self._idle.set()

    async def _until_idle(self) -> None:
        while self._open:
            self._idle = anyio.Event()
            await self._idle.wait()
