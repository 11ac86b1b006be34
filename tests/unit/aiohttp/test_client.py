"""The shared HTTP client, against servers that do as a test says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import anyio
import pytest

from s3edge.errors import Code, EdgeError
from s3edge_aiohttp import HttpClient, NoAnswerError
from s3edge_aiohttp.client import MAX_ANSWER_BYTES


pytestmark = pytest.mark.anyio

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Serve = Callable[[Handler], AbstractAsyncContextManager[str]]

SHORT_S = 0.3
"""As long as the tests wait for what never comes."""

SECRET = "X-Amz-Signature=hunter2"


@pytest.fixture
def serve() -> Serve:
    """Run a server of raw bytes on loopback; give its address."""

    @asynccontextmanager
    async def run(handler: Handler) -> AsyncIterator[str]:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                # The client may well hang up first.
                with suppress(ConnectionError):
                    await handler(reader, writer)
            finally:
                writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        try:
            port = server.sockets[0].getsockname()[1]
            yield f"http://127.0.0.1:{port}"
        finally:
            server.close()

    return run


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    """Return an open client."""
    async with HttpClient("the thing") as client:
        yield client


async def read_head(reader: asyncio.StreamReader) -> bytes:
    """Read a request's head."""
    return await reader.readuntil(b"\r\n\r\n")


def answering(raw: bytes) -> Handler:
    """Answer these bytes to the head of a request."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(raw)
        await writer.drain()

    return handler


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take everything and say nothing."""
    while await reader.read(65536):
        pass


async def test_an_answer_is_whole_and_as_it_was(client: HttpClient, serve: Serve) -> None:
    """Status, headers and bytes come back, and the request is what was asked, with a plain agent."""
    seen: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_head(reader))
        seen.append(await reader.readexactly(3))
        writer.write(
            b"HTTP/1.1 302 Found\r\nLocation: /x\r\nX-Two: b\r\nContent-Length: 2\r\n\r\nok"
        )

    async with serve(handler) as url:
        answer = await client.fetch(
            "PUT", f"{url}/a%2Fb?c=%20d", timeout_s=5, headers={"X-One": "a"}, body=b"abc"
        )
    assert (answer.status, answer.body, answer.headers["x-two"]) == (302, b"ok", "b")
    head, body = seen
    assert head.startswith(b"PUT /a%2Fb?c=%20d HTTP/1.1\r\n")
    assert b"User-Agent: s3edge\r\n" in head
    assert b"X-One: a\r\n" in head
    assert body == b"abc"


async def test_a_refused_connection_did_nothing(client: HttpClient, serve: Serve) -> None:
    """So whatever was asked may be asked again."""
    async with serve(silent) as url:
        pass
    with pytest.raises(NoAnswerError) as caught:
        await client.fetch("POST", f"{url}/?{SECRET}", timeout_s=5, body=b"x")
    assert not caught.value.may_have_acted
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("body", [None, b"x", bytes(8 * 1024 * 1024)])
async def test_silence_is_given_up(client: HttpClient, serve: Serve, body: bytes | None) -> None:
    """A server that takes a request and says nothing may have done it all the same."""
    async with serve(silent) as url:
        with pytest.raises(NoAnswerError, match=r"did not answer within 0\.3 seconds") as caught:
            await client.fetch("PUT", f"{url}/?{SECRET}", timeout_s=SHORT_S, body=body)
    assert caught.value.may_have_acted


async def test_a_body_that_is_not_taken_is_given_up(client: HttpClient, serve: Serve) -> None:
    """A server that reads nothing holds nobody for ever."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        reader.feed_data = lambda data: None  # type: ignore[method-assign] # drop, do not buffer
        writer.transport.pause_reading()  # type: ignore[attr-defined] # asyncio's own transport
        await stop.wait()

    stop = asyncio.Event()
    async with serve(handler) as url:
        with pytest.raises(NoAnswerError):
            await client.fetch("PUT", url, timeout_s=SHORT_S, body=bytes(64 * 1024 * 1024))
        stop.set()


async def test_a_body_that_moves_has_time(client: HttpClient, serve: Serve) -> None:
    """Each piece that is taken gives the rest new time, so a slow line is no outage."""
    size = 24 * 1024 * 1024

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        assert f"Content-Length: {size}\r\n".encode() in head
        assert b"chunked" not in head
        taken = 0
        while taken < size:
            taken += len(await reader.read(1024 * 1024))
            # Slow enough that the whole takes longer than a standstill may.
            await asyncio.sleep(0.01)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with serve(handler) as url:
        began = anyio.current_time()
        answer = await client.fetch("PUT", url, timeout_s=1, body=bytes(size))
    assert answer.status == 200
    assert anyio.current_time() - began > 1


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00\x01garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
        b"HTTP/1.1 two hundred\r\n\r\n",
    ],
    ids=["nothing", "garbage", "cut short", "bad chunk", "no status"],
)
async def test_what_is_no_answer_is_said_to_be_none(
    client: HttpClient, serve: Serve, raw: bytes
) -> None:
    """Broken answers are one error, whose text holds no URL."""
    async with serve(answering(raw)) as url:
        with pytest.raises(NoAnswerError) as caught:
            await client.fetch("GET", f"{url}/?{SECRET}", timeout_s=5)
    assert caught.value.may_have_acted
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_an_endless_answer_is_cut(client: HttpClient, serve: Serve) -> None:
    """A dependency that never stops talking fills no memory."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(1024 * 1024))
            await writer.drain()

    async with serve(handler) as url:
        with pytest.raises(NoAnswerError, match=f"more than {MAX_ANSWER_BYTES} bytes"):
            await client.fetch("GET", url, timeout_s=20)


async def test_a_stream_comes_as_it_is_sent(client: HttpClient, serve: Serve) -> None:
    """The first chunk is there before the last was written."""
    go_on = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        await go_on.wait()
        writer.write(b"def")

    received = []
    async with serve(handler) as url, client.stream("GET", url, timeout_s=5) as answer:
        assert answer.status == 200
        async for chunk in answer.chunks:
            received.append(chunk)
            go_on.set()
    assert received == [b"abc", b"def"]


async def test_a_stream_that_breaks_off_is_no_end(client: HttpClient, serve: Serve) -> None:
    """A short stream raises, and so does one that pauses too long."""
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc"

    async def pausing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(raw)(reader, writer)
        await reader.read()

    for handler in (answering(raw), pausing):
        async with serve(handler) as url, client.stream("GET", url, timeout_s=SHORT_S) as answer:
            assert await anext(answer.chunks) == b"abc"
            with pytest.raises(NoAnswerError):
                await anext(answer.chunks)


async def test_a_cancelled_request_is_cancelled(client: HttpClient, serve: Serve) -> None:
    """The caller's own deadline is the caller's, not an outage."""
    async with serve(silent) as url:
        with anyio.move_on_after(SHORT_S) as scope:
            await client.fetch("GET", url, timeout_s=None)
    assert scope.cancelled_caught


async def test_a_closed_client_says_so() -> None:
    """Before it is opened and after it was closed, nothing is sent."""
    client = HttpClient("the thing")
    with pytest.raises(EdgeError) as caught:
        await client.fetch("GET", "http://127.0.0.1:1/", timeout_s=1)
    assert caught.value.code is Code.SERVICE_UNAVAILABLE
