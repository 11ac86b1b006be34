"""An API that answers what a test says, for tests of the SDK and of code that uses it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import httpx
import msgspec
from attrs import define, field

from s3edge.client import AsyncClient, Client
from s3edge.testing.clock import ManualClock


BASE_URL = "http://api.test"
REQUEST_ID = "00000000-0000-4000-8000-0000000000aa"

Answer: TypeAlias = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


def ok(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """Return a success in the API's envelope."""
    body = {"success": True, "data": data, "error": None, "meta": {"request_id": REQUEST_ID}}
    return _response(status, body, headers)


def refused(
    status: int,
    code: str,
    headers: Mapping[str, str] | None = None,
    details: Sequence[Mapping[str, str]] = (),
) -> httpx.Response:
    """Return an error in the API's envelope."""
    error = {"code": code, "message": f"Because of {code}.", "details": list(details)}
    body = {"success": False, "data": None, "error": error, "meta": {"request_id": REQUEST_ID}}
    return _response(status, body, headers)


def _response(status: int, body: Any, headers: Mapping[str, str] | None) -> httpx.Response:
    return httpx.Response(
        status,
        headers={"X-Request-Id": REQUEST_ID, **(headers or {})},
        content=msgspec.json.encode(body),
    )


@define
class ScriptedApi:
    """
    Answers requests in the order that a test gives, and keeps them.

    Attributes:
        time: The clients' machine.
        answers: What comes next: a response, an error of the network, or a function of the request.
        requests: What came in.
    """

    time: ManualClock = field(factory=ManualClock)
    answers: list[Answer] = field(factory=list)
    requests: list[httpx.Request] = field(factory=list)

    def answer(self, *answers: Answer) -> None:
        """Add to what comes next."""
        self.answers.extend(answers)

    def client(self, **options: Any) -> Client:
        """Return a ``Client`` of this API's."""
        return Client(**self._options(options))

    def async_client(self, **options: Any) -> AsyncClient:
        """Return an ``AsyncClient`` of this API's."""
        return AsyncClient(**self._options(options))

    def _options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "base_url": BASE_URL,
            "token": "a-token",
            "transport": httpx.MockTransport(self._handle),
            "surroundings": self.time.surroundings(),
            **given,
        }

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if not self.answers:
            message = f"the test says nothing of {request.method} {request.url.path}"
            raise AssertionError(message)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else answer(request)
