"""
Function calls: arguments, the shapes of results, transactions, and what functions may say themselves.

After "Facts": the lines of the wire facts, section 2 (RPC, errors, claims), that a test holds it to.
"""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest

from s3edge.testing.standins.postgres import Database
from s3edge.testing.standins.supabase import SupabaseProcess


SINGLE = "application/vnd.pgrst.object+json"
STRICT = {"Prefer": "handling=strict, max-affected=2"}


@pytest.mark.parametrize(
    ("function", "body", "content_range"),
    [
        # [scalar: bare JSON value; jsonb: that JSON; array type: JSON array]
        ("returns_integer", 3, "0-0/*"),
        ("returns_text", "x", "0-0/*"),
        ("returns_null", None, "0-0/*"),
        ("returns_json", {"a": [1, None]}, "0-0/*"),
        ("returns_array", [1, 2], "0-0/*"),
        # [composite, row type, several OUT: object; single OUT: object; NULL: object of nulls]
        ("returns_pair", {"a": 1, "b": "x"}, "0-0/*"),
        ("returns_null_pair", {"a": None, "b": None}, "0-0/*"),
        ("returns_outs", {"a": 1, "b": "x"}, "0-0/*"),
        ("returns_out", {"name": "v"}, "0-0/*"),
        ("returns_row", {"id": 1, "name": "item 1"}, "0-0/*"),
        # [SETOF, TABLE: array even for one row and column; SETOF scalar: array of scalars]
        ("returns_integers", [1, 2, 3], "0-2/*"),
        ("returns_table", [{"n": 7}], "0-0/*"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_the_shapes_of_results(
    user: httpx.Client, method: str, function: str, body: Any, content_range: str
) -> None:
    """Facts: results."""
    answer = user.request(method, f"/rpc/{function}")
    assert (answer.status_code, answer.json()) == (200, body)
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.headers["Content-Range"] == content_range


def test_nothing_is_no_content(user: httpx.Client) -> None:
    """Facts: void: 204, no body; the body may be empty for functions without arguments."""
    for body in (b"", b"{}"):
        answer = user.post("/rpc/returns_void", content=body)
        assert (answer.status_code, answer.content) == (204, b"")
        assert "Content-Type" not in answer.headers


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_rows_are_filtered_and_counted(user: httpx.Client, method: str) -> None:
    """Facts: filters, select, order and limit apply to table-returning results on POST too."""
    answer = user.request(
        method,
        "/rpc/returns_rows?id=gt.3&select=n:name&order=id.desc&limit=2&offset=1",
        headers={"Prefer": "count=exact"},
    )
    assert (answer.status_code, answer.json()) == (206, [{"n": "item 14"}, {"n": "item 13"}])
    assert answer.headers["Content-Range"] == "1-2/12"
    assert answer.headers["Preference-Applied"] == "count=exact"
    past = user.request(method, "/rpc/returns_rows?offset=99", headers={"Prefer": "count=exact"})
    assert (past.status_code, past.json()["code"]) == (416, "PGRST103")


def test_long_results_are_cut(user: httpx.Client) -> None:
    """Facts: max rows 1000 for RPC reads too."""
    assert user.post("/rpc/returns_many").json() == list(range(1, 1001))


def test_one_object_of_several_rows(user: httpx.Client) -> None:
    """Facts: the singular Accept works on RPC too."""
    headers = {"Accept": SINGLE}
    one = user.post("/rpc/returns_rows?id=eq.2", headers=headers)
    assert (one.status_code, one.json()) == (200, {"id": 2, "name": "item 2"})
    for path, count in (("returns_rows?id=eq.99", 0), ("returns_rows", 15)):
        refused = user.post(f"/rpc/{path}", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (406, "PGRST116")
        assert refused.json()["details"] == f"The result contains {count} rows"


@pytest.mark.parametrize(
    ("arguments", "result"), [({"p_a": 1}, 11), ({"p_a": 1, "p_b": 2}, 3), ({"p_a": "4"}, 14)]
)
def test_arguments_are_named_and_defaults_may_be_left_out(
    anybody: httpx.Client, arguments: Mapping[str, Any], result: int
) -> None:
    """Facts: JSON object = named arguments; args with DEFAULT may be left out."""
    assert anybody.post("/rpc/add", json=arguments).json() == result
    assert anybody.get("/rpc/add", params=arguments).json() == result


def test_arguments_of_any_type(user: httpx.Client) -> None:
    """Facts: arguments arrive as the types of the function, whatever they hold."""
    ids = [str(uuid4()), str(uuid4())]
    arguments = {
        "p_text": 'eq.%s "x" \\ ü',
        "p_ids": ids,
        "p_data": {"deep": [None, "x"]},
        "p_at": "2026-01-02T03:04:05Z",
    }
    expected = {
        "text": arguments["p_text"],
        "ids": ids,
        "data": {"deep": [None, "x"]},
        "at": "2026-01-02T03:04:05+00:00",
        "flag": False,
    }
    assert user.post("/rpc/describe", json=arguments).json() == expected
    by_get = {
        "p_text": "plain",
        "p_at": "2026-01-02T03:04:05Z",
        "p_ids": "{" + ",".join(ids) + "}",
        "p_data": json.dumps(arguments["p_data"]),
    }
    answer = user.get("/rpc/describe", params=by_get)
    assert answer.json() == expected | {"text": "plain"}


@pytest.mark.parametrize(
    ("method", "arguments", "shown", "searched"),
    [
        (
            "POST",
            {"p_c": 1},
            "(p_c)",
            " with parameter p_c or with a single unnamed json/jsonb parameter",
        ),
        (
            "POST",
            {"p_c": 1, "p_a": 1},
            "(p_a, p_c)",
            " with parameters p_a, p_c or with a single unnamed json/jsonb parameter",
        ),
        (
            "POST",
            {},
            " without parameters",
            " without parameters or with a single unnamed json/jsonb parameter",
        ),
        ("GET", {"p_c": 1}, "(p_c)", " with parameter p_c"),
    ],
)
def test_a_call_that_fits_no_function(
    anybody: httpx.Client, method: str, arguments: Mapping[str, int], shown: str, searched: str
) -> None:
    """Facts: extra, misspelt or missing names: 404 PGRST202."""
    if method == "POST":
        answer = anybody.post("/rpc/add", json=arguments)
    else:
        answer = anybody.get("/rpc/add", params=arguments)
    assert answer.status_code == 404
    assert answer.json() == {
        "code": "PGRST202",
        "details": f"Searched for the function public.add{searched}, but no matches were found in"
        " the schema cache.",
        "hint": None,
        "message": f"Could not find the function public.add{shown} in the schema cache",
    }


def test_a_function_that_is_not_there(anybody: httpx.Client) -> None:
    """Facts: a missing function: 404 PGRST202."""
    answer = anybody.post("/rpc/returns_integre", json={})
    assert (answer.status_code, answer.json()["code"]) == (404, "PGRST202")
    assert answer.json()["hint"] == "Perhaps you meant to call the function public.returns_integer"


def test_overloads_cannot_be_told_apart(anybody: httpx.Client) -> None:
    """Facts: overloads with the same arg names: 300 PGRST203."""
    answer = anybody.post("/rpc/twice", json={"p_a": 1})
    assert (answer.status_code, answer.json()["code"]) == (300, "PGRST203")
    assert answer.json()["message"].endswith(
        "public.twice(p_a => integer), public.twice(p_a => text)"
    )


def test_only_some_methods_call(anybody: httpx.Client) -> None:
    """Facts: PGRST101 405 bad RPC verb."""
    answer = anybody.put("/rpc/add", json={"p_a": 1})
    assert (answer.status_code, answer.json()["code"]) == (405, "PGRST101")
    assert answer.json()["message"] == "Cannot use the PUT method on RPC"


@pytest.mark.parametrize(
    ("method", "function"),
    [("GET", "volatile_write"), ("GET", "stable_write"), ("POST", "stable_write")],
)
def test_what_reads_writes_nothing(user: httpx.Client, method: str, function: str) -> None:
    """Facts: POST to a STABLE function, and every GET, runs READ ONLY: 25006, 405."""
    answer = user.request(method, f"/rpc/{function}")
    assert (answer.status_code, answer.json()["code"]) == (405, "25006")
    assert answer.json()["message"] == "cannot execute INSERT in a read-only transaction"
    assert user.get("/texts?id=eq.900").json() == []


@pytest.mark.usefixtures("emptied")
def test_a_volatile_function_writes_by_post(user: httpx.Client) -> None:
    """Facts: keep writers VOLATILE and use POST."""
    assert user.post("/rpc/volatile_write").status_code == 204
    assert user.get("/texts?id=eq.900").json() == [{"id": 900, "value": "written"}]


def test_a_function_for_others_is_forbidden(
    user: httpx.Client, anybody: httpx.Client, service: httpx.Client
) -> None:
    """Facts: an EXECUTE grant makes the function a public endpoint, and only that does."""
    found = [each.post("/rpc/for_service").status_code for each in (user, anybody, service)]
    assert found == [403, 401, 200]


def test_the_database_knows_who_asks_and_how(
    user: httpx.Client, user_id: UUID, database: Database
) -> None:
    """Facts: search_path, role settings, role, claims, method, path, headers per request."""
    found = user.get("/rpc/whoami", headers={"User-Agent": "test/1"}).json()
    claims = found.pop("claims")
    assert found == {
        "role": "authenticated",
        "uid": str(user_id),
        "method": "GET",
        "path": "/rpc/whoami",
        "agent": "test/1",
        "search_path": '"public", "extensions"',
        "statement_timeout": "8s",
        "lock_timeout": "8s",
        "read_only": "on",
        "isolation": "read committed",
    }
    assert (claims["sub"], claims["role"]) == (str(user_id), "authenticated")
    with psycopg.connect(database.url("authenticator")) as connection:
        left = connection.execute(
            "select count(*) from pg_stat_activity where state = 'idle in transaction'"
        ).fetchone()
    assert left == (0,)


def test_requests_at_once_are_kept_apart(supabase: SupabaseProcess) -> None:
    """Facts: role and claims hold for the transaction; connections are shared by all requests."""
    user_ids = [str(uuid4()) for _ in range(60)]
    tokens = [supabase.sign(user_id) for user_id in user_ids]
    with (
        httpx.Client(base_url=supabase.url, headers={"apikey": supabase.anon_key}) as client,
        ThreadPoolExecutor(30) as pool,
    ):

        def who(token: str) -> str:
            headers = {"Authorization": f"Bearer {token}"}
            uid: str = client.post("/rest/v1/rpc/whoami", headers=headers).json()["uid"]
            return uid

        assert list(pool.map(who, tokens)) == user_ids


def test_nobody_and_the_service_have_no_user(anybody: httpx.Client, service: httpx.Client) -> None:
    """Facts: ``auth.uid()`` is NULL for anon/service calls; role timeouts 3 s and the login's."""
    for client, role, timeout in ((anybody, "anon", "3s"), (service, "service_role", "8s")):
        found = client.post("/rpc/whoami").json()
        assert (found["role"], found["uid"], found["claims"]) == (role, None, {"role": role})
        assert (found["statement_timeout"], found["method"]) == (timeout, "POST")


def test_a_functions_own_timeout_counts(anybody: httpx.Client) -> None:
    """Facts: statement_timeout set on a function is hoisted to the transaction; 57014 is 500."""
    assert anybody.post("/rpc/own_timeout").json() == "123s"
    slow = anybody.post("/rpc/slow")
    assert (slow.status_code, slow.json()) == (
        500,
        {
            "code": "57014",
            "details": None,
            "hint": None,
            "message": "canceling statement due to statement timeout",
        },
    )


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        ("201", '[{"X-One": "1"}, {"X-Two": "2"}]', (201, "1", "2")),
        ("", '[{"Content-Range": "x"}, {"X-One": "1"}]', (200, "1", None)),
    ],
)
def test_a_function_changes_its_answer(
    user: httpx.Client, status: str, headers: str, expected: tuple[int, str, str | None]
) -> None:
    """Facts: response.status and response.headers change a successful answer, and only that one."""
    answer = user.post("/rpc/answer_with", json={"p_status": status, "p_headers": headers})
    found = (answer.status_code, answer.headers["X-One"], answer.headers.get("X-Two"))
    assert found == expected
    assert user.post("/rpc/returns_integer").status_code == 200


@pytest.mark.parametrize(
    ("status", "headers", "code"),
    [
        ("many", "[]", "PGRST112"),
        ("", "nonsense", "PGRST111"),
        ("", '[{"a": "1", "b": "2"}]', "PGRST111"),
    ],
)
def test_a_function_that_changes_it_badly(
    user: httpx.Client, status: str, headers: str, code: str
) -> None:
    """Facts: headers are an array of one-key objects; else 500."""
    answer = user.post("/rpc/answer_with", json={"p_status": status, "p_headers": headers})
    assert (answer.status_code, answer.json()["code"]) == (500, code)


def test_a_guard_against_too_many_needs_rows(user: httpx.Client) -> None:
    """Facts: max-affected on RPC only for SETOF/TABLE (else 400 PGRST128)."""
    few = user.post("/rpc/returns_rows?id=lt.3", headers=STRICT)
    many = user.post("/rpc/returns_rows", headers=STRICT)
    none = user.post("/rpc/returns_integer", headers=STRICT)
    assert (few.status_code, many.json()["code"], none.json()["code"]) == (
        200,
        "PGRST124",
        "PGRST128",
    )


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "returns_integers?id=eq.1"), ("GET", "returns_text?select=a")]
)
def test_what_is_not_done_is_said(user: httpx.Client, method: str, path: str) -> None:
    """What the stand-in does not do is a 501 of its own, and never a guess."""
    answer = user.request(method, f"/rpc/{path}")
    assert (answer.status_code, answer.json()["code"]) == (501, "STANDIN")
