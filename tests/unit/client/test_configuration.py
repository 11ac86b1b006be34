"""Where the server is and who asks, by keyword or environment; the token stays at home."""

import asyncio
from typing import Any

import httpx
import pytest

from s3edge.client import (
    AuthInvalid,
    AuthRequired,
    Client,
    ConfigurationError,
    Timeout,
    UnreadableAnswer,
)
from s3edge.client.session import FROM_ENVIRONMENT, FromEnvironment
from s3edge.testing.scripted_api import BASE_URL, ScriptedApi, ok, refused


ME = {"user_id": "6b6f2c1e-1111-4111-8111-111111111111", "tier": "pro", "credits": 7}

pytestmark = pytest.mark.anyio


def tokens_of(api: ScriptedApi) -> list[str | None]:
    """Return the token of each request."""
    return [request.headers.get("Authorization") for request in api.requests]


def test_the_environment_says_what_was_not_given(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Address and token come from S3EDGE_BASE_URL and S3EDGE_TOKEN; keywords win."""
    monkeypatch.setenv("S3EDGE_BASE_URL", "http://of-the-environment.test/prefix/")
    monkeypatch.setenv("S3EDGE_TOKEN", "of-the-environment")
    api.answer(ok(ME), ok(ME))
    api.client(base_url=FROM_ENVIRONMENT, token=FROM_ENVIRONMENT).me()
    api.client(token="given").me()
    assert [str(request.url) for request in api.requests] == [
        "http://of-the-environment.test/prefix/api/v1/me",
        BASE_URL + "/api/v1/me",
    ]
    assert tokens_of(api) == ["Bearer of-the-environment", "Bearer given"]


@pytest.mark.parametrize(
    ("base_url", "says"),
    [
        (FROM_ENVIRONMENT, "S3EDGE_BASE_URL"),
        ("localhost:8787", "http://"),
        ("ftp://files.test", "http://"),
        ("http://user:secret@api.test", "without user"),
        ("http://api.test:port", "port"),
        ("http://api.test/s3edge/api/v1/", "without /api/v1"),
    ],
)
def test_an_address_that_is_none_is_refused(base_url: str | FromEnvironment, says: str) -> None:
    """The message says what to change, and shows no password."""
    with pytest.raises(ConfigurationError, match=says) as refusal:
        Client(base_url=base_url)
    assert "secret" not in str(refusal.value)


def test_without_a_token_nothing_is_sent(api: ScriptedApi) -> None:
    """What needs a token says so at once; what needs none works."""
    client = api.client(token=None)
    with pytest.raises(AuthRequired, match="S3EDGE_TOKEN"):
        client.me()
    api.answer(ok({"status": "ok", "timestamp": "2026-01-01T00:00:00Z"}))
    assert client.health().status == "ok"
    assert tokens_of(api) == [None]


def test_a_refused_token_is_renewed_once(api: ScriptedApi) -> None:
    """A function is called at first use and again on a 401; a second 401 is raised."""
    tokens = iter(["first", "second", "third"])
    client = api.client(token=lambda: next(tokens))
    api.answer(ok(ME), refused(401, "AUTH_INVALID"), ok(ME))
    client.me()
    client.me()
    assert tokens_of(api) == ["Bearer first", "Bearer first", "Bearer second"]
    api.answer(refused(401, "AUTH_INVALID"), refused(401, "AUTH_INVALID"))
    with pytest.raises(AuthInvalid):
        client.me()
    assert tokens_of(api)[3:] == ["Bearer second", "Bearer third"]
    assert api.time.pauses == []


def test_a_fixed_token_is_not_tried_again(api: ScriptedApi) -> None:
    """There is no other one."""
    api.answer(refused(401, "AUTH_INVALID"))
    with pytest.raises(AuthInvalid):
        api.client().me()
    assert len(api.requests) == 1


def test_a_token_may_come_from_a_file(api: ScriptedApi) -> None:
    """With the end of the line that it stands on."""
    api.answer(ok(ME), ok(ME))
    api.client(token=" from-a-file\r\n").me()
    api.client(token=lambda: "from-a-file\n").me()
    assert tokens_of(api) == ["Bearer from-a-file"] * 2


async def test_a_token_may_be_awaited(api: ScriptedApi) -> None:
    """A coroutine function works in both clients."""

    async def token() -> str:
        await asyncio.sleep(0)
        return "awaited"

    api.answer(ok(ME), ok(ME))
    async with api.async_client(token=token) as client:
        await client.me()
    await asyncio.to_thread(lambda: api.client(token=token).me())
    assert tokens_of(api) == ["Bearer awaited"] * 2


@pytest.mark.parametrize(
    "url",
    [
        "http://elsewhere.test/api/v1/me",
        "https://api.test/api/v1/me",
        "http://api.test:8080/api/v1/me",
        "http://api.test.elsewhere.test/api/v1/me",
    ],
)
def test_the_token_goes_to_no_other_origin(api: ScriptedApi, url: str) -> None:
    """Another scheme, host or port is another origin; own headers do not go there either."""
    api.answer(ok({}), ok({}))
    client = api.client(headers={"X-Secret": "s"})
    client.request("GET", url, idempotency_key="k")
    client.request("GET", BASE_URL + ":80/api/v1/me")
    assert tokens_of(api) == [None, "Bearer a-token"]
    assert "X-Secret" not in api.requests[0].headers
    assert "Idempotency-Key" not in api.requests[0].headers


def test_a_redirect_is_not_followed_with_a_token(api: ScriptedApi) -> None:
    """The message says to change the address."""
    api.answer(httpx.Response(307, headers={"Location": "http://elsewhere.test/"}))
    with pytest.raises(UnreadableAnswer, match="base_url"):
        api.client().me()
    assert len(api.requests) == 1


def test_options_are_changed_for_some_calls(api: ScriptedApi) -> None:
    """``with_options`` shares connections and token, changes the rest, and closes nothing."""
    api.answer(ok(ME), refused(503, "SERVICE_UNAVAILABLE"), ok(ME))
    client = api.client(headers={"X-App": "mine"}, timeout=Timeout(connect=1, read=2, total=3))
    other = client.with_options(max_retries=0, headers={"X-Call": "this"}, timeout=50)
    with other:
        other.me()
        with pytest.raises(Exception, match="SERVICE_UNAVAILABLE"):
            other.me()
    client.me()
    assert [request.headers.get("X-Call") for request in api.requests] == ["this", "this", None]
    assert {request.headers["X-App"] for request in api.requests} == {"mine"}
    patience = [request.extensions["timeout"] for request in api.requests]
    assert [each["read"] for each in patience] == [50, 50, 2]
    assert [each["connect"] for each in patience] == [5, 5, 1]


@pytest.mark.parametrize(
    "given",
    [{"token": "s3cret\ns3cret"}, {"token": "ключ"}, {"headers": {"X": "a\r\nY: s3cret"}}],
)
def test_what_no_header_can_carry_is_refused(api: ScriptedApi, given: dict[str, Any]) -> None:
    """It says so, and is not shown."""
    with pytest.raises(ConfigurationError, match="printable ASCII") as refusal:
        api.client(**given).me()
    assert "s3cret" not in str(refusal.value)
    assert api.requests == []


def test_a_path_may_name_a_url(api: ScriptedApi) -> None:
    """Only what begins as a URL is one; what is none is refused."""
    api.answer(ok({}))
    client = api.client()
    client.request("GET", "/api/v1/x?of=http://elsewhere.test/")
    assert api.requests[0].url.host == "api.test"
    assert tokens_of(api) == ["Bearer a-token"]
    with pytest.raises(ConfigurationError, match="URL"):
        client.request("GET", "http://api.test:port/")
