"""Browsers of other origins may call, if the operator lets them."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from s3edge.gateway import Gateway
from s3edge.web.app import WebApp
from s3edge.web.cors import CorsPolicy
from s3edge.web.http import Response


pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[Response]]
Check = Callable[..., dict[str, Any]]

ORIGIN = "https://app.example"
PREFLIGHT = {"origin": ORIGIN, "access-control-request-method": "POST"}


@pytest.fixture
def strict(gateway: Gateway) -> WebApp:
    """Let one origin call."""
    return WebApp(gateway, cors=CorsPolicy([ORIGIN, "http://localhost:3000"]))


async def test_any_origin_may_call_by_default(send: Send) -> None:
    """Tokens travel in a header, so a wildcard is safe; no credentials are allowed with it."""
    headers = dict((await send("GET", "/health", headers={"origin": ORIGIN})).headers)

    assert headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("DELETE", "/health", 405), ("GET", "/api/v1/me", 401)],
)
async def test_errors_can_be_read_by_browsers_too(
    send: Send, method: str, path: str, status: int
) -> None:
    """A page sees why it was refused, instead of a network error."""
    response = await send(method, path, user=None, headers={"origin": ORIGIN})

    assert response.status == status
    assert dict(response.headers)["access-control-allow-origin"] == "*"


async def test_a_page_may_read_the_headers_it_needs(send: Send) -> None:
    """What a client has to act on is exposed."""
    headers = dict((await send("GET", "/health", headers={"origin": ORIGIN})).headers)

    exposed = {name.strip().lower() for name in headers["access-control-expose-headers"].split(",")}
    assert exposed >= {
        "idempotent-replayed",
        "location",
        "ratelimit",
        "ratelimit-policy",
        "retry-after",
        "x-request-id",
    }


async def test_without_an_origin_nothing_is_said(send: Send) -> None:
    """Apps and servers get no CORS headers."""
    headers = dict((await send("GET", "/health")).headers)

    assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/api/v1/segment", "POST"),
        ("/api/v1/upload", "POST"),
        ("/api/v1/me", "GET, HEAD"),
    ],
)
async def test_a_preflight_is_answered_without_a_token(send: Send, path: str, methods: str) -> None:
    """Browsers ask before they send, without credentials, and may send what the API reads."""
    response = await send("OPTIONS", path, user=None, headers=PREFLIGHT)

    headers = dict(response.headers)
    assert (response.status, response.body) == (204, b"")
    assert headers["access-control-allow-origin"] == "*"
    assert headers["access-control-allow-methods"] == methods
    assert int(headers["access-control-max-age"]) > 0
    allowed = {name.strip().lower() for name in headers["access-control-allow-headers"].split(",")}
    assert allowed >= {"authorization", "content-type", "idempotency-key", "x-request-id"}


async def test_a_preflight_of_nothing_is_not_found(send: Send, error_of: Check) -> None:
    """There is nothing to allow at a path that does not exist."""
    error_of(await send("OPTIONS", "/nowhere", user=None, headers=PREFLIGHT), 404, "NOT_FOUND")


async def test_an_allowed_origin_is_named(send: Send, strict: WebApp) -> None:
    """With a list, the answer names the one origin that asked and varies by it."""
    response = await send("GET", "/health", app=strict, headers={"origin": ORIGIN})

    headers = dict(response.headers)
    assert headers["access-control-allow-origin"] == ORIGIN
    assert headers["vary"] == "Origin"


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://app.example.evil.example",
        "https://app.example:444",
        "http://app.example",
        "HTTPS://APP.EXAMPLE",
        "null",
        "*",
        "",
        f"{ORIGIN}, https://evil.example",
    ],
)
async def test_another_origin_is_not_let_in(send: Send, strict: WebApp, origin: str) -> None:
    """Near misses are refused, for the request as for the preflight, and caches are told."""
    for method, headers in (("GET", {}), ("OPTIONS", PREFLIGHT)):
        response = await send(method, "/health", app=strict, headers=headers | {"origin": origin})
        assert "access-control-allow-origin" not in dict(response.headers)
        assert dict(response.headers)["vary"] == "Origin"


async def test_answers_without_an_origin_vary_too(send: Send, strict: WebApp) -> None:
    """A cache must not hand the answer to an app to a page of any origin."""
    response = await send("GET", "/health", app=strict)

    assert dict(response.headers)["vary"] == "Origin"
