"""Every answer comes in the envelope, is named, and hides what is inside."""

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from s3edge.errors import Code, EdgeError, unavailable
from s3edge.gateway import Gateway
from s3edge.memory import MemoryDatabase
from s3edge.ports import Clock
from s3edge.values import Profile, User
from s3edge.web.app import REQUEST_ID
from s3edge.web.http import Response


pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[Response]]
Check = Callable[..., dict[str, Any]]

GIVEN = "1b4e28ba-2fa1-4d2a-883f-0016d3cca427"


class FailingDatabase(MemoryDatabase):
    """Raises one error whenever a profile is read."""

    def __init__(self, clock: Clock, error: Exception) -> None:
        super().__init__(clock)
        self._error = error

    async def profile(self, user: User) -> Profile:
        """Implement ``Database``."""
        raise self._error


class ListeningDatabase(MemoryDatabase):
    """Notes under which request id it was called, and logs a line."""

    request_id = ""

    async def profile(self, user: User) -> Profile:
        """Implement ``Database``."""
        self.request_id = REQUEST_ID.get()
        return await super().profile(user)


async def test_a_success_comes_in_the_envelope(send: Send, data_of: Check) -> None:
    """``success``, ``data``, a null ``error`` and ``meta``."""
    data = data_of(await send("GET", "/health", user=None))

    assert data["status"] == "ok"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api",
        "/api/v1",
        "/api/v1/upload/",
        "/api/v1/tasks",
        "/api/v1/tasks/",
        "/api/v1/tasks/a/b",
        "/api/v2/me",
        "/HEALTH",
        "/health/",
        "//health",
        "/.env",
        "/../etc/passwd",
        "/\x00",
        "/\ud800",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "BREW"])
async def test_an_unknown_path_is_not_found(
    send: Send, error_of: Check, method: str, path: str
) -> None:
    """404 comes in the envelope too, whatever the method and with or without a token."""
    error_of(await send(method, path), 404, "NOT_FOUND")
    error_of(await send(method, path, user=None), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/health", "GET, HEAD"),
        ("/health/ready", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
        ("/api/v1/upload", "POST"),
        ("/api/v1/segment", "POST"),
        (f"/api/v1/tasks/{GIVEN}", "GET, HEAD"),
        ("/api/v1/results", "GET, HEAD"),
        (f"/api/v1/results/{GIVEN}", "GET, HEAD"),
        ("/api/v1/me", "GET, HEAD"),
        ("/media/x", "GET, HEAD"),
    ],
)
@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH", "TRACE", "BREW", "get", "", "É"])
async def test_an_unknown_method_is_told_what_is_allowed(
    send: Send, error_of: Check, path: str, allow: str, method: str
) -> None:
    """405 comes in the envelope with ``Allow``, before anything is asked of the client."""
    response = await send(method, path, user=None)

    error_of(response, 405, "METHOD_NOT_ALLOWED")
    assert dict(response.headers)["allow"] == allow


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/api/v1/upload"), ("GET", "/api/v1/segment"), ("POST", "/health")]
)
async def test_a_method_of_another_path_is_not_allowed(
    send: Send, error_of: Check, method: str, path: str
) -> None:
    """Each path has methods of its own."""
    error_of(await send(method, path), 405, "METHOD_NOT_ALLOWED")


async def test_head_is_answered_as_get(send: Send, data_of: Check) -> None:
    """HEAD has the status and headers of GET; the door leaves the body out."""
    get, head = await send("GET", "/health"), await send("HEAD", "/health")

    data_of(head)
    assert [name for name, _ in head.headers] == [name for name, _ in get.headers]


@pytest.mark.parametrize("path", ["/health", "/api/v1/me", "/nowhere"])
async def test_a_request_id_that_is_a_uuid_is_kept(send: Send, path: str) -> None:
    """The client's own id names the request in body and header, on errors too."""
    response = await send("GET", path, headers={"x-request-id": GIVEN})

    assert isinstance(response.body, bytes)
    assert json.loads(response.body)["meta"]["request_id"] == GIVEN
    assert dict(response.headers)["x-request-id"] == GIVEN


@pytest.mark.parametrize(
    "given",
    ["", "1", "hello", GIVEN[:-1], GIVEN + "\n", f"{GIVEN}, {GIVEN}", "\x00", "é", "x" * 100_000],
)
async def test_another_request_id_is_replaced(send: Send, data_of: Check, given: str) -> None:
    """What is no UUID does not get into the logs; a fresh id stands in for it."""
    response = await send("GET", "/health", headers={"x-request-id": given})

    data_of(response)
    assert UUID(dict(response.headers)["x-request-id"]).version == 4


async def test_each_request_has_an_id_of_its_own(send: Send) -> None:
    """Two requests without an id get two."""
    first, second = [dict((await send("GET", "/health")).headers) for _ in range(2)]

    assert first["x-request-id"] != second["x-request-id"]


async def test_the_request_id_is_known_throughout_the_request(
    send: Send, gateway: Gateway, clock: Clock, data_of: Check
) -> None:
    """Whatever is logged while a request is served can be named by its id, and nothing after it."""
    database = ListeningDatabase(clock)
    gateway.database = database

    data_of(await send("GET", "/api/v1/me", headers={"x-request-id": GIVEN}))

    assert database.request_id == GIVEN
    assert REQUEST_ID.get() == "-"


async def test_the_access_log_leaves_the_query_out(
    send: Send, caplog: pytest.LogCaptureFixture
) -> None:
    """One line tells method, path and status; a signature in the query is nobody's business."""
    caplog.set_level(logging.INFO, "s3edge.access")

    await send("GET", "/nowhere?signature=hunter2")

    (line,) = [record for record in caplog.records if record.name == "s3edge.access"]
    assert line.getMessage().startswith("GET (unknown path) 404")
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        (f"/api/v1/tasks/{GIVEN}", f"GET /api/v1/tasks/{GIVEN} 404"),
        ("/api/v1/tasks/eyJhbGciOi.hunter2", "GET /api/v1/tasks/{id} 404"),
        ("/media/eyJhbGciOi.hunter2", "GET /media/{key:path} 404"),
        ("/eyJhbGciOi.hunter2", "GET (unknown path) 404"),
    ],
)
async def test_the_access_log_shows_of_a_path_what_is_known(
    send: Send, caplog: pytest.LogCaptureFixture, target: str, shown: str
) -> None:
    """A token that a client puts into a path by mistake is not kept; the id of a task is."""
    caplog.set_level(logging.INFO, "s3edge.access")

    await send("GET", target)

    (line,) = [record for record in caplog.records if record.name == "s3edge.access"]
    assert line.getMessage().startswith(shown)
    assert "hunter2" not in caplog.text


async def test_the_access_log_shows_no_method_of_the_clients_making(
    send: Send, caplog: pytest.LogCaptureFixture
) -> None:
    """Some servers pass on any word as a method."""
    caplog.set_level(logging.INFO, "s3edge.access")

    await send("hunter2", "/api/v1/me")

    (line,) = [record for record in caplog.records if record.name == "s3edge.access"]
    assert line.getMessage().startswith("(unknown method) /api/v1/me 405")


async def test_an_unforeseen_error_hides_its_internals(
    send: Send,
    gateway: Gateway,
    clock: Clock,
    error_of: Check,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The client gets a request id to quote; the log has the trace."""
    gateway.database = FailingDatabase(clock, RuntimeError("postgres://root:hunter2@db/"))

    response = await send("GET", "/api/v1/me", headers={"x-request-id": GIVEN})

    error = error_of(response, 500, "INTERNAL_ERROR")
    assert isinstance(response.body, bytes)
    assert GIVEN in error["message"]
    for secret in (b"hunter2", b"postgres", b"RuntimeError", b"Traceback"):
        assert secret not in response.body
    assert "hunter2" in caplog.text
    assert "Traceback" in caplog.text


async def test_a_dependency_that_is_down_says_when_to_come_back(
    send: Send, gateway: Gateway, clock: Clock, error_of: Check
) -> None:
    """503 carries ``Retry-After``."""
    gateway.database = FailingDatabase(clock, unavailable("The database is down.", retry_after_s=7))

    response = await send("GET", "/api/v1/me")

    error_of(response, 503, "SERVICE_UNAVAILABLE")
    assert dict(response.headers)["retry-after"] == "7"


STATUSES = {
    Code.AUTH_REQUIRED: 401,
    Code.AUTH_INVALID: 401,
    Code.FORBIDDEN: 403,
    Code.NOT_FOUND: 404,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.INVALID_REQUEST: 400,
    Code.FILE_TOO_LARGE: 413,
    Code.PAYLOAD_TOO_LARGE: 413,
    Code.INSUFFICIENT_CREDITS: 402,
    Code.IDEMPOTENCY_KEY_REUSED: 422,
    Code.RATE_LIMITED: 429,
    Code.MODEL_NOT_LOADED: 503,
    Code.INFERENCE_FAILED: 500,
    Code.SERVICE_UNAVAILABLE: 503,
    Code.INTERNAL_ERROR: 500,
}


@pytest.mark.parametrize("code", list(Code))
async def test_every_code_has_the_contracts_status(
    send: Send, gateway: Gateway, clock: Clock, error_of: Check, code: Code
) -> None:
    """The codes and their statuses are the wire contract's table."""
    gateway.database = FailingDatabase(clock, EdgeError(code, "Said so."))

    response = await send("GET", "/api/v1/me")

    error_of(response, STATUSES[code], code.value)
    assert ("retry-after" in dict(response.headers)) == (STATUSES[code] in (429, 503))
