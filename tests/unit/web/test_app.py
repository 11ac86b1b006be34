"""The rest of the application: the account, the document, signed media and the table of routes."""

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from s3edge.gateway import NOT_RUNNING, Gateway
from s3edge.memory import MemoryDatabase, MemoryObjectStorage
from s3edge.rules.keys import upload_key
from s3edge.testing.clock import ManualClock
from s3edge.testing.deployment import memory_deployment
from s3edge.values import Tier, User
from s3edge.web.app import WebApp
from s3edge.web.http import Call, Reply, Response, Route
from s3edge.web.messages import Health


pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[Response]]
Check = Callable[..., dict[str, Any]]
MakeImage = Callable[[User], Awaitable[UUID]]


async def content_of(response: Response) -> bytes:
    """Return a whole body."""
    if isinstance(response.body, bytes):
        return response.body
    return b"".join([chunk async for chunk in response.body])


async def test_me_tells_what_one_has_and_may_do(
    send: Send, data_of: Check, alice: User, database: MemoryDatabase
) -> None:
    """Id, tier, balance and limits."""
    await database.grant_credits(alice.user_id, 5)

    data = data_of(await send("GET", "/api/v1/me", user=User(alice.user_id, Tier.PRO)))

    assert data == {
        "user_id": str(alice.user_id),
        "tier": "pro",
        "credits": 105,
        "rate_limits": {
            "upload": {"limit": 100, "window_s": 60},
            "segment": {"limit": 100, "window_s": 60},
            "read": {"limit": 600, "window_s": 60},
        },
    }


async def test_the_document_is_plain_json(send: Send, gateway: Gateway) -> None:
    """OpenAPI 3.1 without the envelope, the same on every request."""
    first, second = [await send("GET", "/openapi.json", user=None) for _ in range(2)]

    assert isinstance(first.body, bytes)
    document = json.loads(first.body)
    assert document["openapi"].startswith("3.1.")
    assert first.body == second.body
    assert set(document["paths"]) == {
        path.path for path in WebApp(gateway).paths if path.path != "/openapi.json"
    }


async def test_every_reference_of_the_document_leads_somewhere(send: Send) -> None:
    """A generator of clients finds every schema that is named."""
    response = await send("GET", "/openapi.json", user=None)
    assert isinstance(response.body, bytes)
    document = json.loads(response.body)

    names = set(re.findall(rb'"#/components/schemas/([^"]+)"', response.body))

    assert names
    assert {name.decode() for name in names} <= set(document["components"]["schemas"])


async def test_media_is_served_by_signed_urls(
    send: Send, storage: MemoryObjectStorage, image_of: MakeImage, alice: User
) -> None:
    """The URL alone is enough; what is served is shown as an image or not at all."""
    url = storage.url_for(upload_key(alice.user_id, await image_of(alice)))

    response = await send("GET", url.removeprefix("https://edge.test"), user=None)

    content = await content_of(response)
    headers = dict(response.headers)
    assert response.status == 200
    assert content.startswith(b"\x89PNG")
    assert headers["content-type"] == "image/png"
    assert headers["content-length"] == str(len(content))
    assert headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in headers["content-security-policy"]
    assert headers["cache-control"].startswith("private, max-age=")


async def test_head_of_media_has_no_body(
    send: Send, storage: MemoryObjectStorage, image_of: MakeImage, alice: User
) -> None:
    """HEAD tells the length without opening the object."""
    url = storage.url_for(upload_key(alice.user_id, await image_of(alice)))

    response = await send("HEAD", url.removeprefix("https://edge.test"), user=None)

    assert (response.status, response.body) == (200, b"")
    assert int(dict(response.headers)["content-length"]) > 0


@pytest.mark.parametrize(
    "change",
    [
        lambda url: url.partition("?")[0],
        lambda url: url + "0",
        lambda url: url.replace("signature=", "signature=0"),
        lambda url: re.sub("expires=[0-9]+", "expires=99999999999", url),
        lambda url: re.sub("expires=[0-9]+", "expires=", url),
        lambda url: re.sub("expires=[0-9]+", "expires=%ff", url),
        lambda url: re.sub("signature=.*", "signature=%ff%fe", url),
        lambda url: re.sub("signature=.*", "signature=é", url),
        lambda url: url.replace("/uploads/", "/uploads/../uploads/"),
        lambda url: url.replace("/uploads/", "/masks/"),
        lambda url: url.replace("?", "x?"),
        lambda url: re.sub("/media/[^?]*", "/media/", url),
        lambda url: re.sub("/media/[^?]*", "/media/../../etc/passwd", url),
        lambda url: re.sub("/media/[^?]*", "/media/\ud800", url),
    ],
)
async def test_media_without_a_good_signature_is_not_found(
    send: Send,
    error_of: Check,
    storage: MemoryObjectStorage,
    image_of: MakeImage,
    alice: User,
    change: Callable[[str], str],
) -> None:
    """A URL that was changed in any way leads nowhere, in the same words as an absent object."""
    url = storage.url_for(upload_key(alice.user_id, await image_of(alice)))
    absent = storage.url_for("uploads/nobody/nothing")

    errors = [
        error_of(await send("GET", target.removeprefix("https://edge.test")), 404, "NOT_FOUND")
        for target in (change(url), absent)
    ]

    assert errors[0] == errors[1]


async def test_a_media_url_expires(
    send: Send,
    error_of: Check,
    storage: MemoryObjectStorage,
    image_of: MakeImage,
    alice: User,
    clock: ManualClock,
) -> None:
    """After about an hour a URL is worth nothing, and a fresh list has a fresh one."""
    key = upload_key(alice.user_id, await image_of(alice))
    target = storage.url_for(key).removeprefix("https://edge.test")

    clock.advance(3600)
    assert (await send("GET", target, user=None)).status == 200
    clock.advance(300)
    error_of(await send("GET", target, user=None), 404, "NOT_FOUND")
    fresh = storage.url_for(key).removeprefix("https://edge.test")
    assert (await send("GET", fresh, user=None)).status == 200


async def greet(call: Call) -> Reply:
    """Answer like ``/health``."""
    return Reply(Health("ok", call.gateway.clock.now(), "1"))


async def greet_by_name(call: Call) -> Reply:
    """Ask for the user, which its route does not authenticate."""
    return Reply(Health("ok", call.gateway.clock.now(), str(call.user.user_id)))


async def test_adapters_may_add_routes(send: Send, data_of: Check, gateway: Gateway) -> None:
    """A further route is served like those of the API."""
    web = WebApp(gateway, extra_routes=[Route("GET", "/extra", greet, "extra")])

    data_of(await send("GET", "/extra", app=web, user=None))


def test_two_routes_for_one_method_are_refused(gateway: Gateway) -> None:
    """An adapter cannot take over a route of the API by accident."""
    with pytest.raises(ValueError, match="GET /health"):
        WebApp(gateway, extra_routes=[Route("GET", "/health", greet, "extra")])


async def test_a_route_without_authentication_has_no_user(
    send: Send, error_of: Check, gateway: Gateway
) -> None:
    """A handler that asks for the user where nobody was asked for a token fails safely."""
    web = WebApp(gateway, extra_routes=[Route("GET", "/extra", greet_by_name, "extra")])

    error_of(await send("GET", "/extra", app=web), 500, "INTERNAL_ERROR")


async def test_who_forgot_the_lifespan_is_told_so(
    send: Send, error_of: Check, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """All but ``/health`` says 503 before it does anything; the log says once what to do."""
    deployment = memory_deployment("https://edge.test", clock=clock)
    for method, path in (
        ("GET", "/api/v1/me"),
        ("POST", "/api/v1/upload"),
        ("GET", "/health/ready"),
    ):
        refused = await send(method, path, app=deployment.web)
        error = error_of(refused, 503, "SERVICE_UNAVAILABLE")
        assert error["message"].startswith("The gateway is not running")
    assert (await send("GET", "/health", app=deployment.web)).status == 200
    assert [line for line in caplog.messages if "not running" in line] == [NOT_RUNNING]
    async with deployment.gateway.running():
        answer = await send("GET", "/api/v1/me", app=deployment.web, user=None)
        error_of(answer, 401, "AUTH_REQUIRED")
