"""What is easily done wrong is refused in words that say what to do, before anything is sent."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette

from s3edge.client import AsyncClient, AuthRequired, Client, ConfigurationError
from s3edge.client.session import FROM_ENVIRONMENT
from s3edge.testing.scripted_api import BASE_URL, ScriptedApi, ok
from tests.e2e.colours import COLOURS, AnyClient, done, refused


pytestmark = pytest.mark.anyio

ME = {"user_id": "6b6f2c1e-1111-4111-8111-111111111111", "tier": "pro", "credits": 7}

NewClient = Callable[..., AnyClient]


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
