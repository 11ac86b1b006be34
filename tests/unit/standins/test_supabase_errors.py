"""
Errors: which status each of the database's has, what functions raise, and a database that is gone.

After "Facts": the lines of the wire facts, section 2 (errors), that a test holds it to.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from s3edge.testing.standins.postgres import PostgresServer
from s3edge.testing.standins.supabase import SupabaseProcess


def fail(
    client: httpx.Client, code: str, message: str = "it failed", **more: str
) -> httpx.Response:
    """Have the database raise an error."""
    return client.post("/rpc/fail", json={"p_code": code, "p_message": message} | more)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("23505", 409),
        ("23503", 409),
        ("23502", 400),
        ("23514", 400),
        ("22P02", 400),
        ("42703", 400),
        ("42501", 403),
        ("42P01", 404),
        ("42883", 404),
        ("42P17", 500),
        ("25006", 405),
        ("21000", 500),
        ("22023", 400),
        ("P0001", 400),
        ("P0002", 500),
        ("P0003", 500),
        ("P0004", 500),
        ("40001", 500),
        ("40P01", 500),
        ("55P03", 500),
        ("57014", 500),
        ("57P01", 503),
        ("53100", 503),
        ("53300", 503),
        ("53400", 500),
        ("08006", 503),
        ("28000", 403),
        ("0LP01", 403),
        ("0P000", 403),
        ("09000", 500),
        ("25001", 500),
        ("2D000", 500),
        ("38000", 500),
        ("39000", 500),
        ("3B000", 500),
        ("54000", 500),
        ("58000", 500),
        ("F0000", 500),
        ("HV000", 500),
        ("XX000", 500),
        ("ZZ999", 400),
        ("PT402", 402),
        ("PT418", 418),
        ("PT503", 503),
        ("PT40A", 500),
    ],
)
def test_the_status_of_each_error(user: httpx.Client, code: str, status: int) -> None:
    """Facts: the table of SQLSTATEs; PTxyz is HTTP xyz, a non-numeric one 500."""
    answer = fail(user, code, p_detail="more", p_hint="do")
    assert answer.status_code == status
    assert answer.json() == {
        "code": code,
        "details": "more",
        "hint": "do",
        "message": "it failed",
    }
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.headers["Proxy-Status"] == f"PostgREST; error={code}"
    assert ("Retry-After" in answer.headers) == (status == 503)


@pytest.mark.parametrize(
    ("code", "message", "status"),
    [
        ("42501", "it failed", 401),
        ("22023", 'role "nobody" does not exist', 401),
        ("21000", "UPDATE requires a WHERE clause", 400),
    ],
)
def test_errors_that_depend_on_more_than_the_code(
    anybody: httpx.Client, code: str, message: str, status: int
) -> None:
    """Facts: 42501 of anon; 22023 "role … does not exist"; 21000 of safeupdate."""
    answer = fail(anybody, code, message)
    assert answer.status_code == status
    assert answer.headers.get("WWW-Authenticate") == ("Bearer" if status == 401 else None)


def test_an_error_leaves_nothing(user: httpx.Client, emptied: None) -> None:
    """Facts: one request = one transaction; 23505's details hold the key."""
    rows = [{"id": 1, "value": "a"}, {"id": 1, "value": "b"}]
    answer = user.post("/texts", json=rows)
    assert (answer.status_code, answer.json()["code"]) == (409, "23505")
    assert answer.json()["details"] == "Key (id)=(1) already exists."
    assert user.get("/texts").json() == []


def test_a_failing_row_is_in_the_details(user: httpx.Client) -> None:
    """Facts: 23514/23502 details contain the whole failing row (never pass them on)."""
    answer = user.post("/texts", json={"id": 1000, "value": "v"})
    assert (answer.status_code, answer.json()["code"]) == (400, "23514")
    assert answer.json()["details"] == "Failing row contains (1000, v)."


def test_a_function_answers_all_by_itself(user: httpx.Client) -> None:
    """Facts: RAISE SQLSTATE 'PGRST': code, message, details, hint, status and headers are its own."""
    said = {"code": "E1", "message": "m", "details": "d", "hint": "h"}
    how = {"status": 402, "headers": {"X-Reason": "money", "Retry-After": "5"}}
    arguments = {"p_message": json.dumps(said), "p_detail": json.dumps(how)}
    answer = user.post("/rpc/raise_whole", json=arguments)
    assert (answer.status_code, answer.json()) == (402, said)
    assert (answer.headers["X-Reason"], answer.headers["Retry-After"]) == ("money", "5")
    assert answer.headers["Proxy-Status"] == "PostgREST; error=E1"


@pytest.mark.parametrize(
    ("message", "detail", "details"),
    [
        ("not json", "{}", "Invalid JSON value for MESSAGE: 'not json'"),
        ('{"message": "m"}', "{}", 'Invalid JSON value for MESSAGE: \'{"message": "m"}\''),
        (
            '{"code": "c", "message": "m"}',
            '{"status": 402}',
            "Invalid JSON value for DETAIL: '{\"status\": 402}'",
        ),
        (
            '{"code": "c", "message": "m"}',
            None,
            "DETAIL is missing in the RAISE statement",
        ),
    ],
)
def test_a_function_that_answers_badly(
    user: httpx.Client, message: str, detail: str | None, details: str
) -> None:
    """Facts: code, message, status and headers are obligatory, else 500 PGRST121."""
    arguments = {"p_message": message, "p_detail": detail}
    answer = user.post("/rpc/raise_whole", json=arguments)
    assert (answer.status_code, answer.json()["code"]) == (500, "PGRST121")
    assert answer.json()["details"] == details


def test_a_database_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    """Facts: database down: 503 PGRST001 or PGRST000 with Retry-After; JWKS need no database."""
    with PostgresServer(tmp_path) as server:
        database = server.create_database("project")
        with SupabaseProcess(tmp_path, database) as supabase, _client(supabase) as client:
            assert client.get("/rest/v1/missing").status_code == 404
            server.stop()
            lost, down = client.get("/rest/v1/missing"), client.get("/rest/v1/missing")
            _assert_down(lost, "PGRST001", "Database client error. Retrying the connection.")
            _assert_down(down, "PGRST000", "Database connection error. Retrying the connection.")
            assert client.get("/auth/v1/.well-known/jwks.json").status_code == 200
            server.start()
            assert client.get("/rest/v1/missing").status_code == 404
            server.restart()
            # The idle connection broke meanwhile, and nobody noticed.
            assert client.get("/rest/v1/missing").json()["code"] == "PGRST001"
            assert client.get("/rest/v1/missing").status_code == 404


def _client(supabase: SupabaseProcess) -> httpx.Client:
    headers: Mapping[str, Any] = {"apikey": supabase.anon_key}
    return httpx.Client(base_url=supabase.url, headers=headers, timeout=30)


def _assert_down(answer: httpx.Response, code: str, message: str) -> None:
    assert answer.status_code == 503
    assert answer.json() == {"code": code, "details": None, "hint": None, "message": message}
    assert int(answer.headers["Retry-After"]) > 0
