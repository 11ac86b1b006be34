"""Who may call what."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from s3edge.errors import Code, EdgeError, unavailable
from s3edge.gateway import Gateway
from s3edge.memory import MemoryAuthenticator
from s3edge.testing.clock import ManualClock
from s3edge.values import User
from s3edge.web.http import Response


pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[Response]]
Check = Callable[..., dict[str, Any]]

PROTECTED = [
    ("POST", "/api/v1/upload"),
    ("POST", "/api/v1/segment"),
    ("GET", "/api/v1/tasks/1b4e28ba-2fa1-4d2a-883f-0016d3cca427"),
    ("GET", "/api/v1/tasks/not-a-uuid"),
    ("GET", "/api/v1/results"),
    ("GET", "/api/v1/results/1b4e28ba-2fa1-4d2a-883f-0016d3cca427"),
    ("GET", "/api/v1/me"),
    ("HEAD", "/api/v1/me"),
]


class Refusing:
    """An authenticator that raises one error for every token."""

    def __init__(self, error: EdgeError) -> None:
        self._error = error

    async def authenticate(self, token: str) -> User:
        """Implement ``Authenticator``."""
        raise self._error

    async def check(self) -> None:
        """Implement ``Checked``."""


@pytest.mark.parametrize(("method", "path"), PROTECTED)
async def test_everything_of_the_api_wants_a_token(
    send: Send, error_of: Check, method: str, path: str
) -> None:
    """Without a bearer token nothing under ``/api/v1`` is answered, and the challenge says how."""
    response = await send(method, path, user=None)

    error_of(response, 401, "AUTH_REQUIRED")
    assert dict(response.headers)["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path"), PROTECTED)
async def test_everything_of_the_api_wants_a_good_token(
    send: Send, error_of: Check, method: str, path: str
) -> None:
    """A token that proves nothing is told so."""
    response = await send(method, path, user=None, headers={"authorization": "Bearer nonsense"})

    error_of(response, 401, "AUTH_INVALID")
    assert dict(response.headers)["www-authenticate"] == 'Bearer error="invalid_token"'


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/openapi.json"])
async def test_health_and_the_document_want_no_token(send: Send, path: str) -> None:
    """Load balancers and readers of the document have no account."""
    assert (await send("GET", path, user=None)).status == 200


@pytest.mark.parametrize(
    "credentials",
    ["", " ", "Bearer", "bearer", "Basic YTpi", "Token abc", "Bearerabc", "abc", "\x00", "é", ", "],
)
async def test_another_scheme_is_no_token(send: Send, error_of: Check, credentials: str) -> None:
    """Credentials of another kind count as none."""
    response = await send("GET", "/api/v1/me", user=None, headers={"authorization": credentials})

    error_of(response, 401, "AUTH_REQUIRED")


@pytest.mark.parametrize(
    "token",
    ["", " ", "a b", "é", "\x00", "a,b", 'a"b', "a\nb", "x" * 100_000, "a.b.c", "=", "\ud800"],
)
async def test_a_malformed_token_is_invalid(send: Send, error_of: Check, token: str) -> None:
    """Whatever follows ``Bearer``, the answer is 401 and never an error of ours."""
    response = await send(
        "GET", "/api/v1/me", user=None, headers={"authorization": f"Bearer {token}"}
    )

    error_of(response, 401, "AUTH_INVALID")


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "Bearer   "])
async def test_the_schemes_name_is_read_in_any_case(
    send: Send, data_of: Check, alice: User, token_of: Callable[[User], str], scheme: str
) -> None:
    """Schemes are case-insensitive, and spaces behind them may be several."""
    response = await send(
        "GET", "/api/v1/me", user=None, headers={"authorization": scheme + token_of(alice) + " "}
    )

    assert data_of(response)["user_id"] == str(alice.user_id)


async def test_two_tokens_are_none(
    send: Send, error_of: Check, alice: User, bob: User, token_of: Callable[[User], str]
) -> None:
    """A repeated header is not read as either of its values."""
    joined = f"Bearer {token_of(alice)}, Bearer {token_of(bob)}"

    response = await send("GET", "/api/v1/me", user=None, headers={"authorization": joined})

    error_of(response, 401, "AUTH_INVALID")


async def test_an_expired_token_is_invalid(
    send: Send,
    error_of: Check,
    data_of: Check,
    alice: User,
    authenticator: MemoryAuthenticator,
    clock: ManualClock,
) -> None:
    """A token is good until its time and not a moment longer."""
    headers = {"authorization": f"Bearer {authenticator.issue(alice, 60)}"}

    clock.advance(59)
    data_of(await send("GET", "/api/v1/me", user=None, headers=headers))
    clock.advance(1)
    error_of(await send("GET", "/api/v1/me", user=None, headers=headers), 401, "AUTH_INVALID")


async def test_a_valid_token_without_the_right_is_forbidden(
    send: Send, gateway: Gateway, error_of: Check
) -> None:
    """403 has no challenge: another token of the same kind would not help."""
    gateway.authenticator = Refusing(EdgeError(Code.FORBIDDEN, "Sign in first."))

    response = await send("GET", "/api/v1/me")

    error_of(response, 403, "FORBIDDEN")
    assert "www-authenticate" not in dict(response.headers)


async def test_an_outage_of_the_keys_is_not_the_clients_fault(
    send: Send, gateway: Gateway, error_of: Check
) -> None:
    """When nobody can tell whether a token is good, the answer is 503 and not 401."""
    gateway.authenticator = Refusing(unavailable("The keys cannot be fetched."))

    response = await send("GET", "/api/v1/me")

    error_of(response, 503, "SERVICE_UNAVAILABLE")
    assert "www-authenticate" not in dict(response.headers)
