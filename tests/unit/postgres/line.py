"""A way to a server that can fall silent."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
from anyio.abc import SocketStream


class Line:
    """A way to the database, all of whose present connections can fall silent without being closed."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self._upstream = port
        self._silence = anyio.Event()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["Line"]:
        """Pass on what comes, on a port of its own."""
        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
            anyio.create_task_group() as group,
        ):
            self.port = listener.extra(anyio.abc.SocketAttribute.local_port)
            group.start_soon(listener.serve, self._connected)
            yield self
            group.cancel_scope.cancel()

    def fall_silent(self) -> None:
        """Take what comes over present connections, and pass nothing on any more; new ones work."""
        self._silence.set()
        self._silence = anyio.Event()

    async def _connected(self, client: SocketStream) -> None:
        silence = self._silence
        server = await anyio.connect_tcp("127.0.0.1", self._upstream)
        async with client, server, anyio.create_task_group() as group:
            relay = partial(self._relay, silence=silence, both=group.cancel_scope)
            group.start_soon(relay, client, server)
            group.start_soon(relay, server, client)

    async def _relay(
        self,
        source: SocketStream,
        sink: SocketStream,
        *,
        silence: anyio.Event,
        both: anyio.CancelScope,
    ) -> None:
        try:
            async for piece in source:
                if not silence.is_set():
                    await sink.send(piece)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # the other end is gone, and so is this one
        finally:
            if not silence.is_set():
                both.cancel()
