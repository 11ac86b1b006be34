"""Calls of PostgREST: what is repeated, what is not, and what is made of each answer."""

from collections import deque
from collections.abc import Mapping
from typing import Any

import anyio
import msgspec
import pytest

from s3edge.errors import Code, EdgeError
from s3edge_aiohttp import Answer, HttpClient, NoAnswerError
from s3edge_supabase.postgrest import BUDGET_S, MAX_ATTEMPTS, Postgrest, Refusal
from s3edge_supabase.refusals import error_of_service_call, error_of_user_call


pytestmark = pytest.mark.anyio

LOST = NoAnswerError("the database broke off", may_have_acted=True)
REFUSED = NoAnswerError("the database cannot be connected to", may_have_acted=False)


@pytest.fixture(scope="module")
def anyio_backend(jumping_loop: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Let time pass at once."""
    return jumping_loop


def json(
    status: int, content: Any, *, kind: str = "application/json; charset=utf-8", **headers: str
) -> Answer:
    """Return an answer of this content."""
    return Answer(status, {"content-type": kind, **headers}, msgspec.json.encode(content))


def refusal(status: int, code: str, message: str = "no", details: str | None = None) -> Answer:
    """Return one of PostgREST's errors."""
    error = {"code": code, "message": message, "details": details, "hint": None}
    return json(status, error)


class ScriptedHttp(HttpClient):
    """Gives one answer after the other, and goes on with the last."""

    def __init__(self, *script: Answer | Exception | None) -> None:
        super().__init__("the database")
        self._script = deque(script)
        self.sent: list[tuple[str, str, Mapping[str, str], bytes | None]] = []

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Give the next answer; ``None`` is silence for as long as is waited."""
        self.sent.append((method, url, headers or {}, body))
        step = self._script.popleft() if len(self._script) > 1 else self._script[0]
        if step is None:
            await anyio.sleep(timeout_s or 0)
            raise NoAnswerError("the database did not answer", may_have_acted=True)
        if isinstance(step, Exception):
            raise step
        return step


async def call(http: ScriptedHttp, *, repeatable: bool = True) -> Any:
    """Call a function."""
    return await Postgrest(http, "https://p").call("f", {"p_a": 1}, {}, repeatable=repeatable)


async def test_a_call_is_a_post_of_named_arguments() -> None:
    """Each argument goes by its name, and the result is the JSON that came back."""
    http = ScriptedHttp(json(200, {"a": [1]}))
    headers = {"apikey": "k", "Authorization": "Bearer t"}
    found = await Postgrest(http, "https://p").call("f", {"p_a": 1}, headers, repeatable=True)
    assert found == {"a": [1]}
    [(method, url, sent, body)] = http.sent
    assert (method, url, body) == ("POST", "https://p/rest/v1/rpc/f", b'{"p_a":1}')
    assert sent == headers | {"Accept": "application/json", "Content-Type": "application/json"}


async def test_nothing_returned_is_none() -> None:
    """A void function answers 204 without a body."""
    assert await call(ScriptedHttp(Answer(204, {}, b""))) is None


@pytest.mark.parametrize(
    "fault",
    [
        REFUSED,
        LOST,
        refusal(503, "PGRST000"),
        refusal(503, "PGRST001"),
        refusal(503, "PGRST002"),
        refusal(504, "PGRST003"),
        refusal(500, "40001"),
        refusal(500, "40P01"),
        refusal(401, "PGRST303", "JWT issued at future"),
        json(502, {"message": "An invalid response was received from the upstream server"}),
        Answer(503, {}, b""),
        Answer(200, {"content-type": "text/html"}, b"<html>"),
    ],
    ids=lambda fault: str(fault)[:60],
)
async def test_a_passing_fault_is_ridden_out(fault: Answer | Exception) -> None:
    """What is safe to repeat is repeated, and the user hears nothing of it."""
    http = ScriptedHttp(fault, json(200, 7))
    assert await call(http) == 7
    assert len(http.sent) == 2


@pytest.mark.parametrize("fault", [LOST, refusal(503, "PGRST001"), Answer(504, {}, b"")])
async def test_what_may_have_acted_is_not_repeated(fault: Answer | Exception) -> None:
    """Where twice would be twice as much, an outage is said to be one."""
    http = ScriptedHttp(fault, json(200, 7))
    with pytest.raises(EdgeError) as caught:
        await call(http, repeatable=False)
    assert caught.value.code is Code.SERVICE_UNAVAILABLE
    assert len(http.sent) == 1


@pytest.mark.parametrize("fault", [REFUSED, refusal(500, "40P01"), refusal(500, "57014")])
async def test_what_cannot_have_acted_is_repeated(fault: Answer | Exception) -> None:
    """A refused connection and a rolled back transaction left nothing."""
    http = ScriptedHttp(fault, json(200, 7))
    assert await call(http, repeatable=False) == 7


@pytest.mark.parametrize("fault", [REFUSED, LOST, Answer(500, {}, b""), None])
async def test_an_outage_is_said_in_time(fault: Answer | Exception | None) -> None:
    """However the database is down, the app hears of it within the budget, and not of why."""
    http = ScriptedHttp(fault)
    began = anyio.current_time()
    with pytest.raises(EdgeError) as caught:
        await call(http)
    assert (caught.value.code, caught.value.retryable) == (Code.SERVICE_UNAVAILABLE, True)
    assert anyio.current_time() - began <= BUDGET_S + 0.001
    assert len(http.sent) <= MAX_ATTEMPTS


@pytest.mark.parametrize(
    "answer",
    [
        refusal(401, "PGRST301", "JWT cryptographic operation failed"),
        refusal(401, "PGRST303", "JWT expired"),
        refusal(404, "PGRST202"),
        refusal(403, "42501"),
        refusal(402, "PT402"),
        json(401, {"message": "No API key found in request"}),
        Answer(401, {}, b""),
    ],
    ids=lambda answer: str(answer.status),
)
async def test_a_no_is_a_no(answer: Answer) -> None:
    """A refusal that will stay one is not asked for twice."""
    http = ScriptedHttp(answer)
    with pytest.raises(Refusal):
        await call(http)
    assert len(http.sent) == 1


async def test_rows_are_counted_when_asked() -> None:
    """The total is behind the slash; 206 is as good as 200."""
    http = ScriptedHttp(json(206, [{"id": 1}], **{"content-range": "0-0/37"}))
    found = await Postgrest(http, "https://p").rows("t?select=id", {}, counted=True)
    assert (found.rows, found.total) == ([{"id": 1}], 37)
    assert http.sent[0][2]["Prefer"] == "count=exact"
    uncounted = await Postgrest(http, "https://p").rows("t?select=id", {})
    assert uncounted.total is None
    assert "Prefer" not in http.sent[1][2]


async def test_a_page_beyond_the_end_is_empty() -> None:
    """PostgREST answers 416 and says how many there are."""
    answer = refusal(416, "PGRST103", "Requested range not satisfiable", "An offset of 100 ...")
    beyond = Answer(answer.status, {**answer.headers, "content-range": "*/15"}, answer.body)
    found = await Postgrest(ScriptedHttp(beyond), "https://p").rows("t", {}, counted=True)
    assert (found.rows, found.total) == ([], 15)


async def test_an_outage_is_never_an_empty_list() -> None:
    """What is not a list of rows is an error."""
    for answer in (
        json(200, {}),
        json(200, None),
        Answer(200, {"content-type": "application/json"}, b""),
    ):
        with pytest.raises(EdgeError) as caught:
            await Postgrest(ScriptedHttp(answer), "https://p").rows("t", {})
        assert caught.value.code is Code.SERVICE_UNAVAILABLE


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (
            Refusal(402, "PT402", "insufficient_credits", '{"cost": 1, "credits": 0}'),
            "INSUFFICIENT_CREDITS",
        ),
        (Refusal(402, "PT402", "insufficient_credits", ""), "INSUFFICIENT_CREDITS"),
        (Refusal(422, "PT422", "idempotency_key_reused", ""), "IDEMPOTENCY_KEY_REUSED"),
        (Refusal(400, "PT400", "unknown_project", ""), "INVALID_REQUEST"),
        (Refusal(400, "PT400", "invalid_request", ""), "INVALID_REQUEST"),
        (Refusal(401, "PT401", "no_user", ""), "AUTH_INVALID"),
        (Refusal(404, "PT404", "unknown_user", ""), "AUTH_INVALID"),
        (Refusal(401, "PGRST301", "No suitable key or wrong key type", ""), "AUTH_INVALID"),
        (Refusal(401, "PGRST303", "JWT expired", ""), "AUTH_INVALID"),
        (Refusal(401, "", "No API key found in request", ""), "SERVICE_UNAVAILABLE"),
        (Refusal(403, "42501", "permission denied for table x", ""), "SERVICE_UNAVAILABLE"),
        (Refusal(404, "PGRST202", "Could not find the function", ""), "SERVICE_UNAVAILABLE"),
        (Refusal(409, "PT409", "task_id_taken", ""), "SERVICE_UNAVAILABLE"),
        (
            Refusal(400, "23514", "new row violates check", "Failing row contains (hunter2)"),
            "SERVICE_UNAVAILABLE",
        ),
    ],
)
def test_a_refusal_becomes_an_error_that_callers_know(
    given: Refusal, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each has its code, and no row of the database reaches a user or the log."""
    error = error_of_user_call(given)
    assert error.code.value == code
    assert "hunter2" not in error.message + caplog.text
    assert (error.code is Code.SERVICE_UNAVAILABLE) == bool(caplog.records)


def test_a_wrong_service_key_is_the_operators_matter(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is told to sign in again, and the log says what to compare."""
    error = error_of_service_call(Refusal(401, "PGRST301", "Expected 3 parts in JWT; got 1", ""))
    assert error.code is Code.SERVICE_UNAVAILABLE
    assert "SUPABASE_SERVICE_ROLE_KEY" in caplog.text


@pytest.mark.parametrize("content_range", ["0-1/\u00b2", "0-1/" + "9" * 5000, "*/-1", "", "*/*"])
async def test_a_count_that_is_none_is_none(content_range: str) -> None:
    """What only looks like a number is not taken for one."""
    http = ScriptedHttp(json(200, [], **{"content-range": content_range}))
    assert (await Postgrest(http, "https://p").rows("t", {}, counted=True)).total is None


@pytest.mark.parametrize("status", [200, 400])
async def test_an_answer_that_is_nested_without_end_is_garbled(status: int) -> None:
    """It is an outage of the database's, not a fault here."""
    body = b"[" * 100_000 + b"]" * 100_000
    http = ScriptedHttp(Answer(status, {"content-type": "application/json"}, body))
    with pytest.raises((EdgeError, Refusal)):
        await Postgrest(http, "https://p").rows("t", {})


def test_a_key_that_a_gateway_repeats_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever looks like a key or a token is left out of the log."""
    for secret in ("sb_secret_hunter2", "eyJhbGciOi.eyJzdWIi.hunter2", "hunter2hunter2hunter2"):
        error_of_service_call(Refusal(401, "X", f"bad key {secret}, sorry", ""))
    assert "hunter2" not in caplog.text
    assert "bad key" in caplog.text
