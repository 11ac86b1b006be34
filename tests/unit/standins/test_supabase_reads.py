"""
Reads: select, filters and their quoting, order, ranges and counts.

After "Facts": the lines of the wire facts, section 2 (reading, errors), that a test holds it to.
"""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


SINGLE = "application/vnd.pgrst.object+json"
COUNT = {"Prefer": "count=exact"}

# What a text column can hold: no zero byte, and no half of a surrogate pair.
any_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))

ordinary = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def ids(answer: httpx.Response) -> list[int]:
    """Return the ids of the rows."""
    assert answer.status_code in {200, 206}, answer.text
    return [row["id"] for row in answer.json()]


def quoted(value: str) -> str:
    """Return a value as it is written in lists and logic."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@pytest.mark.parametrize(
    ("path", "range_header", "headers", "status", "rows", "content_range"),
    [
        # [No count: 200, 0-14/*; empty: */*]
        ("items", None, {}, 200, 15, "0-14/*"),
        ("nothing", None, {}, 200, 0, "*/*"),
        ("items?limit=5&offset=3", None, {}, 200, 5, "3-7/*"),
        # [count=exact: 206 when fewer than the total were returned, else 200]
        ("items", None, COUNT, 200, 15, "0-14/15"),
        ("items?limit=5", None, COUNT, 206, 5, "0-4/15"),
        ("items?id=gt.10", None, COUNT, 200, 5, "0-4/5"),
        ("items?offset=10", None, COUNT, 206, 5, "10-14/15"),
        # [Count with zero rows: 200, */0]
        ("nothing", None, COUNT, 200, 0, "*/0"),
        ("items?id=eq.0", None, COUNT, 200, 0, "*/0"),
        # [Offset past the end without a count: 200, []; offset == total with one: 206, */total]
        ("items?offset=100", None, {}, 200, 0, "*/*"),
        ("items?offset=15", None, COUNT, 206, 0, "*/15"),
        # [limit=0: 200 []; a negative offset is ignored]
        ("items?limit=0", None, {}, 200, 0, "*/*"),
        ("items?limit=0", "0-4", {}, 200, 0, "*/*"),
        ("items?offset=-5&limit=2", None, {}, 200, 2, "0-1/*"),
        # [Range works for GET and is intersected with limit]
        ("items", "0-4", {}, 200, 5, "0-4/*"),
        ("items", "10-", {}, 200, 5, "10-14/*"),
        ("items", "5-9", COUNT, 206, 5, "5-9/15"),
        ("items?limit=3", "0-9", {}, 200, 3, "0-2/*"),
        ("items?limit=30", "5-6", {}, 200, 2, "5-6/*"),
        ("items", "nonsense", {}, 200, 15, "0-14/*"),
        # [A result longer than 1000 rows is silently cut with 200]
        ("many", None, {}, 200, 1000, "0-999/*"),
        ("many?limit=1200", None, {}, 200, 1000, "0-999/*"),
        ("many", None, COUNT, 206, 1000, "0-999/1500"),
    ],
)
def test_ranges_and_counts(
    anybody: httpx.Client,
    path: str,
    range_header: str | None,
    headers: Mapping[str, str],
    status: int,
    rows: int,
    content_range: str,
) -> None:
    """Facts: Reading: the table of counts, offsets and limits; max rows 1000."""
    sent = dict(headers) | ({} if range_header is None else {"Range": range_header})
    answer = anybody.get(f"/{path}", headers=sent)
    found = (answer.status_code, len(answer.json()), answer.headers["Content-Range"])
    assert found == (status, rows, content_range)


@pytest.mark.parametrize(
    ("path", "headers", "details", "content_range"),
    [
        (
            "items?offset=100",
            COUNT,
            "An offset of 100 was requested, but there are only 15 rows.",
            "*/15",
        ),
        ("items?limit=-1", {}, "Limit should be greater than or equal to zero.", None),
        (
            "items",
            {"Range": "9-3"},
            (
                "The lower boundary must be lower than or equal to the upper boundary in the Range"
                " header."
            ),
            None,
        ),
    ],
)
def test_a_range_that_cannot_be_served(
    anybody: httpx.Client, path: str, headers: Mapping[str, str], details: str, content_range: str
) -> None:
    """Facts: Offset past the end with a count: 416 PGRST103 and ``*/15``; negative limit: 416."""
    answer = anybody.get(f"/{path}", headers=headers)
    assert answer.status_code == 416
    assert answer.json() == {
        "code": "PGRST103",
        "message": "Requested range not satisfiable",
        "details": details,
        "hint": None,
    }
    assert answer.headers.get("Content-Range") == content_range
    assert answer.headers["Proxy-Status"] == "PostgREST; error=PGRST103"


def test_head_is_get_without_a_body(anybody: httpx.Client) -> None:
    """Facts: HEAD = GET without body; useful for counts; Range is not for HEAD."""
    answer = anybody.head("/items?id=lte.4", headers={**COUNT, "Range": "0-1"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Content-Range"] == "0-3/4"
    refused = anybody.head("/missing")
    assert (refused.status_code, refused.content) == (404, b"")
    assert refused.headers["Proxy-Status"] == "PostgREST; error=PGRST205"


def test_one_object_instead_of_an_array(anybody: httpx.Client) -> None:
    """Facts: Single row: 200, bare object, its own Content-Type."""
    answer = anybody.get("/items?id=eq.3", headers={"Accept": SINGLE})
    assert (answer.status_code, answer.json()) == (200, {"id": 3, "name": "item 3"})
    assert answer.headers["Content-Type"] == f"{SINGLE}; charset=utf-8"


@pytest.mark.parametrize(("query", "count"), [("id=eq.0", 0), ("id=lt.3", 2)])
def test_no_or_many_rows_are_no_single_object(
    anybody: httpx.Client, query: str, count: int
) -> None:
    """Facts: 0 rows or >1: 406 PGRST116, alike but for the details."""
    answer = anybody.get(f"/items?{query}", headers={"Accept": SINGLE})
    assert answer.status_code == 406
    assert answer.json() == {
        "code": "PGRST116",
        "details": f"The result contains {count} rows",
        "hint": None,
        "message": "Cannot coerce the result to a single JSON object",
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("id=eq.3", [3]),
        ("id=neq.3&id=lt.5", [1, 2, 4]),  # repeating a column is "and"
        ("id=gt.13", [14, 15]),
        ("id=gte.14", [14, 15]),
        ("id=lt.3", [1, 2]),
        ("id=lte.2", [1, 2]),
        ("id=not.lte.13", [14, 15]),
        ("id=in.(1,3,99)", [1, 3]),
        ("id=not.in.(1,2,3,4,5,6,7,8,9,10,11,12,13)", [14, 15]),
        ('id=in.("1","2")', [1, 2]),
        ("id=in.()", []),
        ("name=like.item 1*", [1, 10, 11, 12, 13, 14, 15]),
        ("name=like.*1", [1, 11]),
        ("name=like.item __&name=like.%2515", [15]),
        ("name=ilike.ITEM 2", [2]),
        ("name=match.^item [23]$", [2, 3]),
        ("name=imatch.^ITEM 2$", [2]),
        ("id=eq(any).{2,4}", [2, 4]),
        ("name=like(all).{item*,*5}", [5, 15]),
        ("id=is.null", []),
        ("id=not.is.null&id=eq.1", [1]),
        ("id=is.not_null&id=eq.1", [1]),
        ("or=(id.eq.1,id.eq.2)", [1, 2]),
        ("or=(id.eq.1,and(id.gt.3,id.lt.6))", [1, 4, 5]),
        ("and=(id.gt.3,not.or(id.gt.6,id.eq.5))", [4, 6]),
        ("not.or=(id.gt.2,id.eq.1)", [2]),
        ("not.and=(id.gt.2,id.lt.99)", [1, 2]),
        ('or=( id.eq.1, name.eq."item 2")', [1, 2]),
        ('or=(id.eq.1,name.eq."item 2" )', [1]),  # quotes count only when nothing follows
        ("or=(id.in.(1,2),name.like.*15)", [1, 2, 15]),
        ("or=(id.eq.1,id.not.lt.15)", [1, 15]),
        ("or=(id.eq(any).{3,4},id.eq.5)", [3, 4, 5]),
        ("select=id&id=isdistinct.1&id=lt.3", [2]),
    ],
)
def test_filters(anybody: httpx.Client, query: str, expected: list[int]) -> None:
    """Facts: Filters: operators, not., any and all, nested logic, * for %, in.() matches nothing."""
    assert ids(anybody.get(f"/items?{query}&order=id")) == expected


def test_nulls_and_truth(user: httpx.Client, emptied: None) -> None:
    """Facts: ``is`` takes null, not_null, true, false, unknown; ``eq.null`` is the text."""
    rows = [{"id": n, "title": t, "done": d} for n, t, d in ((1, "null", True), (2, "b", None))]
    user.post("/notes", json=rows).raise_for_status()
    expected = {
        "done=is.null": [2],
        "done=is.unknown": [2],
        "done=is.TRUE": [1],
        "done=is.false": [],
        "done=not.is.true": [2],
        "title=eq.null": [1],
        "tags=is.null": [1, 2],
    }
    assert {query: ids(user.get(f"/notes?{query}&order=id")) for query in expected} == expected
    refused = user.get("/notes?done=eq.null")
    assert (refused.status_code, refused.json()["code"]) == (400, "22P02")


@ordinary
@given(value=any_text, other=any_text)
def test_any_text_survives_a_plain_filter(user: httpx.Client, value: str, other: str) -> None:
    """Facts: Plain col=op.value: everything after op. is the value; only URL-encode."""
    _keep(user, value, other)
    found = user.get("/texts", params={"value": f"eq.{value}", "order": "id"})
    assert ids(found) == ([1, 2] if value == other else [1])
    assert found.json()[0]["value"] == value


@ordinary
@given(value=any_text.filter(bool), other=any_text)
def test_any_text_survives_in_lists_and_logic(user: httpx.Client, value: str, other: str) -> None:
    """Facts: in.(...) and values inside and=/or=: quote always; escape quotes and backslashes."""
    _keep(user, value, other)
    expected = [1, 2] if value == other else [1]
    for parameter, text in (
        ("value", f"in.({quoted(value)})"),
        ("value", f'in.("no such value",{quoted(value)})'),
        ("or", f"(id.eq.99,value.eq.{quoted(value)})"),
        ("and", f"(id.gt.0,or(value.in.({quoted(value)}),id.eq.99))"),
    ):
        assert ids(user.get("/texts", params={parameter: text, "order": "id"})) == expected


def test_a_list_of_one_empty_text_matches_nothing(user: httpx.Client, emptied: None) -> None:
    """Facts: in.() matches nothing; the SQL cannot tell it from in.("")."""
    _keep(user, "", "x")
    assert ids(user.get('/texts?value=in.("")')) == []
    assert ids(user.get('/texts?value=in.("",x)&order=id')) == [1, 2]
    assert ids(user.get("/texts?value=eq.")) == [1]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("value=eq.a%2Bb", [1]),
        ("value=eq.a+b", [2]),
        ('value=eq."a+b"', []),
        ("value=in.(a%2Bb,a b)", [1, 2]),
    ],
)
def test_a_plus_is_a_space_and_quotes_are_literal(
    user: httpx.Client, emptied: None, query: str, expected: list[int]
) -> None:
    """Facts: + in a query string decodes to a space; eq."x" would search for the quotes."""
    _keep(user, "a+b", "a b")
    assert ids(user.get(f"/texts?{query}&order=id")) == expected


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("id", [1, 2, 3]),
        ("id.asc", [1, 2, 3]),
        ("id.desc", [3, 2, 1]),
        ("value", [2, 3, 1]),
        ("value.nullsfirst", [1, 2, 3]),
        ("value.desc", [1, 3, 2]),
        ("value.desc.nullslast,id", [3, 2, 1]),
    ],
)
def test_order(user: httpx.Client, emptied: None, order: str, expected: list[int]) -> None:
    """Facts: order=created_at.desc.nullslast,id.desc."""
    rows = [{"id": n, "value": v} for n, v in ((1, None), (2, "a"), (3, "b"))]
    user.post("/texts", json=rows).raise_for_status()
    assert ids(user.get(f"/texts?order={order}")) == expected


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ("id", {"id": 2}),
        ("*", {"id": 2, "name": "item 2"}),
        ("", {"id": 2, "name": "item 2"}),
        ("name, id", {"name": "item 2", "id": 2}),
        ("n:name", {"n": "item 2"}),
        ('"name"', {"name": "item 2"}),
    ],
)
def test_select(anybody: httpx.Client, select: str, expected: Mapping[str, Any]) -> None:
    """Facts: select=a,b; *; an alias."""
    found = anybody.get("/items", params={"select": select, "id": "eq.2"})
    assert [list(row.items()) for row in found.json()] == [list(expected.items())]


def test_names_with_reserved_characters_are_quoted(user: httpx.Client, emptied: None) -> None:
    """Facts: Column names with reserved characters go in %22…%22."""
    row = {"id": 1, "a.b,(c)": "x", "100%": "y"}
    user.post("/odd%20name", json=row).raise_for_status()
    for filters in ({'"a.b,(c)"': "eq.x"}, {"or": '("a.b,(c)".eq.x)'}, {'"100%"': "eq.y"}):
        found = user.get(
            "/odd%20name", params={"select": '"a.b,(c)","100%"', "order": '"a.b,(c)"', **filters}
        )
        assert found.json() == [{"a.b,(c)": "x", "100%": "y"}]


def test_values_are_formatted_by_the_database(user: httpx.Client, emptied: None) -> None:
    """Facts: The body is what json_agg makes of the rows."""
    row = {"title": "t", "rank": 1.5, "tags": ["a", 'b"'], "data": {"n": 12345678901234567890}}
    user.post("/notes", json=row).raise_for_status()
    text = user.get("/notes?select=rank,tags,data,created_at").text
    assert text == (
        '[{"rank":1.50,"tags":["a","b\\""],"data":{"n": 12345678901234567890},'
        '"created_at":"2026-01-01T00:00:00+00:00"}]'
    )


@pytest.mark.parametrize(
    ("query", "column", "unexpected"),
    [
        ("id=nope.3", 1, "n"),
        ("id=3", 1, "3"),
        ("id=is.maybe", 4, "m"),
        ("id=in.1,2", 4, "1"),
        ("id=in.(1,2", 8, "end of input"),
        ("or=(id.eq.1", 9, "end of input"),
        ("or=id.eq.1", 1, "i"),
        ("or=(id.xx.1)", 5, "x"),
        ("order=id.ac", 3, "."),
        ("select=id,", 4, "end of input"),
    ],
)
def test_a_malformed_query_is_refused(
    anybody: httpx.Client, query: str, column: int, unexpected: str
) -> None:
    """Facts: Unknown operator: 400 PGRST100."""
    answer = anybody.get(f"/items?{query}")
    error = answer.json()
    assert (answer.status_code, error["code"], error["hint"]) == (400, "PGRST100", None)
    assert error["message"].endswith(f"(line 1, column {column})")
    shown = unexpected if len(unexpected) > 1 else f'"{unexpected}"'
    assert error["details"].startswith(f"unexpected {shown} expecting ")


@pytest.mark.parametrize(
    ("path", "status", "code", "message"),
    [
        ("items?missing=eq.1", 400, "42703", "column items.missing does not exist"),
        ("items?select=missing", 400, "42703", "column items.missing does not exist"),
        ("items?order=missing", 400, "42703", "column items.missing does not exist"),
        (
            "item",
            404,
            "PGRST205",
            "Could not find the table 'public.item' in the schema cache",
        ),
        ("a/b", 404, "PGRST125", "Invalid path specified in request URL"),
    ],
)
def test_what_is_not_there(
    anybody: httpx.Client, path: str, status: int, code: str, message: str
) -> None:
    """Facts: Unknown column in a filter: 42703 from Postgres; stale cache: PGRST205; PGRST125 path."""
    answer = anybody.get(f"/{path}")
    error = answer.json()
    assert (answer.status_code, error["code"], error["message"]) == (status, code, message)
    if code == "PGRST205":
        assert error["hint"] == "Perhaps you meant the table 'public.items'"


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Accept": "text/html"}, 406, "PGRST107"),
        ({"Accept-Profile": "private"}, 406, "PGRST106"),
        ({"Prefer": "handling=strict, nonsense"}, 400, "PGRST122"),
    ],
)
def test_what_cannot_be_had(
    anybody: httpx.Client, headers: Mapping[str, str], status: int, code: str
) -> None:
    """Facts: PGRST107 406 bad Accept; unknown schema 406 PGRST106; PGRST122."""
    answer = anybody.get("/items", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_preferences_are_echoed_and_unknown_ones_ignored(anybody: httpx.Client) -> None:
    """Facts: Responses echo applied preferences; unknown ones are ignored unless handling=strict."""
    answer = anybody.get("/items", headers={"Prefer": "nonsense, count=exact, handling=lenient"})
    assert answer.headers["Preference-Applied"] == "count=exact, handling=lenient"
    assert "Preference-Applied" not in anybody.get("/items").headers


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("items?select=id,other(name)", {}),
        ("items?select=id::text", {}),
        ("items?select=data->a", {}),
        ("items?select=id.sum()", {}),
        ("items?other.id=eq.1", {}),
        ("items?name=fts.word", {}),
        ("items?order=other(id)", {}),
        ("items", {"Accept": "text/csv"}),
        ("items", {"Prefer": "count=planned"}),
        ("items", {"Prefer": "timezone=UTC"}),
        ("", {}),
    ],
)
def test_what_is_not_done_is_said(
    anybody: httpx.Client, path: str, headers: Mapping[str, str]
) -> None:
    """What the stand-in does not do is a 501 of its own, and never a guess."""
    answer = anybody.get(f"/{path}", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (501, "STANDIN")
    assert "does not do" in answer.json()["message"]


def test_a_zero_byte_is_refused(user: httpx.Client) -> None:
    """A text cannot hold it: 400, as the database's error has it."""
    answer = user.get("/texts?value=eq.%00")
    assert (answer.status_code, answer.json()["code"]) == (400, "22021")


def _keep(user: httpx.Client, *values: str) -> None:
    rows = [{"id": n, "value": value} for n, value in enumerate(values, 1)]
    user.post(
        "/texts", content=json.dumps(rows), headers={"Prefer": "resolution=merge-duplicates"}
    ).raise_for_status()
