"""An application in this process: which kind it is, its lifespan, and a loop for those who have none."""

import asyncio
import inspect
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from concurrent.futures import CancelledError, Future
from typing import Any, TypeAlias, TypeVar

from s3edge.client.errors import ConfigurationError


T = TypeVar("T")

Message: TypeAlias = MutableMapping[str, Any]
AsgiApp: TypeAlias = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]

FORKED = (
    "The application was started in the process that this one was forked from; make a client in each"
    " process."
)

SHUT_DOWN = "The application was shut down with its client; make a new client."

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
        self._process = os.getpid()
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
            self._process = os.getpid()
            self._task = asyncio.create_task(self._run(), name="s3edge-client-lifespan")
        if os.getpid() != self._process:
            raise ConfigurationError(FORKED)
        await self._started.wait()
        if self._failure is not None:
            raise ConfigurationError(f"The application could not start: {self._failure}")

    async def stop(self) -> None:
        """Return when the application has shut down."""
        self._stopping.set()
        if self._task is not None and os.getpid() == self._process:
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
        self._process = os.getpid()
        self._is_closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """
        Return what a coroutine returns, run on the loop.

        Raises:
            ConfigurationError: It would never end: the loop is closed, also meanwhile, waits for this
                very call, or is another process's.
        """
        try:
            self.check()
            future = self._begun(work)
        except ConfigurationError:
            work.close()
            raise
        try:
            return future.result()
        except CancelledError:
            if not self._is_closed:
                raise
            raise ConfigurationError(SHUT_DOWN) from None

    def _begun(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        # Whoever closes has the lock too: it ends what began before, and nothing begins after.
        with self._lock:
            if self._is_closed:
                raise ConfigurationError(SHUT_DOWN)
            if self._loop is None:
                self._process = os.getpid()
                self._loop = self._new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="s3edge-client-loop", daemon=True
                )
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        """End what runs on the loop, and the loop, for good."""
        if self._is_foreign():
            return
        with self._lock:
            self._is_closed = True
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(_end_all(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    @property
    def is_open(self) -> bool:
        """Whether there is something that this process may end."""
        return not self._is_closed and not self._is_foreign()

    def check(self) -> None:
        """
        Return if something can be run from here.

        Raises:
            ConfigurationError: It would never end.
        """
        if self._is_foreign():
            raise ConfigurationError(FORKED)
        if self._is_closed:
            raise ConfigurationError(SHUT_DOWN)
        if threading.current_thread() is self._thread:
            raise ConfigurationError(
                "The application would wait for itself: a Client was called on its own event loop;"
                " await an AsyncClient there, or call in a worker thread."
            )

    def _is_foreign(self) -> bool:
        """Return whether the loop is of the process that this one was forked from."""
        return self._loop is not None and os.getpid() != self._process


async def _end_all() -> None:
    """Cancel all other tasks of this loop, and return when they have ended."""
    while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
