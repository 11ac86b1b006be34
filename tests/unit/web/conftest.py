"""A gateway of in-memory ports, and a client that calls it without a socket."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from attrs import define

from s3edge.gateway import Gateway
from s3edge.memory import (
    MemoryAuthenticator,
    MemoryDatabase,
    MemoryObjectStorage,
    MemoryRateLimiter,
    ThresholdBackend,
)
from s3edge.ports import Clock
from s3edge.rules.keys import unsigned, upload_key
from s3edge.testing.clock import ManualClock
from s3edge.values import NewTask, Task, User
from s3edge.web.app import PathRoutes, WebApp
from s3edge.web.envelope import JSON_HEADERS
from s3edge.web.http import Request, Response


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d494844520000000200000001080200000"
    "07b40e8dd0000000f49444154789c63f8ffff3f030303000ef802fec9"
    "8b83f50000000049454e44ae426082"
)
"""Two pixels: a file that the backend can read."""


@define
class IdleGateway(Gateway):
    """Serves while nobody dispatches: a task stays as it was reserved until a test goes on with it."""

    def check_running(self) -> None:
        """Take requests without the background work."""


@pytest.fixture(scope="module")
def anyio_backend(jumping_loop: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Let time pass at once."""
    return jumping_loop


@pytest.fixture
def clock() -> ManualClock:
    """Stand still until a test says otherwise."""
    return ManualClock()


@pytest.fixture
def storage(clock: Clock) -> MemoryObjectStorage:
    """Keep objects in memory."""
    return MemoryObjectStorage("https://edge.test", clock)


@pytest.fixture
def database(clock: Clock) -> MemoryDatabase:
    """Keep credits and tasks in memory; every user begins with 100 credits."""
    return MemoryDatabase(clock)


@pytest.fixture
def authenticator(clock: Clock) -> MemoryAuthenticator:
    """Know the tokens that it issued."""
    return MemoryAuthenticator(clock)


@pytest.fixture
def gateway(
    clock: Clock,
    storage: MemoryObjectStorage,
    database: MemoryDatabase,
    authenticator: MemoryAuthenticator,
) -> Gateway:
    """Hold the ports together; tests replace what they need to."""
    return IdleGateway(
        authenticator=authenticator,
        storage=storage,
        database=database,
        backend=ThresholdBackend(storage),
        rate_limiter=MemoryRateLimiter(clock),
        clock=clock,
    )


@pytest.fixture
def web(gateway: Gateway, storage: MemoryObjectStorage) -> WebApp:
    """Serve the API and the storage's own URLs."""
    return WebApp(gateway, extra_routes=storage.routes())


@pytest.fixture
def alice() -> User:
    """Name a user on the free tier."""
    return User(UUID("a11ce000-0000-4000-8000-000000000001"))


@pytest.fixture
def bob() -> User:
    """Name another user on the free tier."""
    return User(UUID("b0b00000-0000-4000-8000-000000000002"))


@pytest.fixture
def token_of(authenticator: MemoryAuthenticator) -> Callable[[User], str]:
    """Issue tokens that outlive any test."""

    def token_of(user: User) -> str:
        return authenticator.issue(user, 10**9)

    return token_of


@pytest.fixture
def send(
    web: WebApp, alice: User, token_of: Callable[[User], str]
) -> Callable[..., Awaitable[Response]]:
    """
    Call the application: ``send(method, target, ...)``.

    ``user`` asks, Alice when nothing is said and nobody for ``None``; ``json`` is sent as such, ``body``
    as it is, bytes or an iterator of chunks.
    """

    async def send(
        method: str,
        target: str,
        *,
        user: User | None = alice,
        headers: dict[str, str] | None = None,
        json: Any = ...,
        body: bytes | AsyncIterator[bytes] = b"",
        app: WebApp = web,
        peer: str | None = "192.0.2.7",
    ) -> Response:
        path, _, query = target.partition("?")
        routes, path_params = _match(app, path)
        sent = {} if user is None else {"authorization": f"Bearer {token_of(user)}"}
        content = body if json is ... else _json(json)
        request = Request(
            method=method,
            path=path,
            query=query,
            headers=sent | (headers or {}),
            body=_chunks(content) if isinstance(content, bytes) else content,
            path_params=path_params,
            peer=peer,
        )
        async with app.response_to(request, routes) as response:
            return response

    return send


def _match(app: WebApp, path: str) -> tuple[PathRoutes | None, dict[str, str]]:
    """Find a path's routes, as a door does."""
    for routes in app.paths:
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", routes.path)
        pattern = re.sub(r"\{(\w+):path\}", r"(?P<\1>.*)", pattern)
        match = re.fullmatch(pattern, path)
        if match is not None:
            return routes, match.groupdict()
    return None, {}


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    if content:
        yield content


@pytest.fixture
def data_of() -> Callable[..., dict[str, Any]]:
    """Check a success and its envelope, and return its data: ``data_of(response, status=200)``."""

    def data_of(response: Response, status: int = 200) -> dict[str, Any]:
        body = _envelope(response)
        assert (response.status, body["success"], body["error"]) == (status, True, None)
        assert isinstance(body["data"], dict)
        return body["data"]

    return data_of


@pytest.fixture
def error_of() -> Callable[..., dict[str, Any]]:
    """Check a refusal and its envelope, and return its error: ``error_of(response, status, code)``."""

    def error_of(response: Response, status: int, code: str) -> dict[str, Any]:
        body = _envelope(response)
        assert (response.status, body["success"], body["data"]) == (status, False, None), body
        error = body["error"]
        assert error["code"] == code
        assert set(error) in ({"code", "message"}, {"code", "message", "details"})
        assert error["message"]
        for detail in error.get("details", ()):
            assert set(detail) == {"field", "message"}
        return dict(error)

    return error_of


def _envelope(response: Response) -> dict[str, Any]:
    """Check what every answer of the API has in common."""
    assert isinstance(response.body, bytes)
    body: dict[str, Any] = json.loads(response.body)
    assert set(body) == {"success", "data", "error", "meta"}
    assert set(body["meta"]) == {"request_id", "timestamp"}
    headers = dict(response.headers)
    assert len(headers) == len(response.headers)
    assert UUID(body["meta"]["request_id"]) == UUID(headers["x-request-id"])
    assert re.fullmatch(r"2026-01-0\dT[0-9:.]+Z", body["meta"]["timestamp"])
    assert set(JSON_HEADERS) <= set(response.headers)
    return body


@pytest.fixture
def image_of(storage: MemoryObjectStorage) -> Callable[..., Awaitable[UUID]]:
    """Put an image into storage, as an upload does: ``image_of(user)`` returns its id."""

    async def image_of(user: User) -> UUID:
        image_id = uuid4()
        key = upload_key(user.user_id, image_id)
        await storage.put(key, _chunks(PNG), content_type="image/png")
        return image_id

    return image_of


@pytest.fixture
def task_of(
    database: MemoryDatabase, storage: MemoryObjectStorage
) -> Callable[..., Awaitable[Task]]:
    """Record a paid task that nobody runs: ``task_of(user, project_id=None)``."""

    async def task_of(user: User, project_id: UUID | None = None) -> Task:
        url = unsigned(storage.url_for(upload_key(user.user_id, uuid4())))
        new = NewTask(uuid4(), url, "a cat", project_id=project_id)
        return (await database.reserve_task(user, new)).task

    return task_of


@pytest.fixture
def credits_of(database: MemoryDatabase) -> Callable[[User], Awaitable[int]]:
    """Return a user's balance."""

    async def credits_of(user: User) -> int:
        return (await database.profile(user)).credits

    return credits_of
