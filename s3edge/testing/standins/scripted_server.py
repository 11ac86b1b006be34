"""
A server that answers each path as a test says, in HTTP or not.

It runs on the test's own event loop::

    server = ScriptedServer({"/health": reply({"status": "ok"})})
    async with server.serving():
        ...
        server.replies["/health"] = raw(b"")
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
from attrs import define, field, frozen


@frozen
class Received:
    """
    A request as it came.

    Attributes:
        method: Of HTTP.
        path: With the query.
        headers: Names in lower case.
        body: All of it.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


Reply = Callable[[Received], Awaitable[bytes]]
"""Returns the bytes that answer a request; what does not begin as HTTP is also the connection's end."""


def reply(body: Any, status: int = 200, **headers: str) -> Reply:
    """
    Answer a status and a body: bytes as they are, anything else as JSON.

    Args:
        body: What to send.
        status: Of HTTP.
        headers: With underscores for dashes.
    """
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return raw("\r\n".join([*lines, "", ""]).encode() + content)


def raw(content: bytes) -> Reply:
    """Answer these bytes; if there are none, only hang up."""

    async def answer(received: Received) -> bytes:  # noqa: ARG001 - a reply's signature
        return content

    return answer


async def silence(received: Received) -> bytes:  # noqa: ARG001 - a reply's signature
    """Never answer."""
    await asyncio.Event().wait()
    return b""


@define
class ScriptedServer:
    """
    The server.

    Attributes:
        replies: By path; a request for another ends its connection.
        received: Every request, in order.
        url: Where it is, once it serves.
    """

    replies: dict[str, Reply]
    received: list[Received] = field(factory=list)
    url: str = ""

    def count(self, path: str) -> int:
        """Return how many requests came for a path."""
        return sum(received.path == path for received in self.received)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serve, and give the address."""
        tasks: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.ensure_future(self._serve(reader, writer)))

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self.url
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    received = await _request(reader)
                    self.received.append(received)
                    answer = await self.replies.get(received.path, raw(b""))(received)
                    writer.write(answer)
                    await writer.drain()
                    if not answer.startswith(b"HTTP"):
                        return
        finally:
            writer.close()


async def _request(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {
        name.lower(): value
        for name, _, value in (line.partition(": ") for line in head[1:] if line)
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, path, headers, body)
