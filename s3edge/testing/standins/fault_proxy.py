"""
A TCP proxy that takes a dependency away and brings it back, for tests of running servers.

It listens on one port of this machine for as long as it runs, in a thread of its own::

    with FaultProxy("127.0.0.1", 54321) as proxy:
        settings = {"VASTAI_BACKEND_URL": proxy.url}
        ...
        proxy.mode = Mode.REFUSE

A mode is in force when its assignment returns: connections that would still behave as before are cut.
"""

import asyncio
import itertools
import socket
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from types import TracebackType
from typing import Any, Self


HOST = "127.0.0.1"

MAX_CONNECTIONS = 1000
"""More of them are cut."""

START_TIMEOUT_S = 10.0

FAREWELL_S = 2.0
"""How long a client may go on sending after its answer, before it is cut."""

_CHUNK_BYTES = 64 * 1024

_ERROR = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 16\r\nConnection: close\r\n\r\nfault on demand\n"
)
_PAGE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
    b"Content-Length: 44\r\nConnection: close\r\n\r\n<!doctype html><title>Please sign in</title>"
)
_NOISE = bytes(range(256)) * 4


class Mode(StrEnum):
    """What the proxy does."""

    PASS = "pass"  # noqa: S105 - a mode's name
    """Relays bytes both ways."""
    REFUSE = "refuse"
    """Refuses connections, as a machine does on which nothing listens; those there are, are cut."""
    HANG = "hang"
    """Accepts connections, reads, and never answers; those there are freeze."""
    ERROR = "error"
    """Answers the head of every request with HTTP status 500 and a short text."""
    GARBAGE = "garbage"
    """Answers with status 200 and an HTML page, and every second time with bytes that are not HTTP."""


class FaultProxy:
    """
    The proxy; a context manager.

    Args:
        upstream_host: Where the dependency is.
        upstream_port: The same.
    """

    def __init__(self, upstream_host: str, upstream_port: int) -> None:
        self._upstream = (upstream_host, upstream_port)
        self._mode = Mode.PASS
        self._place: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stopped: asyncio.Event
        self._listener: socket.socket | None = None
        self._clients: dict[asyncio.Task[None], socket.socket] = {}
        self._answers = itertools.cycle((_PAGE, _NOISE))

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it."""
        self.stop()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._reserved().getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """The same, as an HTTP address."""
        return f"http://{HOST}:{self.port}"

    @property
    def mode(self) -> Mode:
        """What it does; to be assigned from any thread but its own."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode | str) -> None:
        self._do(self._switch(Mode(mode)))

    def start(self) -> None:
        """Begin to listen, on a free port, in the mode ``pass``."""
        if self._thread is not None:
            raise RuntimeError("the proxy runs already")
        # Bound and not listening: it holds the port, and alone it refuses connections.
        self._place = _bound(0)
        self._mode = Mode.PASS
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="fault-proxy")
        self._thread.start()
        try:
            self._do(self._listen())
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it: no thread, no socket and no connection is left."""
        if self._thread is None:
            return
        try:
            self._do(self._end())
        finally:
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join()
            self._thread = None
            self._reserved().close()
            self._place = None

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._stopped.wait())

    def _do(self, step: Coroutine[Any, Any, None]) -> None:
        """Have a step done in the proxy's own thread, and wait for it."""
        if self._thread is None:
            step.close()
            raise RuntimeError("the proxy does not run")
        asyncio.run_coroutine_threadsafe(step, self._loop).result(START_TIMEOUT_S)

    async def _switch(self, mode: Mode) -> None:
        before, self._mode = self._mode, mode
        if mode is before:
            return
        if mode is Mode.REFUSE:
            await self._end()
        elif before is not Mode.PASS or mode is not Mode.HANG:
            await self._cut()
        if mode is not Mode.REFUSE and self._listener is None:
            await self._listen()

    async def _listen(self) -> None:
        listener = _bound(self.port)
        listener.settimeout(0)
        listener.listen()
        self._listener = listener
        self._loop.add_reader(listener, self._accept, listener)

    async def _end(self) -> None:
        """Stop listening and cut every connection."""
        listener, self._listener = self._listener, None
        if listener is not None:
            self._loop.remove_reader(listener)
            listener.close()
        await self._cut()

    async def _cut(self) -> None:
        """Cut every connection, and wait until it is."""
        tasks = list(self._clients)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _accept(self, listener: socket.socket) -> None:
        """
        Take the next client.

        Not ``asyncio.start_server`` or ``sock_accept``: ended between a connection and its first turn,
        they lose it without closing it.
        """
        with suppress(BlockingIOError, ConnectionError):
            client, _ = listener.accept()
            client.settimeout(0)
            task = self._loop.create_task(self._serve(client))
            self._clients[task] = client
            task.add_done_callback(lambda task: self._clients.pop(task).close())

    async def _serve(self, client: socket.socket) -> None:
        """Do with one client what the mode says."""
        # One end goes away, or says too much: the connection ends, and that is all there is to it.
        with suppress(OSError, EOFError, asyncio.LimitOverrunError):
            async with _streams(asyncio.open_connection(sock=client)) as (reader, writer):
                if len(self._clients) > MAX_CONNECTIONS:
                    return
                if self._mode is Mode.PASS:
                    await self._relay(reader, writer)
                elif self._mode is Mode.HANG:
                    await _swallow(reader)
                elif self._mode is Mode.ERROR:
                    await _answer(reader, writer, _ERROR)
                elif self._mode is Mode.GARBAGE:
                    await _answer(reader, writer, next(self._answers))

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opening = asyncio.open_connection(*self._upstream)
        async with _streams(opening) as (upstream_reader, upstream_writer):
            upward = asyncio.create_task(self._pump(reader, upstream_writer))
            downward = asyncio.create_task(self._pump(upstream_reader, writer))
            try:
                await asyncio.wait({upward, downward}, return_when=asyncio.FIRST_COMPLETED)
                # A client that leaves a frozen connection has given up.
                if not (upward.done() and self._mode is Mode.HANG):
                    await asyncio.gather(upward, downward)
            finally:
                for pump in (upward, downward):
                    pump.cancel()
                await asyncio.wait({upward, downward})

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass bytes on, and their end; a frozen connection is read, and nothing comes of it."""
        while chunk := await reader.read(_CHUNK_BYTES):
            if self._mode is Mode.PASS:
                writer.write(chunk)
                await writer.drain()
        if self._mode is Mode.PASS and writer.can_write_eof():
            writer.write_eof()

    def _reserved(self) -> socket.socket:
        if self._place is None:
            raise RuntimeError("the proxy does not run")
        return self._place


@asynccontextmanager
async def _streams(
    reader_and_writer: Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]],
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection, and cut it in the end, whatever is still to be sent."""
    reader, writer = await reader_and_writer
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _swallow(reader: asyncio.StreamReader) -> None:
    while await reader.read(_CHUNK_BYTES):
        pass


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes
) -> None:
    """Answer the head of a request; what follows it is read, or the client would not see the answer."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(answer)
    await writer.drain()
    writer.write_eof()
    try:
        async with asyncio.timeout(FAREWELL_S):
            await _swallow(reader)
    except TimeoutError:
        return


def _bound(port: int) -> socket.socket:
    """Return a socket that has a port, which others of ours may have too."""
    bound = socket.socket()
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((HOST, port))
    except OSError:
        bound.close()
        raise
    return bound
