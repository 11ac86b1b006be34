"""A server that answers without end, or not as it was asked, costs no more than a call's limits."""

import gzip
import json
import logging
import socket
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Thread
from traceback import TracebackException
from typing import Any
from uuid import UUID

import httpx
import pytest

from s3edge.client import (
    AsyncClient,
    Client,
    ConnectionFailed,
    InvalidRequest,
    RateLimited,
    S3EdgeError,
    UnreadableAnswer,
)
from s3edge.client.drivers.bounds import MAX_REDIRECTS
from s3edge.testing.scripted_api import REQUEST_ID, ScriptedApi, ok
from s3edge.testing.scripted_api import refused as scripted_refusal
from tests.e2e.colours import COLOURS, Colour, done, listed, refused


pytestmark = pytest.mark.anyio

RESULT_ID = UUID(int=1)

Answer = Callable[[socket.socket], None]


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> Colour:
    """Return which client is used."""
    colour: Colour = request.param
    return colour


def client_of(colour: Colour, url: str, **options: Any) -> Any:
    """Return a client that does not try again."""
    kind = Client if colour == "sync" else AsyncClient
    return kind(base_url=url, token="t", max_retries=0, **options)


def result_with(mask_url: str) -> dict[str, Any]:
    """Return a result whose mask is somewhere."""
    return {
        "id": str(RESULT_ID),
        "project_id": None,
        "source_image_url": mask_url,
        "mask_image_url": mask_url,
        "text_prompt": "red",
        "labels": [],
        "metadata": {},
        "status": "done",
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z",
    }


@contextmanager
def server(*answers: Answer) -> Iterator[str]:
    """Answer one connection after another, each as it is said; return where."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for answer in answers:
                connection, _ = listening.accept()
                with connection:
                    connection.settimeout(30)
                    _read_head(connection)
                    answer(connection)

        thread = Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


def _read_head(connection: socket.socket) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(65536)


async def test_the_body_of_a_redirect_is_not_read(colour: Colour) -> None:
    """It may have no end: the connection is closed, and the next answer counts."""
    taken = 0

    def redirect(connection: socket.socket) -> None:
        nonlocal taken
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /m\r\n\r\n")
        try:
            while taken < 64 * 1024**2:
                taken += connection.send(b"0" * 65536)
        except OSError:
            return

    def mask(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\npng")

    def result(connection: socket.socket) -> None:
        data = json.dumps({"success": True, "data": result_with(f"{url}/redirects")}).encode()
        head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data)

    with server(result, redirect, mask) as url:
        client = client_of(colour, url)
        found = await done(client.result(RESULT_ID))
        assert await done(found.mask.read()) == b"png"
        await done(client.close())
    assert taken < 16 * 1024**2


async def test_redirects_end(api: ScriptedApi, colour: Colour) -> None:
    """After five, whatever is at the next."""
    api.answer(ok(result_with("http://media.test/m")))
    api.answer(*[httpx.Response(302, headers={"Location": "/again"})] * (MAX_REDIRECTS + 1))
    client: Any = api.client() if colour == "sync" else api.async_client()
    result = await done(client.result(RESULT_ID))
    await refused(ConnectionFailed, result.mask.read)
    assert len(api.requests) == 1 + 1 + MAX_REDIRECTS
    assert all("authorization" not in request.headers for request in api.requests[1:])


async def test_compressed_answers_are_not_unpacked(colour: Colour) -> None:
    """They are not asked for; 200 MiB of zeros come in 400 bytes, packed twice."""
    packed = gzip.compress(gzip.compress(bytes(200 * 1024**2), 1), 9)
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
    )
    with server(lambda connection: connection.sendall(head.encode() + packed)) as url:
        client = client_of(colour, url)
        tracemalloc.start()
        try:
            error = await refused(UnreadableAnswer, client.me)
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        await done(client.close())
    assert "compressed" in error.message
    assert most < 8 * 1024**2


async def test_answers_are_asked_for_as_they_are(api: ScriptedApi, colour: Colour) -> None:
    """Whatever is to be sent besides; a compressed refusal keeps its status."""
    api.answer(httpx.Response(503, headers={"Content-Encoding": "br"}, stream=NoBrotli()))
    client: Any = api.client(max_retries=0) if colour == "sync" else api.async_client(max_retries=0)
    error = await refused(UnreadableAnswer, client.me)
    assert (error.status, error.retryable) == (503, True)
    assert api.requests[0].headers["accept-encoding"] == "identity"


class NoBrotli(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that nobody is to read."""

    def __iter__(self) -> Iterator[bytes]:
        """Fail."""
        message = "it was read"
        raise AssertionError(message)

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Fail."""
        message = "it was read"
        raise AssertionError(message)


@pytest.mark.parametrize("status", [200, 404, 503])
@pytest.mark.parametrize("body", [b"[" * 100_000, b'"\xff"', b'{"error": {"code": "\xff"}}'])
async def test_what_is_no_json_is_unreadable(
    api: ScriptedApi, colour: Colour, status: int, body: bytes
) -> None:
    """Nested without end, or no UTF-8; the key is on the error, for another try."""
    api.answer(httpx.Response(status, content=body))
    client: Any = api.client(max_retries=0) if colour == "sync" else api.async_client(max_retries=0)
    call = partial(client.segment, RESULT_ID, "red", idempotency_key="k")
    error = await refused(UnreadableAnswer, call)
    assert error.idempotency_key == "k"


async def test_an_answer_of_another_shape_names_the_call(api: ScriptedApi, colour: Colour) -> None:
    """Key and request; else nobody could ask again without paying twice."""
    api.answer(ok({"task_id": 7}, 202))
    client: Any = api.client() if colour == "sync" else api.async_client()
    call = partial(client.segment, RESULT_ID, "red", idempotency_key="k")
    error = await refused(UnreadableAnswer, call)
    assert (error.idempotency_key, error.status, error.request_id) == ("k", 202, REQUEST_ID)


@pytest.mark.parametrize(
    "headers",
    [
        {"RateLimit-Policy": f'"x";q={"9" * 5000};w=1'},
        {"RateLimit-Policy": f'"x";q=1;w={"9" * 5000}'},
        {"Retry-After": "Mon, 01 Jan 2026 00:00:00 +9999999999999"},
        {"Retry-After": "Mon, 01 Jan 99999 00:00:00 GMT"},
        {"Retry-After": "9" * 5000},
    ],
)
async def test_headers_beyond_measure_are_no_errors_of_pythons(
    api: ScriptedApi, colour: Colour, headers: dict[str, str]
) -> None:
    """What cannot be understood is left out."""
    api.answer(scripted_refusal(429, "RATE_LIMITED", headers))
    client: Any = api.client(max_retries=0) if colour == "sync" else api.async_client(max_retries=0)
    error = await refused(RateLimited, client.me)
    assert error.policy is None


async def test_a_host_that_no_resolver_takes(colour: Colour) -> None:
    """A label of a name is 63 characters long at the most; Python says so in an error of text."""
    client = client_of(colour, f"http://{'a' * 64}.test")
    await refused(S3EdgeError, client.me)
    await done(client.close())


async def test_what_is_no_text_is_not_sent(api: ScriptedApi, colour: Colour, png: bytes) -> None:
    """Half of a surrogate pair, in any field; and a path that is none."""
    client: Any = api.client() if colour == "sync" else api.async_client()
    half = "\ud83d"
    for call, field in (
        (partial(client.segment, RESULT_ID, half, idempotency_key="k"), "text_prompt"),
        (
            partial(client.segment, RESULT_ID, "x", project_id=half, idempotency_key="k"),
            "project_id",
        ),
        (partial(client.upload, png, project_id=half, idempotency_key="k"), "project_id"),
        (partial(client.upload, "a\0b", idempotency_key="k"), "file"),
    ):
        error = await refused(InvalidRequest, call)
        assert (error.details[0].field, error.idempotency_key) == (field, "k")
    await refused(InvalidRequest, partial(listed, client.results(status=half)))
    assert api.requests == []


@pytest.mark.parametrize("cursors", [["c", "c"], [7], [{}]])
async def test_a_list_that_does_not_move_ends(
    api: ScriptedApi, colour: Colour, cursors: list[Any]
) -> None:
    """A page that is followed by itself would be asked for for ever."""
    api.answer(*[ok({"results": [], "total": 9, "next_cursor": cursor}) for cursor in cursors])
    client: Any = api.client() if colour == "sync" else api.async_client()
    await refused(UnreadableAnswer, partial(listed, client.results()))
    assert len(api.requests) == len(cursors)


def redirecting(connection: socket.socket) -> None:
    """Answer a download with a signed address that nobody answers at."""
    connection.sendall(
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/m?signature=s3cret\r\n"
        b"Content-Length: 0\r\n\r\n"
    )


async def test_no_secret_is_logged_of_a_redirect(
    api: ScriptedApi, colour: Colour, caplog: pytest.LogCaptureFixture
) -> None:
    """Not by the HTTP library beneath either, which logs every header at its loudest."""
    caplog.set_level(logging.DEBUG)

    def result(connection: socket.socket) -> None:
        data = json.dumps({"success": True, "data": result_with(f"{url}/m")}).encode()
        head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data)

    with server(result, redirecting) as url:
        client = client_of(colour, url)
        found = await done(client.result(RESULT_ID))
        await refused(ConnectionFailed, found.mask.read)
        await done(client.close())
    assert "s3cret" not in caplog.text
    assert "/api/v1/results/" in caplog.text


@pytest.mark.parametrize("is_function", [True, False])
async def test_no_token_is_in_a_tracebacks_variables(colour: Colour, is_function: bool) -> None:
    """Tools that report errors send them along; here a connection breaks, and there is none."""
    parts = ("s3", "cret-", "token")
    with server(lambda connection: connection.close()) as url:
        for address in (url, "http://127.0.0.1:1"):
            token = (lambda: "".join(parts)) if is_function else "".join(parts)
            client: Any = (Client if colour == "sync" else AsyncClient)(
                base_url=address, token=token, max_retries=0
            )
            del token
            error = await refused(ConnectionFailed, client.me)
            shown = TracebackException.from_exception(error, capture_locals=True)
            text = "".join(shown.format())
            assert "_exchange" in text
            assert "s3cret-token" not in text
            await done(client.close())
