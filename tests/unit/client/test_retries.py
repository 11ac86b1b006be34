"""What is sent again, when, and for how long."""

from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime

import httpx
import pytest

from s3edge.client import (
    ConnectionFailed,
    RateLimited,
    S3EdgeError,
    ServiceUnavailable,
    TimedOut,
    Timeout,
    UnreadableAnswer,
)
from s3edge.client.retries import retry_after_s
from s3edge.testing.clock import ManualClock
from s3edge.testing.scripted_api import ScriptedApi, ok, refused
from s3edge.values import RateLimit


ME = {"user_id": "6b6f2c1e-1111-4111-8111-111111111111", "tier": "pro", "credits": 7}
TASK_ID = "6b6f2c1e-2222-4222-8222-222222222222"
ACCEPTED = {"task_id": TASK_ID, "status": "pending"}

FAULTS: list[Callable[[], httpx.Response | Exception]] = [
    lambda: httpx.ConnectError("x"),
    lambda: httpx.ReadError("x"),
    lambda: httpx.RemoteProtocolError("x"),
    lambda: httpx.ConnectTimeout("x"),
    lambda: httpx.ReadTimeout("x"),
    lambda: httpx.Response(200, content=b'{"success": true, "da'),
    lambda: httpx.Response(502, html="<h1>Bad Gateway</h1>"),
    *(lambda status=status: refused(status, "X") for status in (408, 429, 502, 503, 504)),
]

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_passes_is_tried_again(
    api: ScriptedApi, fault: Callable[[], httpx.Response | Exception]
) -> None:
    """Connection errors, time-outs, halves of answers, 408, 429, 502, 503, 504, in both clients."""
    api.answer(fault(), fault(), ok(ME), fault(), ok(ME))
    assert api.client().me().credits == 7
    async with api.async_client() as client:
        assert (await client.me()).credits == 7
    assert len(api.requests) == 5


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 409, 413, 422, 500, 501])
def test_what_stays_is_not_tried_again(api: ScriptedApi, status: int) -> None:
    """The same request would get the same answer."""
    api.answer(refused(status, "X"))
    with pytest.raises(S3EdgeError) as error:
        api.client().segment(TASK_ID, "red")
    assert (error.value.status, error.value.retryable, len(api.requests)) == (status, False, 1)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_post_is_tried_again_only_with_a_key(
    api: ScriptedApi, fault: Callable[[], httpx.Response | Exception]
) -> None:
    """Without one it might be done twice."""
    api.answer(fault())
    with pytest.raises(S3EdgeError):
        api.client().request("POST", "/api/v1/segment", json={})
    assert len(api.requests) == 1
    api.answer(fault(), ok(ACCEPTED, 202))
    api.client().request("POST", "/api/v1/segment", json={}, idempotency_key="mine")
    assert [request.headers["Idempotency-Key"] for request in api.requests[1:]] == ["mine", "mine"]


def test_pauses_double_up_to_eight_seconds(api: ScriptedApi) -> None:
    """Full jitter: chance decides between nothing and a bound of 0.5, 1, 2, 4, 8, 8 seconds."""
    api.answer(*(httpx.ConnectError("x") for _ in range(7)), ok(ME))
    api.client(max_retries=7).me()
    assert api.time.pauses == [0.5, 1, 2, 4, 8, 8, 8]
    patient = ScriptedApi(ManualClock(chance=0.25))
    patient.answer(*(httpx.ConnectError("x") for _ in range(3)), ok(ME))
    patient.client().me()
    assert patient.time.pauses == [0.125, 0.25, 0.5]


def test_the_server_says_when_to_come_back(api: ScriptedApi) -> None:
    """``Retry-After`` counts, in seconds or as a date; a date of the past is now."""
    at = format_datetime(api.time.now() + timedelta(seconds=25), usegmt=True)
    past = format_datetime(api.time.now() - timedelta(seconds=25), usegmt=True)
    api.time.chance = 0.0
    api.answer(
        refused(429, "RATE_LIMITED", {"Retry-After": "7"}),
        refused(503, "SERVICE_UNAVAILABLE", {"Retry-After": at}),
        refused(503, "SERVICE_UNAVAILABLE", {"Retry-After": past}),
        ok(ME),
    )
    api.client().me()
    assert api.time.pauses == [7, 18, 0]


@pytest.mark.parametrize("value", [None, "", "soon", "-3", "1.5", "9 May", "٣"])
def test_a_retry_after_that_says_nothing_is_none(value: str | None) -> None:
    """Then the usual pause is made."""
    assert retry_after_s(value, ManualClock().now()) is None


async def test_a_wait_beyond_the_budget_is_raised_at_once(api: ScriptedApi) -> None:
    """The error says how long it would have been, and which limit it was."""
    headers = {"Retry-After": "42", "RateLimit-Policy": '"segment";q=10;w=60'}
    api.answer(refused(429, "RATE_LIMITED", headers), refused(429, "RATE_LIMITED", headers))
    with pytest.raises(RateLimited) as error:
        api.client(timeout=40).segment(TASK_ID, "red")
    assert error.value.retry_after == 42
    assert error.value.policy == RateLimit("segment", 10, 60)
    async with api.async_client(timeout=40) as client:
        with pytest.raises(RateLimited):
            await client.segment(TASK_ID, "red")
    assert api.time.pauses == []


def test_the_total_bounds_all_attempts_together(api: ScriptedApi) -> None:
    """Attempts and pauses draw on one budget, and each attempt has no more than what is left."""

    def silent(_: httpx.Request) -> httpx.Response:
        api.time.advance(4)
        message = "silence"
        raise httpx.ReadTimeout(message)

    api.answer(*[silent] * 9)
    with pytest.raises(TimedOut):
        api.client(timeout=Timeout(read=4, total=10), max_retries=9).me()
    assert api.time.elapsed_s <= 10 + 4
    left = [request.extensions["timeout"]["read"] for request in api.requests]
    assert left == [4, 4, 0.5]


def test_retries_end(api: ScriptedApi) -> None:
    """The last failure is what is raised, with the key that was sent."""
    api.answer(httpx.ConnectError("x"), refused(503, "SERVICE_UNAVAILABLE"))
    with pytest.raises(ServiceUnavailable) as error:
        api.client(max_retries=1).segment(TASK_ID, "red")
    keys = {request.headers["Idempotency-Key"] for request in api.requests}
    assert keys == {error.value.idempotency_key}


def test_each_call_has_a_key_of_its_own(api: ScriptedApi, png: bytes) -> None:
    """Segment and upload send one, keep it across attempts, and show it; a replay is told."""
    image = {"image_id": TASK_ID, "image_url": "u", "size_bytes": 1, "content_type": "image/png"}
    api.answer(
        httpx.ReadError("x"),
        ok(image),
        httpx.ReadError("x"),
        ok(ACCEPTED, 202, {"Idempotent-Replayed": "true"}),
        ok(ACCEPTED, 202),
    )
    client = api.client()
    uploaded = client.upload(png)
    first, second = client.segment(uploaded, "red"), client.segment(uploaded, "red")
    keys = [request.headers["Idempotency-Key"] for request in api.requests]
    assert keys == [uploaded.idempotency_key] * 2 + [first.idempotency_key] * 2 + [
        second.idempotency_key
    ]
    assert len(set(keys)) == 3
    assert (first.replayed, second.replayed) == (True, False)
    api.answer(refused(402, "INSUFFICIENT_CREDITS"))
    with pytest.raises(S3EdgeError) as error:
        client.segment(uploaded, "red", idempotency_key="mine")
    assert error.value.idempotency_key == "mine"


def test_who_cannot_be_reached_is_named_by_origin(api: ScriptedApi) -> None:
    """The error shows neither path nor query."""
    api.answer(httpx.ConnectError("x"))
    with pytest.raises(ConnectionFailed, match=r"http://elsewhere\.test:80 ") as error:
        api.client(max_retries=0).request("GET", "http://elsewhere.test/p?signature=s3cret")
    assert "s3cret" not in repr(error.value)


def test_an_answer_of_no_end_is_cut(api: ScriptedApi) -> None:
    """More than 8 MiB is no answer of this API's."""
    api.answer(httpx.Response(200, content=b" " * (8 * 1024 * 1024 + 1)))
    with pytest.raises(ConnectionFailed, match="8 MiB"):
        api.client().me()


def test_a_page_of_somebody_elses_is_unreadable(api: ScriptedApi) -> None:
    """A proxy's own page is no answer, and says which status it had."""
    api.answer(httpx.Response(403, html="<h1>Forbidden</h1>"))
    with pytest.raises(UnreadableAnswer) as error:
        api.client().me()
    assert error.value.status == 403
