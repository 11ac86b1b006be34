"""
Writes: inserts, upserts, updates and deletions, and what row-level security makes of them.

After "Facts": the lines of the wire facts, sections 2 (writing) and 3, that a test holds it to.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest


SINGLE = "application/vnd.pgrst.object+json"
SHOW = {"Prefer": "return=representation"}

pytestmark = pytest.mark.usefixtures("emptied")


def add(client: httpx.Client, *ids: int, **columns: Any) -> None:
    """Insert notes with these ids."""
    rows = [{"id": each, "title": f"note {each}", **columns} for each in ids]
    client.post("/notes", json=rows).raise_for_status()


def titles(client: httpx.Client) -> Mapping[int, str]:
    """Return the titles of the notes that a client sees, by id."""
    rows = client.get("/notes?select=id,title&order=id").json()
    return {row["id"]: row["title"] for row in rows}


@pytest.mark.parametrize("prefer", [{}, {"Prefer": "return=minimal"}])
def test_an_insert_answers_nothing_unless_asked(
    user: httpx.Client, prefer: Mapping[str, str]
) -> None:
    """Facts: POST: 201, empty body, Content-Length 0, Content-Range */*, no Location."""
    answer = user.post("/notes", json={"title": "t"}, headers=prefer)
    assert (answer.status_code, answer.content) == (201, b"")
    assert answer.headers["Content-Length"] == "0"
    assert answer.headers["Content-Range"] == "*/*"
    assert "Location" not in answer.headers
    assert answer.headers.get("Preference-Applied") == prefer.get("Prefer")


def test_an_insert_shows_its_rows_when_asked(user: httpx.Client, user_id: UUID) -> None:
    """Facts: return=representation: 201 and an array; missing keys of an object get defaults."""
    answer = user.post("/notes?select=id,owner,title,data", json={"title": "t"}, headers=SHOW)
    expected = [{"id": 1, "owner": str(user_id), "title": "t", "data": {"fresh": True}}]
    assert (answer.status_code, answer.json()) == (201, expected)
    assert answer.headers["Preference-Applied"] == "return=representation"


def test_an_insert_says_where_its_row_is(user: httpx.Client) -> None:
    """Facts: return=headers-only: Location: /t?id=eq.1."""
    answer = user.post("/notes", json={"title": "t"}, headers={"Prefer": "return=headers-only"})
    assert (answer.status_code, answer.content) == (201, b"")
    assert answer.headers["Location"] == "/notes?id=eq.1"


def test_an_insert_of_one_answers_with_it(user: httpx.Client) -> None:
    """Facts: the singular Accept works on POST too."""
    answer = user.post(
        "/notes?select=title", json={"title": "t"}, headers={**SHOW, "Accept": SINGLE}
    )
    assert (answer.status_code, answer.json()) == (201, {"title": "t"})
    assert answer.headers["Content-Type"] == f"{SINGLE}; charset=utf-8"


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
def test_a_write_of_several_that_must_be_one_is_rolled_back(
    user: httpx.Client, method: str
) -> None:
    """Facts: a non-1 result of the singular Accept rolls the write back."""
    add(user, 1, 2)
    path, body = {
        "POST": ("/notes", [{"id": 8, "title": "x"}, {"id": 9, "title": "y"}]),
        "PATCH": ("/notes?id=gt.0", {"title": "x"}),
        "DELETE": ("/notes?id=gt.0", None),
    }[method]
    answer = user.request(method, path, json=body, headers={**SHOW, "Accept": SINGLE})
    assert (answer.status_code, answer.json()["code"]) == (406, "PGRST116")
    assert titles(user) == {1: "note 1", 2: "note 2"}


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        ([{"title": "a"}, {"title": "b"}], 2),
        ([{"title": "a", "rank": 1}, {"rank": 2, "title": "b"}], 2),
        ([], 0),
    ],
)
def test_a_bulk_insert(user: httpx.Client, body: list[dict[str, Any]], rows: int) -> None:
    """Facts: bulk POST; the order of the keys does not matter; count counts."""
    answer = user.post("/notes", json=body, headers={"Prefer": "count=exact"})
    assert (answer.status_code, answer.headers["Content-Range"]) == (201, f"*/{rows}")
    assert len(titles(user)) == rows


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'[{"title": "a"}, {"rank": 1}]', "All object keys must match"),
        (b'[{"title": "a"}, {"title": "b", "rank": 1}]', "All object keys must match"),
        (b"[1]", "All object keys must match"),
        (b"", "Empty or invalid json"),
        (b"{", "Empty or invalid json"),
    ],
)
def test_a_body_that_cannot_be_read(user: httpx.Client, body: bytes, message: str) -> None:
    """Facts: different keys, empty and invalid JSON: 400 PGRST102."""
    answer = user.post("/notes", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "PGRST102")
    assert answer.json()["message"] == message


@pytest.mark.parametrize(
    ("prefer", "expected"),
    [({}, [1, None]), ({"Prefer": "missing=default"}, [1, {"fresh": True}])],
)
def test_named_columns_that_are_missing(
    user: httpx.Client, prefer: Mapping[str, str], expected: list[Any]
) -> None:
    """Facts: with ?columns= missing ones become NULL unless Prefer: missing=default."""
    rows = [{"title": "a", "data": 1, "ignored": True}, {"title": "b"}]
    answer = user.post("/notes", params={"columns": '"title",data'}, json=rows, headers=prefer)
    assert (answer.status_code, answer.headers.get("Preference-Applied")) == (
        201,
        prefer.get("Prefer"),
    )
    found = user.get("/notes?select=data&order=id").json()
    assert [row["data"] for row in found] == expected


def test_objects_without_keys_are_rows_of_defaults(
    user: httpx.Client, service: httpx.Client
) -> None:
    """Facts: missing keys of a single object get column DEFAULTs, all of them if need be."""
    answer = user.post("/notes", json={})
    assert (answer.status_code, answer.json()["code"]) == (400, "23502")  # title has none
    answer = user.post("/notes?columns=title", json=[{"title": "a"}, {"title": "b"}])
    assert answer.status_code == 201
    assert service.post("/inbox", json={}).json()["code"] == "42501"


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_an_unknown_column_in_a_body(user: httpx.Client, method: str) -> None:
    """Facts: unknown column in payload: 400 PGRST204."""
    answer = user.request(method, "/notes?id=eq.1", json={"title": "t", "nope": 1})
    assert (answer.status_code, answer.json()) == (
        400,
        {
            "code": "PGRST204",
            "details": None,
            "hint": None,
            "message": "Could not find the 'nope' column of 'notes' in the schema cache",
        },
    )


def test_values_are_read_by_the_columns_type(user: httpx.Client) -> None:
    """Values of any JSON type arrive, and what the column cannot hold is the database's error."""
    row = {
        "title": "ö \"quoted\" \\ {x}, 'y' %s",
        "rank": 12.345,
        "tags": ["a,b", 'c"d', "", None],
        "data": {"deep": [1, {"x": None}]},
        "done": False,
        "created_at": "2026-02-03T04:05:06+02:00",
    }
    shown = user.post(f"/notes?select={','.join(row)}", json=row, headers=SHOW).json()
    expected = row | {"rank": 12.35, "created_at": "2026-02-03T02:05:06+00:00"}
    assert shown == [expected]
    refused = user.post("/notes", json={"title": "t", "rank": "many"})
    assert (refused.status_code, refused.json()["code"]) == (400, "22P02")


def test_an_upsert_merges(user: httpx.Client) -> None:
    """Facts: merge-duplicates: 201 if any row was inserted, 200 if only updates."""
    prefer = {"Prefer": "resolution=merge-duplicates,return=representation"}
    first = user.post("/notes?select=id", json={"id": 1, "title": "a"}, headers=prefer)
    both = user.post(
        "/notes", json=[{"id": 1, "title": "b"}, {"id": 2, "title": "c"}], headers=prefer
    )
    again = user.post("/notes?select=id,title", json={"id": 1, "title": "d"}, headers=prefer)
    assert [each.status_code for each in (first, both, again)] == [201, 201, 200]
    assert again.json() == [{"id": 1, "title": "d"}]
    assert titles(user) == {1: "d", 2: "c"}
    assert (
        again.headers["Preference-Applied"] == "resolution=merge-duplicates, return=representation"
    )


def test_an_upsert_ignores(user: httpx.Client) -> None:
    """Facts: ignore-duplicates: always 201; skipped rows are simply absent."""
    add(user, 1)
    prefer = {"Prefer": "resolution=ignore-duplicates,return=representation"}
    answer = user.post("/notes", json={"id": 1, "title": "new"}, headers=prefer)
    assert (answer.status_code, answer.json()) == (201, [])
    rows = [{"id": 1, "title": "new"}, {"id": 2, "title": "two"}]
    answer = user.post("/notes?select=id", json=rows, headers=prefer)
    assert (answer.status_code, answer.json()) == (201, [{"id": 2}])
    assert titles(user) == {1: "note 1", 2: "two"}


def test_an_upsert_by_other_columns(user: httpx.Client) -> None:
    """Facts: without on_conflict the arbiter is the primary key only; others clash: 409."""
    user.post("/notes", json={"id": 1, "title": "a", "code": "x"}).raise_for_status()
    prefer = {"Prefer": "resolution=merge-duplicates"}
    clash = user.post("/notes", json={"id": 2, "title": "b", "code": "x"}, headers=prefer)
    assert (clash.status_code, clash.json()["code"]) == (409, "23505")
    merged = user.post("/notes?on_conflict=code", json={"title": "c", "code": "x"}, headers=prefer)
    assert (merged.status_code, titles(user)) == (200, {1: "c"})


def test_an_upsert_may_not_take_another_users_row(
    user: httpx.Client, somebody_else: httpx.Client
) -> None:
    """Facts: an existing row the user may not update: 42501."""
    add(somebody_else, 1)
    prefer = {"Prefer": "resolution=merge-duplicates"}
    answer = user.post("/notes", json={"id": 1, "title": "mine"}, headers=prefer)
    assert (answer.status_code, answer.json()["code"]) == (403, "42501")
    assert titles(somebody_else) == {1: "note 1"}


@pytest.mark.parametrize(
    ("query", "prefer", "status", "content_range", "shown"),
    [
        # [Zero matched rows is not an error: 204 and */*, or 200 []; one row: 0-0/*]
        ("id=eq.1", "", 204, "0-0/*", None),
        ("id=eq.99", "", 204, "*/*", None),
        ("id=lt.9", "", 204, "0-2/*", None),
        # [with count=exact: 0-0/1 or */0]
        ("id=eq.1", "count=exact", 204, "0-0/1", None),
        ("id=eq.99", "count=exact", 204, "*/0", None),
        # [return=representation: 200 and an array]
        ("id=eq.1&select=id,title", "return=representation", 200, "0-0/*", [1]),
        ("id=eq.99", "return=representation", 200, "*/*", []),
        ("or=(id.eq.1,id.eq.2)&select=id", "return=representation", 200, "0-1/*", [1, 2]),
    ],
)
def test_an_update(
    user: httpx.Client,
    query: str,
    prefer: str,
    status: int,
    content_range: str,
    shown: list[int] | None,
) -> None:
    """Facts: PATCH: statuses, Content-Range and bodies."""
    add(user, 1, 2, 3)
    answer = user.patch(f"/notes?{query}", json={"title": "new"}, headers={"Prefer": prefer})
    assert (answer.status_code, answer.headers["Content-Range"]) == (status, content_range)
    assert answer.headers.get("Preference-Applied", "") == prefer
    if shown is None:
        assert answer.content == b""
    else:
        assert sorted(row["id"] for row in answer.json()) == shown
    assert all(title in {"new", f"note {each}"} for each, title in titles(user).items())


def test_an_update_changes_what_matches_and_nothing_else(user: httpx.Client) -> None:
    """Facts: a conditional update asks for the representation."""
    add(user, 1, 2, rank=1)
    body = {"title": "new", "rank": None}
    answer = user.patch("/notes?id=eq.2&rank=eq.1&select=id,title", json=body, headers=SHOW)
    assert answer.json() == [{"id": 2, "title": "new"}]
    assert user.patch("/notes?id=eq.2&rank=eq.1", json=body, headers=SHOW).json() == []
    assert titles(user) == {1: "note 1", 2: "new"}


@pytest.mark.parametrize("body", [{}, [], [{}]])
@pytest.mark.parametrize("prefer", [{}, SHOW])
def test_an_update_with_nothing_in_it(
    user: httpx.Client, body: Any, prefer: Mapping[str, str]
) -> None:
    """Facts: PATCH {}, [], [{}]: nothing updated, 204 */*."""
    add(user, 1)
    answer = user.patch("/notes?id=eq.1", json=body, headers=prefer)
    assert answer.status_code == (200 if prefer else 204)
    assert answer.headers["Content-Range"] == "*/*"
    assert titles(user) == {1: "note 1"}


@pytest.mark.parametrize(("method", "word"), [("PATCH", "UPDATE"), ("DELETE", "DELETE")])
def test_a_change_of_everything_is_refused(user: httpx.Client, method: str, word: str) -> None:
    """Facts: PATCH/DELETE without filter: safeupdate, 21000, 400."""
    add(user, 1)
    answer = user.request(method, "/notes", json={"title": "x"})
    assert (answer.status_code, answer.json()["code"]) == (400, "21000")
    assert answer.json()["message"] == f"{word} requires a WHERE clause"
    assert titles(user) == {1: "note 1"}


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_guard_against_too_many(user: httpx.Client, method: str) -> None:
    """Facts: handling=strict, max-affected=1: more: 400 PGRST124, rolled back; else ignored."""
    add(user, 1, 2, 3)
    strict = {"Prefer": "handling=strict, max-affected=1"}
    answer = user.request(method, "/notes?id=lt.3", json={"title": "x"}, headers=strict)
    assert (answer.status_code, answer.json()["code"]) == (400, "PGRST124")
    assert answer.json()["details"] == "The query affects 2 rows"
    assert titles(user) == {1: "note 1", 2: "note 2", 3: "note 3"}
    one = user.request(method, "/notes?id=eq.3", json={"title": "x"}, headers=strict)
    assert one.status_code == 204
    assert one.headers["Preference-Applied"] == "handling=strict, max-affected=1"
    lenient = {"Prefer": "max-affected=1"}
    assert user.request(method, "/notes?id=lt.3", json={"title": "x"}, headers=lenient).is_success


@pytest.mark.parametrize(
    ("prefer", "status", "content_range", "shown"),
    [
        ("", 204, "*/*", None),
        ("count=exact", 204, "*/2", None),
        ("return=representation", 200, "*/*", [1, 2]),
    ],
)
def test_a_deletion(
    user: httpx.Client, prefer: str, status: int, content_range: str, shown: list[int] | None
) -> None:
    """Facts: DELETE: 204, */* (or */N with count); representation: 200 and an array."""
    add(user, 1, 2, 3)
    answer = user.delete("/notes?id=lt.3&select=id", headers={"Prefer": prefer})
    assert (answer.status_code, answer.headers["Content-Range"]) == (status, content_range)
    assert titles(user) == {3: "note 3"}
    if shown is not None:
        assert sorted(row["id"] for row in answer.json()) == shown


def test_users_see_and_change_their_own_rows_only(
    user: httpx.Client, somebody_else: httpx.Client, service: httpx.Client
) -> None:
    """Facts: a USING miss changes 0 rows silently, a WITH CHECK miss raises 42501."""
    add(user, 1)
    add(somebody_else, 2)
    assert (titles(user), titles(somebody_else)) == ({1: "note 1"}, {2: "note 2"})
    assert titles(service) == {1: "note 1", 2: "note 2"}  # bypasses policies
    assert user.patch("/notes?id=eq.2", json={"title": "x"}, headers=SHOW).json() == []
    assert user.delete("/notes?id=eq.2", headers=SHOW).json() == []
    given_away = user.patch("/notes?id=eq.1", json={"owner": str(uuid4())})
    forged = user.post("/notes", json={"title": "t", "owner": str(uuid4())})
    for answer in (given_away, forged):
        assert (answer.status_code, answer.json()["code"]) == (403, "42501")
        assert answer.json()["message"].startswith("new row violates row-level security policy")


def test_nobody_is_sent_to_sign_in_and_somebody_is_forbidden(
    user: httpx.Client, anybody: httpx.Client
) -> None:
    """Facts: 42501 is 401 if the role is anon, else 403; 401 adds WWW-Authenticate: Bearer."""
    for client, status, challenge in ((anybody, 401, "Bearer"), (user, 403, None)):
        answer = client.get("/inbox")
        assert answer.status_code == status
        assert answer.json() == {
            "code": "42501",
            "details": None,
            "hint": None,
            "message": "permission denied for table inbox",
        }
        assert answer.headers.get("WWW-Authenticate") == challenge


def test_a_row_that_nobody_may_read_can_be_written_without_showing_it(
    user: httpx.Client, service: httpx.Client
) -> None:
    """Facts: return=representation needs SELECT, else the whole INSERT fails; minimal does not."""
    shown = user.post("/inbox", json={"id": 1, "message": "m"}, headers=SHOW)
    assert (shown.status_code, shown.json()["code"]) == (403, "42501")
    assert user.post("/inbox", json={"id": 2, "message": "m"}).status_code == 201
    assert service.get("/inbox").json() == [{"id": 2, "message": "m"}]


def test_a_column_that_may_not_be_read_spoils_all(user: httpx.Client) -> None:
    """Facts: column-level SELECT makes select=* fail 42501; naming columns works."""
    assert user.get("/partly").json()["code"] == "42501"
    assert user.get("/partly?select=id,shown").json() == [{"id": 1, "shown": "seen"}]


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("PUT", "/notes?id=eq.1", {}),
        ("PATCH", "/notes?id=eq.1&limit=1", {}),
        ("DELETE", "/notes?id=eq.1&limit=1", {}),
        ("POST", "/notes", {"Content-Type": "text/csv"}),
    ],
)
def test_what_is_not_done_is_said(
    user: httpx.Client, method: str, path: str, headers: Mapping[str, str]
) -> None:
    """What the stand-in does not do is a 501 of its own, and never a guess."""
    answer = user.request(method, path, content=b'{"title": "x"}', headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (501, "STANDIN")
