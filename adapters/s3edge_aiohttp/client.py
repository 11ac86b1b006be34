"""One pool of connections to one dependency."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, Self

import aiohttp
import anyio
from attrs import field, frozen
from yarl import URL

from s3edge.errors import unavailable
from s3edge_aiohttp.destinations import PrivateAddressError, public_socket


CONNECT_TIMEOUT_S = 2.0

MAX_CONNECTIONS = 100

IDLE_S = 15.0
"""Idle connections are closed before the usual servers and load balancers close them."""

MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""No answer that is read whole is longer; a garbled dependency must not fill the memory."""

_SLICE_BYTES = 64 * 1024

_USER_AGENT = "s3edge"
"""Plain: Supabase refuses secret keys to whatever looks like a browser."""


class NoAnswerError(Exception):
    """
    A request got no answer that could be used.

    Attributes:
        reason: In a few words, without any URL: it may hold a signature.
        may_have_acted: Whether the request may have reached the server and done its work.
    """

    def __init__(self, reason: str, *, may_have_acted: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.may_have_acted = may_have_acted


class LateAnswerError(NoAnswerError):
    """What was waited for did not come in time."""


class ForbiddenAddressError(NoAnswerError):
    """The name leads to an address that is not public, and the client goes to public ones only."""


@frozen
class Answer:
    """
    A whole answer.

    Attributes:
        status: Of HTTP.
        headers: Names in lower case.
        body: All of it.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@frozen
class AnswerStream:
    """
    An answer whose body has not been read.

    Attributes:
        status: Of HTTP.
        headers: Names in lower case.
        chunks: The body; raises ``NoAnswerError`` when it breaks off or pauses too long.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    chunks: AsyncIterator[bytes] = field(repr=False)


class HttpClient:
    """
    Keeps connections open between requests; an asynchronous context manager.

    It follows no redirect, keeps no cookie, repeats nothing by itself, asks for answers that are not
    compressed, and names itself plainly in ``User-Agent``.

    Args:
        dependency: What is at the other end, for messages: ``the database``.
        connections: How many at once, at the most; further requests wait, within their timeout.
        public_only: Whether it connects to addresses of the public Internet only; for URLs that
            somebody else wrote.
    """

    def __init__(
        self, dependency: str, *, connections: int = MAX_CONNECTIONS, public_only: bool = False
    ) -> None:
        self._dependency = dependency
        self._connections = connections
        self._public_only = public_only
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the pool; no connection is made yet."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._connections,
                keepalive_timeout=IDLE_S,
                # An answer that is cut short may leave its connection half closed.
                enable_cleanup_closed=False,
                socket_factory=public_socket if self._public_only else None,
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            # aiohttp would invite compressed answers by itself, and nothing here unpacks them.
            headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"},
            skip_auto_headers=("Content-Type",),
            # Bodies are passed on as they are: hashes and lengths are checked against them.
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """
        Make one request and return its answer, whatever the status.

        Args:
            method: Of HTTP.
            url: Already encoded; sent as it is.
            timeout_s: How long the whole may take; for a long body, how long nothing may move.
            headers: To send.
            body: To send.

        Raises:
            NoAnswerError: Nothing was answered in time (``LateAnswerError``), or not in HTTP, or too
                much; or there was nobody to ask (``ForbiddenAddressError``: nobody who may be asked).
            EdgeError: ``SERVICE_UNAVAILABLE`` when the pool is not open.
        """
        with self._deadline(timeout_s) as scope:
            async with self._request(method, url, headers, body, scope, timeout_s) as response:
                content = await self._whole(response)
                return Answer(response.status, _lower(response), content)
        raise AssertionError("the deadline raises")  # pragma: no cover

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[AnswerStream]:
        """
        Make one request and yield its answer while the body is still to come.

        Args:
            method: Of HTTP.
            url: Already encoded; sent as it is.
            timeout_s: How long the head may take, and then each chunk.
            headers: To send.

        Raises:
            NoAnswerError: As ``fetch``.
        """
        session = self._opened()
        with self._deadline(timeout_s), self._failures():
            response = await session.request(
                method, URL(url, encoded=True), headers=headers, allow_redirects=False
            )
        try:
            yield AnswerStream(response.status, _lower(response), self._chunks(response, timeout_s))
        finally:
            # What was not read is not waited for.
            response.close()

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        body: bytes | None,
        scope: anyio.CancelScope,
        timeout_s: float | None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        given = dict(headers or {})
        data: Any = body
        if body is not None and len(body) > _SLICE_BYTES and timeout_s is not None:
            given["Content-Length"] = str(len(body))
            data = _slices(body, scope, timeout_s)
        with self._failures():
            async with self._opened().request(
                method, URL(url, encoded=True), headers=given, data=data, allow_redirects=False
            ) as response:
                yield response

    async def _whole(self, response: aiohttp.ClientResponse) -> bytes:
        content = bytearray()
        async for chunk in response.content.iter_any():
            content += chunk
            if len(content) > MAX_ANSWER_BYTES:
                response.close()
                reason = f"{self._dependency} answered more than {MAX_ANSWER_BYTES} bytes"
                raise NoAnswerError(reason, may_have_acted=True)
        return bytes(content)

    async def _chunks(
        self, response: aiohttp.ClientResponse, timeout_s: float
    ) -> AsyncGenerator[bytes]:
        while True:
            with self._deadline(timeout_s), self._failures():
                chunk = await response.content.readany()
            if not chunk:
                return
            yield chunk

    @contextmanager
    def _deadline(self, timeout_s: float | None) -> Iterator[anyio.CancelScope]:
        with anyio.CancelScope() as scope:
            if timeout_s is not None:
                scope.deadline = anyio.current_time() + timeout_s
            yield scope
        if scope.cancelled_caught:
            reason = f"{self._dependency} did not answer within {timeout_s:g} seconds"
            raise LateAnswerError(reason, may_have_acted=True)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn what aiohttp raises into the one error; its texts may hold URLs, so none is kept."""
        try:
            yield
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            if isinstance(error, aiohttp.ClientConnectorError) and isinstance(
                error.os_error, PrivateAddressError
            ):
                reason = f"the address of {self._dependency} is not public"
                raise ForbiddenAddressError(reason, may_have_acted=False) from None
            reason = f"{self._dependency} cannot be connected to"
            raise NoAnswerError(reason, may_have_acted=False) from None
        except aiohttp.InvalidURL:
            reason = f"the address of {self._dependency} is no URL"
            raise NoAnswerError(reason, may_have_acted=False) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            reason = f"{self._dependency} broke off ({type(error).__name__})"
            raise NoAnswerError(reason, may_have_acted=True) from None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise unavailable(f"The connections to {self._dependency} are not open.")
        return self._session


async def _slices(body: bytes, scope: anyio.CancelScope, timeout_s: float) -> AsyncGenerator[bytes]:
    """Yield a long body piece by piece; each that is taken gives the rest new time."""
    whole = memoryview(body)
    for start in range(0, len(whole), _SLICE_BYTES):
        yield bytes(whole[start : start + _SLICE_BYTES])
        scope.deadline = anyio.current_time() + timeout_s


def _lower(response: aiohttp.ClientResponse) -> Mapping[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}
