"""Both clients reach the real application in this process, over ASGI and over WSGI."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, MutableMapping
from contextlib import asynccontextmanager, closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from threading import enumerate as enumerate_threads
from typing import Any
from uuid import UUID, uuid4

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.responses import JSONResponse, RedirectResponse
from starlette.routing import Mount

from s3edge.client import (
    AsyncClient,
    Client,
    ConfigurationError,
    InsufficientCredits,
    InvalidRequest,
    NotFound,
    S3EdgeError,
    TimedOut,
    Timeout,
)
from s3edge.client.drivers import transport_to
from s3edge.testing import MemoryDeployment, memory_deployment
from s3edge.values import Tier, User
from s3edge_starlette import create_app
from s3edge_wsgi import create_app as create_wsgi_app
from tests.e2e.colours import AnyClient, done
from tests.waiting import WITHIN_S


BASE_URL = "http://s3edge.test"

pytestmark = pytest.mark.anyio


@pytest.fixture
def deployment() -> MemoryDeployment:
    """Return a deployment in memory; the client's app runs it."""
    return memory_deployment(BASE_URL)


@pytest.fixture
def token(deployment: MemoryDeployment) -> str:
    """Return a token of a user with 100 credits."""
    return deployment.authenticator.issue(User(uuid4(), Tier.PRO))


@pytest.fixture
def picture() -> Image.Image:
    """Return a picture whose left half is bright."""
    picture = Image.new("RGB", (8, 6))
    picture.paste((255, 255, 255), (0, 0, 4, 6))
    return picture


def test_the_whole_way(deployment: MemoryDeployment, token: str, picture: Image.Image) -> None:
    """Upload, segment, wait, mask, list, account; and what the application refuses."""
    with Client.for_app(create_app(deployment.web), token=token) as client:
        image = client.upload(picture)
        assert (image.width, image.height, image.content_type) == (8, 6, "image/png")
        task = client.segment(image, "what is bright")
        result = task.wait(timeout=30)
        assert (result.id, result.status, result.text_prompt) == (task.id, "done", "what is bright")
        assert result.mask.to_numpy()[:, :4].all()
        assert not result.mask.to_numpy()[:, 4:].any()
        listed = next(iter(client.results()))
        assert (listed.id, listed.mask.read()) == (task.id, result.mask.read())
        assert listed.read() == result
        assert client.segment(image.image_url, "what is bright").wait(timeout=30).status == "done"
        assert client.me().credits == 98
        with pytest.raises(InvalidRequest) as refusal:
            client.segment(image, " ")
        assert refusal.value.details[0].field == "text_prompt"
        with pytest.raises(NotFound):
            client.segment(uuid4(), "x")
        for _ in range(98):
            client.segment(image, "x")
        with pytest.raises(InsufficientCredits):
            client.segment(image, "x")
        assert client.me().credits == 0


async def test_the_whole_way_awaited(
    deployment: MemoryDeployment, token: str, picture: Image.Image
) -> None:
    """The same by the other client."""
    async with AsyncClient.for_app(create_app(deployment.web), token=token) as client:
        image = await client.upload(picture)
        task = await client.segment(image, "what is bright")
        result = await task.wait(timeout=30)
        assert (await result.mask.to_numpy())[:, :4].all()
        listed = [result async for result in client.results()]
        assert [each.id for each in listed] == [task.id]
        assert await listed[0].read() == result
        assert (await client.me()).credits == 99


async def test_a_host_may_run_the_lifespan(
    deployment: MemoryDeployment, token: str, picture: Image.Image
) -> None:
    """Then the client leaves it alone."""
    app = create_app(deployment.web, runs_gateway=False)
    async with (
        deployment.gateway.running(),
        AsyncClient.for_app(app, token=token, runs_lifespan=False) as client,
    ):
        task = await client.segment(await client.upload(picture), "bright")
        assert (await task.wait(timeout=30)).status == "done"


def test_the_lifespan_is_the_clients(deployment: MemoryDeployment, token: str) -> None:
    """It begins with the first call and ends with the client, once, whoever has other options."""
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        events.append("up")
        async with deployment.gateway.running():
            yield
        events.append("down")

    app = create_app(deployment.web, runs_gateway=False)
    app.router.lifespan_context = lifespan
    with Client.for_app(app, token=token) as client:
        assert events == []
        client.me()
        with client.with_options(max_retries=0) as other:
            other.me()
        assert events == ["up"]
    assert events == ["up", "down"]


def test_an_application_that_cannot_start_says_so(token: str) -> None:
    """With its own words."""

    def connect() -> None:
        message = "no database"
        raise RuntimeError(message)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        connect()
        yield

    with (
        Client.for_app(Starlette(lifespan=lifespan), token=token) as client,
        pytest.raises(ConfigurationError, match="no database"),
    ):
        client.me()


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answer everything."""
    assert scope["type"] == "http"
    await JSONResponse({})(scope, receive, send)


def test_an_application_that_calls_itself_is_told() -> None:
    """By a Client on its own event loop it would wait for ever."""
    said: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/calls-itself":
            with pytest.raises(ConfigurationError) as refusal:
                client.request("GET", "/x")
            said.append(refusal.value.message)
        await hello(scope, receive, send)

    with Client.for_app(app, token="t", runs_lifespan=False) as client:
        assert client.request("GET", "/calls-itself").status == 200
    assert "AsyncClient" in said[0]


def test_what_was_shut_down_stays_so() -> None:
    """A transport that others hold starts no thread again."""
    transport = transport_to(hello, runs_lifespan=False)
    client = Client(base_url=BASE_URL, token="t", transport=transport)
    assert client.request("GET", "/x").status == 200
    transport.close()
    transport.close()
    with pytest.raises(ConfigurationError, match="make a new client"):
        client.request("GET", "/x")
    assert "s3edge-client-loop" not in [thread.name for thread in enumerate_threads()]


class Silent:
    """An application that never answers."""

    def __init__(self) -> None:
        self.was_asked = Event()
        self.was_cancelled = Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Wait until cancelled."""
        self.was_asked.set()
        try:
            await asyncio.Future()
        finally:
            self.was_cancelled.set()


def test_closing_ends_the_calls_of_other_threads() -> None:
    """They are told what every later call is told, and the application hears that they are gone."""
    app, errors = Silent(), list[Exception]()
    client = Client.for_app(app, token="t", runs_lifespan=False)

    def call() -> None:
        try:
            client.request("GET", "/x")
        except ConfigurationError as error:
            errors.append(error)

    threads = [Thread(target=call, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert app.was_asked.wait(WITHIN_S)
    client.close()
    for thread in threads:
        thread.join(WITHIN_S)
    assert len(errors) == len(threads)
    assert all("make a new" in str(error) for error in errors)
    assert app.was_cancelled.is_set()
    assert "s3edge-client-loop" not in [thread.name for thread in enumerate_threads()]


def test_a_call_that_is_tried_again_hears_of_the_end_meanwhile() -> None:
    """Between two tries no request is under way, and the next one is not begun."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        client.close()
        start_response("503 Service Unavailable", [("Retry-After", "0")])
        return [b""]

    client = Client.for_app(app, token="t")
    with pytest.raises(ConfigurationError, match="make a new"):
        client.request("GET", "/x")


async def test_so_does_one_that_is_awaited() -> None:
    """By the same words."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await client.close()
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body"})

    client = AsyncClient.for_app(app, token="t", runs_lifespan=False)
    with pytest.raises(ConfigurationError, match="make a new"):
        await client.request("GET", "/x")


@pytest.mark.parametrize("timeout", [0.05, Timeout(read=0.05)], ids=["total", "read"])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_an_application_is_held_to_the_time(
    kind: type[AnyClient], timeout: float | Timeout
) -> None:
    """One that does not answer is cancelled, as a server would be left."""
    app = Silent()
    client: Any = kind.for_app(app, token="t", runs_lifespan=False, timeout=timeout, max_retries=0)
    with pytest.raises(TimedOut):
        await done(client.request("GET", "/x"))
    assert app.was_cancelled.is_set()
    await done(client.close())


def test_the_loop_ends_when_the_lifespan_fails() -> None:
    """And the failure is not hidden."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        message = "no end"
        raise RuntimeError(message)

    client = Client.for_app(Starlette(lifespan=lifespan), token="t")
    with pytest.raises(S3EdgeError):
        client.health()
    with pytest.raises(RuntimeError, match="no end"):
        client.close()
    assert "s3edge-client-loop" not in [thread.name for thread in enumerate_threads()]


def wsgi(environ: MutableMapping[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer as a WSGI application that says what it was asked."""
    start_response("200 OK", [("Content-Type", "application/json")])
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode()
    asked = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
    token = environ["HTTP_AUTHORIZATION"]
    return [f'{{"asked": "{asked}", "token": "{token}", "body": {body or "null"}}}'.encode()]


async def test_a_wsgi_application_is_reached_by_both() -> None:
    """With method, path, headers and body."""
    expected = {"asked": "POST /x", "token": "Bearer t", "body": {"a": 1}}
    with Client.for_app(wsgi, token="t") as client:
        assert client.request("POST", "/x", json={"a": 1}).parsed == expected
    async with AsyncClient.for_app(wsgi, token="t") as awaited:
        assert (await awaited.request("POST", "/x", json={"a": 1})).parsed == expected


async def test_the_whole_way_over_the_wsgi_door(
    deployment: MemoryDeployment, token: str, picture: Image.Image
) -> None:
    """The real application behind its other door, by both clients."""
    with closing(create_wsgi_app(deployment.web)) as app:

        def whole_way() -> None:
            with Client.for_app(app, token=token) as client:
                result = client.segment(client.upload(picture), "bright").wait(timeout=30)
                assert result.mask.to_numpy()[:, :4].all()

        await asyncio.to_thread(whole_way)
        async with AsyncClient.for_app(app, token=token) as awaited:
            task = await awaited.segment(await awaited.upload(picture), "bright")
            assert (await (await task.wait(timeout=30)).mask.to_numpy())[:, :4].all()
            assert (await awaited.me()).credits == 98


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_a_mask_of_a_mounted_application_is_read(
    picture: Image.Image, kind: type[AnyClient]
) -> None:
    """The host is the application: the mask's URL has the mount's prefix."""
    url = "http://host.test/segmentation"
    deployment = memory_deployment(url)
    edge = create_app(deployment.web, runs_gateway=False)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with deployment.gateway.running():
            yield

    host = Starlette(routes=[Mount("/segmentation", edge)], lifespan=lifespan)
    token = deployment.authenticator.issue(User(uuid4(), Tier.PRO))
    client: Any = kind.for_app(host, base_url=url, token=token)
    task = await done(client.segment(await done(client.upload(picture)), "bright"))
    result = await done(task.wait(timeout=30))
    assert await done(result.mask.read())
    await done(client.close())


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("way", ["direct", "redirected"])
async def test_a_mask_in_a_bucket_is_read_over_the_network(
    bucket: str, kind: type[AnyClient], way: str
) -> None:
    """The application is not asked for it, and sees no signature."""
    asked: list[str] = []
    mask_id = UUID(int=1)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append(f"{scope['path']}?{scope['query_string'].decode()}")
        assert scope["type"] == "http"
        there = f"{bucket}/m.png?signature=s3cret"
        if scope["path"] == "/redirected":
            answer: Any = RedirectResponse(there)
        else:
            url = there if way == "direct" else f"{BASE_URL}/redirected"
            answer = JSONResponse(done_result(mask_id, url))
        await answer(scope, receive, send)

    client: Any = kind.for_app(app, token="t", runs_lifespan=False)
    result = await done(client.result(mask_id))
    assert await done(result.mask.read()) == b"a mask for /m.png?signature=s3cret"
    assert not [url for url in asked if "s3cret" in url]
    await done(client.close())


def done_result(result_id: UUID, mask_url: str) -> dict[str, Any]:
    """Return a result that has a mask."""
    return {
        "id": str(result_id),
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


class Bucket(BaseHTTPRequestHandler):
    """Answers with what was asked for."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"a mask for {self.path}".encode())

    def log_message(self, *_: Any) -> None:
        """Be silent."""


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Return the URL of a server that is elsewhere."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Bucket) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_fixtures_are_a_deployment(tmp_path: Path) -> None:
    """The plugin, switched on by its name, has all that a test of somebody's own code needs."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["s3edge.testing.pytest_plugin"]')
    (tmp_path / "test_mine.py").write_text(
        "from PIL import Image\n"
        "def test_mine(s3edge_client, s3edge_storage, s3edge_user):\n"
        "    image = s3edge_client.upload(Image.new('L', (2, 2), 255))\n"
        "    result = s3edge_client.segment(image, 'bright').wait(timeout=30)\n"
        "    assert result.mask.to_numpy().all()\n"
        "    assert s3edge_client.me().user_id == s3edge_user.user_id\n"
        "    assert len(s3edge_storage.keys()) == 2\n"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout
