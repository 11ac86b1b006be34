"""
Carries one request from the thread that the server gave it to the event loop, and its response back.

On the loop, one task does all work for a request, so that whatever it holds is entered and left in the
same place. It and the thread take turns: the task says something, and goes on when the thread has
replied. So no more than a chunk is on its way, in either direction, and the thread reads from the client
only what somebody is waiting for.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import suppress
from queue import SimpleQueue
from typing import Protocol

import anyio
from attrs import frozen

from s3edge.errors import invalid
from s3edge.web.app import PathRoutes, WebApp
from s3edge.web.http import ClientDisconnected, Request, Response


CHUNK_BYTES = 256 * 1024
"""What is read of a body at once."""

DISCARDED_BYTES = 32 * 1024 * 1024
"""
What is read, behind the answer, of a body that was refused.

Many clients look for an answer only when they have sent all; hung up on, they would never see why. A
photograph that is too large is hardly larger than this.
"""


class Readable(Protocol):
    """What ``wsgi.input`` is used for."""

    def read(self, size: int, /) -> bytes:
        """Return so many bytes, or fewer at the end."""


class _Read:
    """The task asks for the next bytes of the body."""


_READ = _Read()


@frozen
class _Ended:
    """The task has ended, and says nothing more; what was sent is whole, or it was stopped before."""

    is_whole: bool


_Word = _Read | Response | bytes | Exception | _Ended


class Stopped(Exception):  # noqa: N818 - an event, not a fault
    """The event loop was stopped before the answer was whole."""


class Exchange:
    """
    One request and its response.

    Args:
        loop: Where the task runs.
        source: The request's body; touched by the thread alone.
        length: How many bytes the client promised; ``None`` when it did not.
        is_terminated: Whether ``source`` ends where the body does (``wsgi.input_terminated``).
        is_held_back: Whether the client may send the body only when it is asked to (``Expect``).
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        source: Readable,
        *,
        length: int | None,
        is_terminated: bool,
        is_held_back: bool = False,
    ) -> None:
        self._loop = loop
        self._source = source
        self._left = length
        self._is_endless = length is None and not is_terminated
        self._is_held_back = is_held_back
        self._words: SimpleQueue[_Word] = SimpleQueue()
        self._replied: anyio.Event | None = None
        self._reply: bytes | Exception = b""
        self._scope: anyio.CancelScope | None = None
        self._is_cancelled = False
        self._is_over = False
        self._has_more = length != 0 and not self._is_endless

    # On the event loop.

    async def serve(self, web: WebApp, request: Request, path: PathRoutes | None) -> None:
        """Answer the request; whatever happens, the thread hears of it."""
        last_word: _Word = _Ended(is_whole=False)
        try:
            with anyio.CancelScope() as self._scope:
                if self._is_cancelled:
                    self._scope.cancel()
                async with web.response_to(request, path) as response:
                    if isinstance(response.body, bytes):
                        # Nothing is left to do here: the loop is not woken again when it is sent.
                        last_word = response
                    else:
                        await self._ask(response)
                        await self._send(response.body)
                        last_word = _Ended(is_whole=True)
        except (asyncio.CancelledError, SystemExit, KeyboardInterrupt):
            raise
        except Exception as error:  # noqa: BLE001 - raised again in the thread
            last_word = error
        except BaseException as error:  # noqa: BLE001 - some extension modules have their own
            last_word = RuntimeError("the request ended in no ordinary error")
            last_word.__cause__ = error
        finally:
            self._words.put(last_word)

    def refuse(self) -> None:
        """Tell the thread that the request is not served any more."""
        self._words.put(_Ended(is_whole=False))

    def cancel(self) -> None:
        """End the task, also when it has not begun."""
        self._is_cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    async def body(self) -> AsyncIterator[bytes]:
        """
        Yield the request's body.

        Raises:
            EdgeError: ``INVALID_REQUEST``; where the body ends cannot be known.
            ClientDisconnected: It ended before it was whole.
        """
        if self._is_endless:
            raise invalid("Content-Length", "Say how long the body is; here it cannot be chunked.")
        while self._has_more:
            chunk = await self._ask(_READ)
            if chunk:
                yield chunk

    async def _send(self, body: AsyncIterator[bytes]) -> None:
        try:
            async for chunk in body:
                await self._ask(chunk)
        finally:
            # Here, and not when it is collected: what it holds was opened by this task.
            if isinstance(body, AsyncGenerator):
                await body.aclose()

    async def _ask(self, word: _Read | Response | bytes) -> bytes:
        """Say something to the thread, and return what it replies."""
        self._replied = anyio.Event()
        self._words.put(word)
        await self._replied.wait()
        if isinstance(self._reply, Exception):
            raise self._reply
        return self._reply

    def _take_reply(self, reply: bytes | Exception) -> None:
        self._reply = reply
        if self._replied is not None:
            self._replied.set()

    # In the thread.

    def response(self) -> Response:
        """
        Return the response, once there is one; feed the body to the loop meanwhile.

        Raises:
            ClientDisconnected: The body ended before it was whole.
            Stopped: The event loop was stopped.
        """
        try:
            while isinstance(word := self._next_word(), _Read):
                self._tell(self._take_reply, self._read())
        except BaseException:
            # Some servers interrupt a thread that takes too long.
            self._end()
            raise
        if not isinstance(word, Response):
            raise Stopped
        self._is_over = isinstance(word.body, bytes)
        return word

    def chunks(self) -> Iterator[bytes]:
        """
        Yield the body of a response that is streamed.

        Raises:
            Stopped: The event loop was stopped. That, or any other error, must not look like an end.
        """
        while True:
            # The first is made while the head is sent, and each other one while that before it is.
            self._tell(self._take_reply, b"")
            word = self._next_word()
            if isinstance(word, bytes):
                yield word
            elif isinstance(word, _Ended) and word.is_whole:
                return
            else:
                raise Stopped

    def close(self) -> None:
        """End the task: all is sent, or nobody takes any more of it. Let the client send its body."""
        self._end()
        if self._is_held_back:
            # Who has the answer does not send the body any more.
            return
        discarded = 0
        while self._has_more and discarded < DISCARDED_BYTES:
            chunk = self._read()
            discarded += 0 if isinstance(chunk, Exception) else len(chunk)

    def _end(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._tell(self.cancel)

    def _next_word(self) -> _Word:
        word = self._words.get()
        if isinstance(word, _Ended):
            self._is_over = True
        if isinstance(word, Exception):
            self._is_over = True
            raise word
        return word

    def _read(self) -> bytes | Exception:
        """Return the next bytes of the body, or why there are none although they were promised."""
        self._is_held_back = False
        size = CHUNK_BYTES if self._left is None else min(self._left, CHUNK_BYTES)
        try:
            chunk = self._source.read(size)
        except Exception:  # noqa: BLE001 - each server has errors of its own for a body that breaks off
            self._has_more = False
            return ClientDisconnected()
        if self._left is not None:
            self._left -= len(chunk)
        self._has_more = bool(chunk) and self._left != 0
        return ClientDisconnected() if self._left and not chunk else chunk

    def _tell(self, call: Callable[..., None], *arguments: bytes | Exception) -> None:
        # anyio's calls from threads wait for their result, which nobody needs here.
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call, *arguments)
