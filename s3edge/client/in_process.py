"""An application in this process: which kind it is, its lifespan, and a loop for those who have none."""

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeAlias, TypeVar

from s3edge.client.errors import ConfigurationError


T = TypeVar("T")

Message: TypeAlias = MutableMapping[str, Any]
AsgiApp: TypeAlias = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]

ASGI_PARAMETERS = 3
"""scope, receive, send; a WSGI application takes environ and start_response."""


def is_asgi(app: Callable[..., Any]) -> bool:
    """Return whether an application is ASGI 3 and not WSGI, by how it is called."""
    parameters = inspect.signature(app).parameters.values()
    required = [each for each in parameters if each.default is each.empty]
    return len(required) == ASGI_PARAMETERS


class Lifespan:
    """
    The lifespan of an ASGI application, held open in a task of its own.

    Args:
        app: The application.
    """

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._task: asyncio.Task[None] | None = None
        self._started = asyncio.Event()
        self._stopping = asyncio.Event()
        self._failure: str | None = None

    async def start(self) -> None:
        """
        Return when the application is up. An application without a lifespan is up at once.

        Raises:
            ConfigurationError: It says that it cannot start.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="s3edge-client-lifespan")
        await self._started.wait()
        if self._failure is not None:
            raise ConfigurationError(f"The application could not start: {self._failure}")

    async def stop(self) -> None:
        """Return when the application has shut down."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        begun = False

        async def receive() -> Message:
            nonlocal begun
            if not begun:
                begun = True
                return {"type": "lifespan.startup"}
            await self._stopping.wait()
            return {"type": "lifespan.shutdown"}

        async def send(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                self._failure = str(message.get("message", ""))
            self._started.set()

        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            # The ASGI specification: an application that raises before it started has no lifespan.
            if self._started.is_set() and self._failure is None:
                raise
            if self._failure is None and not isinstance(
                error, AssertionError | NotImplementedError
            ):
                self._failure = f"{type(error).__name__}: {error}"
        finally:
            self._started.set()


class LoopThread:
    """
    An event loop in a thread of its own, for a caller who has none. It starts with its first work.

    Args:
        new_event_loop: Makes it.
    """

    def __init__(
        self, new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    ) -> None:
        self._new_event_loop = new_event_loop
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what a coroutine returns, run on the loop."""
        with self._lock:
            if self._loop is None:
                self._loop = self._new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="s3edge-client-loop", daemon=True
                )
                self._thread.start()
            loop = self._loop
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    def close(self) -> None:
        """End the loop."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
