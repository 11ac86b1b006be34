"""Models, lists and raw answers, from servers older and newer than the client."""

from functools import partial
from typing import Any
from uuid import UUID

import httpx
import pytest
from attrs.exceptions import FrozenInstanceError

from s3edge.client import UnreadableAnswer
from s3edge.testing.scripted_api import REQUEST_ID, ScriptedApi, ok
from s3edge.values import RateLimit, TaskStatus
from tests.e2e.colours import COLOURS, Colour, done, refused


USER_ID = "6b6f2c1e-1111-4111-8111-111111111111"
ME = {"user_id": USER_ID, "tier": "pro", "credits": 7}

pytestmark = pytest.mark.anyio


def summary(number: int, status: str = "done", **more: Any) -> dict[str, Any]:
    """Return one result of a list."""
    return {
        "id": str(UUID(int=number)),
        "source_image_url": "http://media.test/i",
        "mask_image_url": None,
        "text_prompt": "red",
        "status": status,
        "created_at": "2026-01-01T00:00:00Z",
        **more,
    }


def page(numbers: range, total: int, cursor: str | None) -> Any:
    """Return a page of results."""
    more = {} if cursor is None else {"next_cursor": cursor}
    results = [summary(number) for number in numbers]
    return ok({"results": results, "total": total, "page": 1, "limit": 100, **more})


def test_unknown_fields_are_kept(api: ScriptedApi) -> None:
    """In models and in their parts; known ones have their types."""
    limits = {"read": {"limit": 120, "window_s": 60, "burst": 3}}
    api.answer(ok({**ME, "rate_limits": limits, "team": {"name": "x"}}))
    account = api.client().me()
    assert account.user_id == UUID(USER_ID)
    assert account.rate_limits == {"read": RateLimit("read", 120, 60)}
    assert account.extra == {"team": {"name": "x"}}


def test_an_unknown_status_is_text(api: ScriptedApi) -> None:
    """It neither breaks the list nor counts as an end; a known one equals the enumeration's."""
    results = [summary(1, "archived", starred=True), summary(2)]
    api.answer(ok({"results": results, "total": 2, "page": 1, "limit": 100}))
    archived, done = api.client().results()
    assert (archived.status, archived.extra) == ("archived", {"starred": True})
    assert done.status == TaskStatus.DONE


@pytest.mark.parametrize(
    "data", [None, [], "x", {}, {**ME, "credits": "many"}, {**ME, "user_id": 1}]
)
def test_an_answer_of_another_shape_is_unreadable(api: ScriptedApi, data: Any) -> None:
    """It is an error of the client's own, not of Python's."""
    api.answer(ok(data))
    with pytest.raises(UnreadableAnswer):
        api.client().me()


async def test_lists_are_walked_by_cursor(api: ScriptedApi) -> None:
    """One result after another, each page when it is reached, in both clients."""
    for _ in range(2):
        api.answer(page(range(3), 5, "c1"), page(range(3, 5), 5, None))
    walked = iter(api.client().results(project_id=USER_ID, status="done", page_size=3))
    assert [next(walked).id.int for _ in range(3)] == [0, 1, 2]
    assert len(api.requests) == 1
    assert [result.id.int for result in walked] == [3, 4]
    async with api.async_client() as client:
        assert [r.id.int async for r in client.results(page_size=3)] == [0, 1, 2, 3, 4]
    queries = [dict(request.url.params) for request in api.requests]
    first = {"project_id": USER_ID, "status": "done", "limit": "3"}
    assert queries == [
        first,
        first | {"cursor": "c1"},
        {"limit": "3"},
        {"limit": "3", "cursor": "c1"},
    ]


def test_a_list_can_be_taken_by_pages(api: ScriptedApi) -> None:
    """Each says how many there are in all."""
    api.answer(page(range(2), 3, "c1"), page(range(2, 3), 3, None))
    pages = list(api.client().results().pages())
    assert [(len(each.results), each.total, each.next_cursor) for each in pages] == [
        (2, 3, "c1"),
        (1, 3, None),
    ]


@pytest.mark.parametrize(("limit_total", "limits"), [(0, []), (1, [1]), (2, [2]), (3, [2, 1])])
def test_a_list_stops_at_its_limit(api: ScriptedApi, limit_total: int, limits: list[int]) -> None:
    """No more is asked for than is wanted, and no more is given if the server gives more."""
    api.answer(page(range(2), 9, "c1"), page(range(2, 4), 9, "c2"))
    found = [r.id.int for r in api.client().results(limit_total=limit_total, page_size=2)]
    assert found == list(range(limit_total))
    assert [int(request.url.params["limit"]) for request in api.requests] == limits


async def test_raw_answers_have_status_and_headers(api: ScriptedApi) -> None:
    """The same calls, in both clients, with what HTTP said around them."""
    accepted = {"task_id": USER_ID, "status": "pending"}
    headers = {"Idempotent-Replayed": "true", "Location": "/api/v1/tasks/x"}
    api.answer(ok(accepted, 202, headers), ok(accepted, 202, headers))
    raw = api.client().with_raw_response.segment(USER_ID, "red")
    async with api.async_client() as client:
        awaited = await client.with_raw_response.segment(USER_ID, "red")
    for answer in (raw, awaited):
        assert (answer.status, answer.headers["location"]) == (202, "/api/v1/tasks/x")
        assert (answer.request_id, answer.replayed) == (REQUEST_ID, True)
        assert answer.parsed.id == UUID(USER_ID)
        assert answer.idempotency_key == answer.parsed.idempotency_key
        assert b"pending" in answer.body


def test_every_call_has_a_raw_one(api: ScriptedApi, png: bytes) -> None:
    """Upload, task, result, a page of results, account, health."""
    image = {"image_id": USER_ID, "image_url": "u", "size_bytes": 1, "content_type": "image/png"}
    result = summary(1) | {
        "id": USER_ID,
        "project_id": None,
        "labels": [],
        "metadata": {},
        "updated_at": "2026-01-01T00:00:00Z",
    }
    api.answer(
        ok(image),
        ok({"task_id": USER_ID, "status": "pending"}),
        ok(result),
        page(range(2), 9, "c1"),
        ok(ME),
        ok({"status": "ok", "timestamp": "2026-01-01T00:00:00Z"}),
    )
    raw = api.client().with_raw_response
    assert raw.upload(png).parsed.image_id == UUID(USER_ID)
    assert raw.task(USER_ID).parsed.status == "pending"
    assert raw.result(USER_ID).parsed.id == UUID(USER_ID)
    assert raw.results(cursor="c0").parsed.next_cursor == "c1"
    assert raw.me().parsed.credits == 7
    assert raw.health().status == 200


def test_any_request_can_be_sent(api: ScriptedApi) -> None:
    """Method, path, query, JSON, headers; the answer is its data, or what JSON there is."""
    api.answer(ok({"x": 1}, 201), ok({"y": 2}))
    client = api.client(base_url="http://api.test/mounted")
    made = client.request(
        "post", "/api/v2/x", query={"a": "b c", "n": None}, json={"k": None}, headers={"X-A": "1"}
    )
    assert (made.status, made.parsed) == (201, {"x": 1})
    assert client.request("GET", "api/v2/y").parsed == {"y": 2}
    sent = api.requests[0]
    assert (sent.method, str(sent.url)) == ("POST", "http://api.test/mounted/api/v2/x?a=b+c")
    assert (sent.content, sent.headers["X-A"]) == (b'{"k":null}', "1")
    assert sent.headers["User-Agent"].startswith("s3edge-python/")


@pytest.mark.parametrize("colour", COLOURS)
async def test_an_answer_without_a_body_is_none(api: ScriptedApi, colour: Colour) -> None:
    """What HTTP has no body for is not half an answer; an error of that kind is one still."""
    api.answer(
        httpx.Response(200, headers={"X-A": "1"}),
        httpx.Response(204),
        httpx.Response(404),
        httpx.Response(200),
    )
    client: Any = api.client() if colour == "sync" else api.async_client()
    client = client.with_options(max_retries=0)
    head = await done(client.request("head", "/health"))
    assert (head.status, head.parsed, head.headers["x-a"]) == (200, None, "1")
    assert (await done(client.request("DELETE", "/x"))).parsed is None
    missing = await refused(UnreadableAnswer, partial(client.request, "HEAD", "/x"))
    assert (missing.status, missing.message) == (
        404,
        "http://api.test/x answered 404, and said no more.",
    )
    assert (await refused(UnreadableAnswer, partial(client.request, "GET", "/x"))).status == 200


def test_models_are_frozen(api: ScriptedApi) -> None:
    """What was answered stays as it was."""
    api.answer(ok(ME))
    account = api.client().me()
    with pytest.raises(FrozenInstanceError):
        account.credits = 8  # type: ignore[misc] # what is tested
