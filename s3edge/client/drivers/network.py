"""Run flows: two drivers, one a colour."""

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx

from s3edge.client.drivers.bounds import Received, Redirects, check_deadline, timeout_of
from s3edge.client.drivers.connections import AsyncTransport, Connections, Transport
from s3edge.client.drivers.loggers import ours
from s3edge.client.drivers.reasons import reason_of
from s3edge.client.effects import Ask, Body, Effect, Flow, Gather, HttpCall, HttpReply, Sleep, Work
from s3edge.client.errors import ConfigurationError, ConnectionFailed, TimedOut
from s3edge.client.session import origin_of
from s3edge.client.surroundings import Surroundings


T = TypeVar("T")

CLOSED = "This client is closed; make a new one, or make its calls before it is closed."

ANOTHER_LOOP = (
    "This AsyncClient was used on another event loop, which its connections belong to; make one"
    " on each loop, within the coroutine that asyncio.run() is given."
)


class Driver:
    """
    Runs flows in the thread that calls.

    Args:
        surroundings: Time and pauses.
        transport: Sends the requests; by default over the network.
    """

    def __init__(self, surroundings: Surroundings, transport: Transport | None = None) -> None:
        self._around = surroundings
        self._connections = Connections(httpx.Client, transport)
        self._is_closed = False

    def check(self) -> None:
        """
        Return if calls can be made.

        Raises:
            ConfigurationError: It was closed.
        """
        if self._is_closed:
            raise ConfigurationError(CLOSED)

    def run(self, flow: Flow[T]) -> T:
        """Return what a flow returns, its effects performed."""
        self.check()
        try:
            effect = next(flow)
            while True:
                try:
                    outcome = self._perform(effect)
                except Exception as error:  # noqa: BLE001 - the flow decides
                    effect = flow.throw(error)
                else:
                    effect = flow.send(outcome)
                    # It may be a token, and this frame is in the traceback of what fails later.
                    del outcome
        except StopIteration as stop:
            value: T = stop.value
            return value
        finally:
            flow.close()

    def close(self) -> None:
        """Close the connections."""
        self._is_closed = True
        for http in self._connections.opened():
            http.close()

    def _perform(self, effect: Effect) -> Any:
        match effect:
            case HttpCall():
                self.check()
                try:
                    with _network_errors(effect):
                        return self._send(effect)
                except RuntimeError:
                    if not self._is_closed:
                        raise
                # Closed meanwhile, by another thread; the HTTP library has no error of its own for it.
                raise ConfigurationError(CLOSED)
            case Sleep(seconds):
                return self._around.sleep(seconds)
            case Ask(function):
                asked = function()
                return asyncio.run(_awaited(asked)) if inspect.isawaitable(asked) else asked
            case Work(function):
                return function()
            case Gather():
                raise ConfigurationError("An asynchronous iterator needs AsyncClient.")

    def _send(self, call: HttpCall) -> HttpReply:
        body = call.body
        content = body if body is None or isinstance(body, bytes) else self._stream(call, body)
        request = _request(self._connections.to(call.url), call, content, self._around)
        redirects = Redirects(call, self._around)
        while True:
            response = self._connections.to(request.url).send(request, stream=True)
            try:
                following = redirects.after(response)
                if following is None:
                    received = Received(call, self._around)
                    if received.is_plain(response):
                        for chunk in response.iter_bytes():
                            received.add(chunk)
                    return received.reply(response)
            finally:
                response.close()
            request = following

    def _stream(self, call: HttpCall, body: Body) -> Iterator[bytes]:
        sent = 0
        for chunk in body.chunks():
            check_deadline(call, self._around)
            yield chunk
            sent += len(chunk)
            body.sent(sent)


class AsyncDriver:
    """
    Runs flows on asyncio's event loop.

    Args:
        surroundings: Time and pauses.
        transport: Sends the requests; by default over the network.
    """

    def __init__(self, surroundings: Surroundings, transport: AsyncTransport | None = None) -> None:
        self._around = surroundings
        self._connections = Connections(httpx.AsyncClient, transport)
        self._loops: dict[int, asyncio.AbstractEventLoop] = {}
        self._is_closed = False

    def check(self) -> None:
        """
        Return if calls can be made.

        Raises:
            ConfigurationError: It was closed, or its connections belong to another event loop.
        """
        if self._is_closed:
            raise ConfigurationError(CLOSED)
        self._check_loop()

    async def run(self, flow: Flow[T]) -> T:
        """Return what a flow returns, its effects performed."""
        self.check()
        self._loops[os.getpid()] = asyncio.get_running_loop()
        try:
            effect = next(flow)
            while True:
                try:
                    outcome = await self._perform(effect)
                except Exception as error:  # noqa: BLE001 - the flow decides
                    effect = flow.throw(error)
                else:
                    effect = flow.send(outcome)
                    # It may be a token, and this frame is in the traceback of what fails later.
                    del outcome
        except StopIteration as stop:
            value: T = stop.value
            return value
        finally:
            flow.close()

    async def close(self) -> None:
        """
        Close the connections.

        Raises:
            ConfigurationError: They belong to another event loop.
        """
        if not self._is_closed:
            self._check_loop()
            self._is_closed = True
            for http in self._connections.opened():
                await http.aclose()

    def _check_loop(self) -> None:
        if self._loops.get(os.getpid()) not in {None, asyncio.get_running_loop()}:
            raise ConfigurationError(ANOTHER_LOOP)

    async def _perform(self, effect: Effect) -> Any:
        match effect:
            case HttpCall():
                self.check()
                left_s = effect.deadline - self._around.monotonic()
                try:
                    with _network_errors(effect):
                        async with asyncio.timeout(left_s):
                            return await self._send(effect)
                except RuntimeError:
                    if not self._is_closed:
                        raise
                # As in ``Driver``, but by another task.
                raise ConfigurationError(CLOSED)
            case Sleep(seconds):
                return await self._around.async_sleep(seconds)
            case Ask(function):
                asked = function()
                return await asked if inspect.isawaitable(asked) else asked
            case Work(function):
                return await asyncio.to_thread(function)
            case Gather(chunks, write):
                async for chunk in chunks:
                    write(chunk)
                return None

    async def _send(self, call: HttpCall) -> HttpReply:
        body = call.body
        content = body if body is None or isinstance(body, bytes) else self._stream(call, body)
        request = _request(self._connections.to(call.url), call, content, self._around)
        redirects = Redirects(call, self._around)
        while True:
            response = await self._connections.to(request.url).send(request, stream=True)
            try:
                following = redirects.after(response)
                if following is None:
                    received = Received(call, self._around)
                    if received.is_plain(response):
                        async for chunk in response.aiter_bytes():
                            received.add(chunk)
                    return received.reply(response)
            finally:
                await response.aclose()
            request = following

    async def _stream(self, call: HttpCall, body: Body) -> AsyncIterator[bytes]:
        sent = 0
        chunks = body.chunks()
        # Reading a file may block, and the event loop must not.
        while chunk := await asyncio.to_thread(next, chunks, b""):
            check_deadline(call, self._around)
            yield chunk
            sent += len(chunk)
            body.sent(sent)


async def _awaited(value: Any) -> Any:
    return await value


def _request(
    http: httpx.Client | httpx.AsyncClient,
    call: HttpCall,
    content: Any,
    surroundings: Surroundings,
) -> httpx.Request:
    headers = {**call.headers, "accept-encoding": "identity"}
    if call.body is not None and not isinstance(call.body, bytes):
        # Else httpx would send it in chunks of unknown number.
        headers["content-length"] = str(call.body.size_bytes)
    timeout = timeout_of(call, surroundings)
    return http.build_request(
        call.method, call.url, headers=headers, content=content, timeout=timeout
    )


@contextmanager
def _network_errors(call: HttpCall) -> Generator[None, None, None]:
    """Turn httpx's errors into the client's own, which name no more of a URL than its origin."""
    scheme, host, port = origin_of(call.url)
    place = f"{scheme}://{host}:{port}"
    token = ours.set(True)
    try:
        yield
    except (httpx.TimeoutException, TimeoutError) as error:
        raise TimedOut(
            f"{place} did not answer in time ({type(error).__name__}).", retryable=True
        ) from None
    except httpx.RequestError as error:
        # Only the machine's own words are told on: httpx's may quote a header or a signed URL.
        reason = reason_of(error)
        said = type(error).__name__ if reason is None else reason.strerror
        raise ConnectionFailed(
            f"{place} cannot be reached, or broke off ({said}).",
            retryable=True,
            # Without its frames: in the HTTP library's the headers are variables, the token among them.
        ) from (None if reason is None else reason.with_traceback(None))
    except (httpx.InvalidURL, UnicodeError):  # the latter of a host's name that no resolver takes
        raise ConfigurationError("The URL cannot be used.") from None
    finally:
        ours.reset(token)
