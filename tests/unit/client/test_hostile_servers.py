"""A server that answers without end, or not as it was asked, costs no more than a call's limits."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any
from uuid import UUID

import httpx
import pytest

from s3edge.client import AsyncClient, Client, ConnectionFailed
from s3edge.client.drivers.bounds import MAX_REDIRECTS
from s3edge.testing.scripted_api import ScriptedApi, ok
from tests.e2e.colours import COLOURS, Colour, done, refused


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
