"""What is easily done wrong is refused in words that say what to do, before anything is sent."""

import asyncio
import inspect
import io
import re
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket
from threading import Thread
from typing import IO, Any, cast
from uuid import UUID

import httpx
import msgspec
import pytest
from starlette.applications import Starlette

from s3edge.client import (
    AsyncClient,
    AuthRequired,
    Client,
    ConfigurationError,
    ConnectionFailed,
    InvalidRequest,
    Timeout,
    UnreadableAnswer,
)
from s3edge.client.session import FROM_ENVIRONMENT
from s3edge.testing.scripted_api import BASE_URL, ScriptedApi, ok
from tests.e2e.colours import COLOURS, AnyClient, done, refused


pytestmark = pytest.mark.anyio

ME = {"user_id": "6b6f2c1e-1111-4111-8111-111111111111", "tier": "pro", "credits": 7}

NewClient = Callable[..., AnyClient]


def closed_file() -> IO[bytes]:
    """Return a file that cannot be read any more."""
    file = io.BytesIO()
    file.close()
    return file


@pytest.fixture(params=COLOURS)
def new_client(request: pytest.FixtureRequest, api: ScriptedApi) -> NewClient:
    """Return what makes clients of the scripted API, of either colour."""
    return api.client if request.param == "sync" else api.async_client


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"base_url": ""}, "base_url="),
        ({"base_url": None}, "base_url="),
        ({"token": ""}, "token is empty"),
        ({"token": 7}, "not int"),
        ({"token": "Bearer eyJhb"}, "without 'Bearer '"),
    ],
)
def test_what_is_given_and_none_is_not_taken_from_the_environment(
    new_client: NewClient, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], says: str
) -> None:
    """Else a call would go to another server, or be paid for by another user."""
    monkeypatch.setenv("S3EDGE_BASE_URL", BASE_URL)
    monkeypatch.setenv("S3EDGE_TOKEN", "of-the-environment")
    with pytest.raises(ConfigurationError, match=says):
        new_client(**given)


@pytest.mark.parametrize(
    "given",
    [
        *({"timeout": wrong} for wrong in ("5", 0, -1, float("nan"), True)),
        *({"max_retries": wrong} for wrong in ("3", -1, 1.5, True)),
    ],
)
def test_numbers_that_make_no_sense_are_refused(
    new_client: NewClient, given: dict[str, Any]
) -> None:
    """At once, for a client and for some of its calls."""
    ((name, wrong),) = given.items()
    for make in (new_client, new_client().with_options):
        with pytest.raises(ConfigurationError, match=re.escape(f"not {wrong!r}.")):
            make(**given)
    if name == "timeout":
        with pytest.raises(ConfigurationError):
            Timeout(connect=wrong)


@pytest.mark.parametrize("token", [None, lambda: None])
async def test_no_token_is_not_the_environments(
    api: ScriptedApi, new_client: NewClient, monkeypatch: pytest.MonkeyPatch, token: Any
) -> None:
    """A user who is not known is nobody."""
    monkeypatch.setenv("S3EDGE_TOKEN", "of-the-environment")
    await refused(AuthRequired, new_client(token=token).me)
    assert api.requests == []


async def test_a_function_that_returns_no_token_is_refused(
    api: ScriptedApi, new_client: NewClient
) -> None:
    """As the same would be, given at once."""
    await refused(ConfigurationError, new_client(token=lambda: "").me)
    assert api.requests == []


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_an_application_in_process_is_never_asked_with_the_environments_token(
    monkeypatch: pytest.MonkeyPatch, kind: type[AnyClient]
) -> None:
    """Whom a host asks for, it says."""
    monkeypatch.setenv("S3EDGE_TOKEN", "of-the-environment")
    client = kind.for_app(Starlette())
    await refused(AuthRequired, client.me)
    await done(client.close())
    with pytest.raises(ConfigurationError, match="base_url="):
        kind.for_app(Starlette(), base_url="")


async def test_the_environment_is_asked_where_nothing_is_given(
    new_client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a variable there is no address, and no token."""
    with pytest.raises(ConfigurationError, match="S3EDGE_BASE_URL"):
        new_client(base_url=FROM_ENVIRONMENT)
    monkeypatch.setenv("S3EDGE_TOKEN", "")
    await refused(AuthRequired, new_client(token=FROM_ENVIRONMENT).me)


async def test_a_closed_client_says_so(api: ScriptedApi, new_client: NewClient) -> None:
    """A call, a call of another client on the same connections, and another ``with``."""
    client = new_client()
    other = client.with_options(max_retries=0)
    await done(client.close())
    await done(client.close())
    for call in (client.me, other.me, lambda: client.upload(b"")):
        error = await refused(ConfigurationError, call)
        assert "closed" in error.message
    with pytest.raises(ConfigurationError, match="closed"):
        await entered(client)
    assert api.requests == []


async def entered(client: AnyClient) -> None:
    """Use a client as a context manager, of its colour's kind."""
    if isinstance(client, AsyncClient):
        async with client:
            pass
    else:
        with client:
            pass


def test_a_client_of_another_event_loop_says_so(api: ScriptedApi) -> None:
    """Its connections ended with the loop of its first call."""
    api.answer(ok(ME), ok(ME))
    client = api.async_client()
    assert asyncio.run(client.me()).credits == 7
    for call in (client.me, client.close, lambda: entered(client)):
        with pytest.raises(ConfigurationError, match=r"asyncio\.run"):
            asyncio.run(call())
    assert len(api.requests) == 1


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ("cat.jpg", "image is text that is neither an id nor .* upload it first"),
        ("", "upload it first"),
        ("ftp://files.test/cat.jpg", "upload it first"),
        (Path("cat.jpg"), "image is a PosixPath; .* upload it first"),
        (b"\x89PNG", "image is a bytes; .* upload it first"),
        (None, "image is a NoneType"),
    ],
)
async def test_what_names_no_image_is_not_sent(
    api: ScriptedApi, new_client: NewClient, image: Any, says: str
) -> None:
    """A path, say; the error has the key of the call, as all have."""
    error = await refused(
        InvalidRequest, lambda: new_client().segment(image, "red", idempotency_key="k")
    )
    assert re.search(says, error.message)
    assert error.idempotency_key == "k"
    assert api.requests == []


@pytest.mark.filterwarnings("error")
async def test_a_forgotten_await_is_told_of(api: ScriptedApi, new_client: NewClient) -> None:
    """And by nothing else: the coroutine is not warned of besides."""
    image: Any = api.async_client().upload(b"")
    error = await refused(InvalidRequest, lambda: new_client().segment(image, "red"))
    assert "image is a coroutine; await it first: " in error.message
    assert inspect.getcoroutinestate(image) == inspect.CORO_CLOSED
    assert api.requests == []


async def test_ids_and_urls_are_sent(api: ScriptedApi, new_client: NewClient) -> None:
    """Ids as text or not; URLs of either scheme, in any case."""
    task = {"task_id": "6b6f2c1e-2222-4222-8222-222222222222", "status": "pending"}
    id_ = UUID("6b6f2c1e-3333-4333-8333-33333333aaaa")
    client = new_client()
    names: tuple[Any, ...] = (
        id_,
        str(id_),
        str(id_).upper(),
        "http://a.test/i",
        "HTTPS://a.test/i",
    )
    for image in names:
        api.answer(ok(task))
        await done(cast("Any", client.segment(image, "red")))
    sent = [msgspec.json.decode(request.content) for request in api.requests]
    assert [each.get("image_id") for each in sent] == [str(id_)] * 3 + [None] * 2
    assert [each.get("image_url") for each in sent[3:]] == list(names[3:])


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (".", ". cannot be read: Is a directory"),
        ("no/such/cat.jpg", "no/such/cat.jpg cannot be read: No such file"),
        (closed_file(), "the file is closed"),
        ("HTTP://a.test/i?signature=s3cret", "a URL cannot be uploaded; download"),
    ],
)
async def test_what_cannot_be_uploaded_is_named(
    new_client: NewClient, source: Any, says: str
) -> None:
    """By its whole path; a URL may be signed, and is not shown."""
    error = await refused(InvalidRequest, lambda: new_client().upload(source))
    assert error.message.startswith(says)
    assert "s3cret" not in error.message


@pytest.mark.parametrize("path", ["api/v1/me", "http://api.test/api/v1/me?signature=s3cret"])
@pytest.mark.parametrize("status", [200, 404])
async def test_who_answered_is_named(
    api: ScriptedApi, new_client: NewClient, path: str, status: int
) -> None:
    """With the status, and without the query."""
    api.answer(httpx.Response(status, text="<html>"))
    client = new_client(max_retries=0)
    error = await refused(UnreadableAnswer, lambda: client.request("GET", path))
    assert f"{BASE_URL}/api/v1/me" in error.message
    assert str(status) in error.message
    assert "s3cret" not in error.message


async def test_of_another_server_only_the_origin_is_named(
    api: ScriptedApi, new_client: NewClient
) -> None:
    """A path may be a secret there."""
    api.answer(httpx.Response(404, text="<html>"))
    call = partial(new_client().request, "GET", "http://u:s3cret@media.test:81/s3cret?s3cret")
    error = await refused(UnreadableAnswer, call)
    assert "at http://media.test:81 is" in error.message
    assert "s3cret" not in error.message


async def test_why_a_server_cannot_be_reached_is_said(
    new_client: NewClient, plain_server: str
) -> None:
    """Here HTTPS was asked of a server that speaks HTTP: OpenSSL says so, in words of its own."""
    url = plain_server.replace("http:", "https:")
    client = new_client(base_url=url, transport=None, max_retries=0)
    error = await refused(ConnectionFailed, client.health)
    assert url in error.message
    assert "SSL" in error.message
    assert isinstance(error.__cause__, ssl.SSLError)
    await done(client.close())


async def test_that_nobody_listens_is_said(new_client: NewClient) -> None:
    """Under a name that may have several addresses, too."""
    with socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        for host in ("127.0.0.1", "localhost"):
            url = f"http://{host}:{port}"
            client = new_client(base_url=url, transport=None, max_retries=0)
            error = await refused(ConnectionFailed, client.health)
            assert isinstance(error.__cause__, ConnectionRefusedError)
            said = str(error.__cause__.strerror)
            assert error.message == f"{url} cannot be reached, or broke off ({said})."
            assert re.match("Connection refused|Connect call failed", said)
            await done(client.close())


@pytest.fixture
def plain_server() -> Iterator[str]:
    """Return the URL of a server without TLS."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_half_of_a_surrogate_pair_in_json_is_not_sent(
    api: ScriptedApi, new_client: NewClient
) -> None:
    """Whatever the request is."""
    body = {"a": ["\ud800"]}
    error = await refused(InvalidRequest, lambda: new_client().request("POST", "/x", json=body))
    assert error.details[0].field == "json"
    assert api.requests == []
