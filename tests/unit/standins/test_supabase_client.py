"""
The official Python client works against the stand-in unchanged.

It is the independent witness: whatever both it and the stand-in's own tests expect is not made up here.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import UUID

import pytest
from postgrest import APIError, APIResponse
from postgrest.types import CountMethod
from supabase import Client, create_client

from s3edge.testing.standins.supabase import SupabaseProcess


pytestmark = [
    pytest.mark.usefixtures("emptied"),
    # It passes arguments to its own PostgREST client that the latter calls deprecated.
    pytest.mark.filterwarnings("ignore:The '(timeout|verify)' parameter:DeprecationWarning"),
]

Connect = Callable[[str], Client]


def rows_of(answer: APIResponse) -> list[dict[str, Any]]:
    """Return the rows of an answer."""
    assert isinstance(answer.data, list)
    return [row for row in answer.data if isinstance(row, dict)]


@pytest.fixture
def connect(supabase: SupabaseProcess) -> Iterator[Connect]:
    """Make clients, and close the connections that they leave open."""
    clients = []

    def connect(key: str) -> Client:
        client = create_client(supabase.url, key)
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.postgrest.session.close()
        client.auth.close()


@pytest.fixture
def client(connect: Connect, supabase: SupabaseProcess, user_id: UUID) -> Client:
    """Return one of a user who has signed in elsewhere."""
    client = connect(supabase.anon_key)
    client.postgrest.auth(supabase.sign(user_id))
    return client


def test_nobody_reads_what_is_public(connect: Connect, supabase: SupabaseProcess) -> None:
    """Reads need no sign-in; a page knows the total."""
    for key in (supabase.anon_key, supabase.legacy_anon_key):
        answer = (
            connect(key)
            .table("items")
            .select("id", count=CountMethod.exact)
            .order("id", desc=True)
            .range(5, 7)
            .execute()
        )
        assert (answer.data, answer.count) == ([{"id": 10}, {"id": 9}, {"id": 8}], 15)


def test_rows_are_counted_without_reading_them(client: Client) -> None:
    """``head=True`` sends HEAD."""
    answer = client.table("items").select("*", count=CountMethod.exact, head=True).execute()
    assert (answer.data, answer.count) == ([], 15)


def test_its_filters(client: Client) -> None:
    """Its own quoting and the stand-in's reading of it agree."""
    rows: list[Mapping[str, object]] = [
        {"id": 1, "value": 'a,"b"'},
        {"id": 2, "value": "c.d (e)"},
        {"id": 3, "value": None},
        {"id": 4, "value": "plain"},
    ]
    client.table("texts").insert(rows).execute()
    all_rows = client.table("texts").select("id").order("id")
    assert all_rows.execute().data == [{"id": n} for n in (1, 2, 3, 4)]
    select = client.table("texts").select
    found = {
        "eq": select("id").eq("value", 'a,"b"'),
        "in": select("id").in_("value", ['a,"b"', "c.d (e)", "other"]),
        "null": select("id").is_("value", "null"),
        "not": select("id").not_.is_("value", "null").neq("value", "plain"),
        "like": select("id").like("value", "pl%"),
        "ilike": select("id").ilike("value", "C.*"),
        "between": select("id").gte("id", 2).lt("id", 4),
        "or": select("id").or_("id.eq.1,and(id.gt.3,value.eq.plain)"),
        "match": select("id").match({"id": 4, "value": "plain"}),
    }
    ids = {
        name: sorted(row["id"] for row in rows_of(query.execute())) for name, query in found.items()
    }
    assert ids == {
        "eq": [1],
        "in": [1, 2],
        "null": [3],
        "not": [1, 2],
        "like": [4],
        "ilike": [2],
        "between": [2, 3],
        "or": [1, 4],
        "match": [4],
    }


def test_one_row_or_an_error(client: Client) -> None:
    """``single`` insists on one row, ``maybe_single`` on no more than one."""
    items = client.table("items")
    one = items.select("name").eq("id", 3).single().execute()
    assert one.data == {"name": "item 3"}
    for wrong in (0, 99):
        with pytest.raises(APIError) as raised:
            items.select("*").gt("id", wrong).single().execute()
        assert raised.value.code == "PGRST116"
        assert raised.value.details == f"The result contains {15 if wrong == 0 else 0} rows"
    maybe = items.select("name").eq("id", 3).maybe_single().execute()
    assert maybe is not None
    assert maybe.data == {"name": "item 3"}
    assert items.select("name").eq("id", 99).maybe_single().execute() is None


def test_a_row_lives_and_dies(client: Client, user_id: UUID) -> None:
    """Insert, update, upsert and delete, each answered with the row."""
    notes = client.table("notes")
    made = notes.insert({"id": 1, "title": "a", "tags": ["x"], "code": "c1"}).execute()
    assert made.data == [
        {
            "id": 1,
            "owner": str(user_id),
            "title": "a",
            "rank": None,
            "done": None,
            "tags": ["x"],
            "data": {"fresh": True},
            "code": "c1",
            "created_at": "2026-01-01T00:00:00+00:00",
        }
    ]
    tagged = notes.select("id").contains("tags", ["x"]).execute()
    assert tagged.data == [{"id": 1}]
    changed = notes.update({"title": "b"}).eq("id", 1).execute()
    assert [row["title"] for row in rows_of(changed)] == ["b"]
    assert notes.update({"title": "b"}).eq("id", 99).execute().data == []
    merged = notes.upsert({"id": 1, "title": "c"}).execute()
    by_code = notes.upsert({"title": "d", "code": "c1"}, on_conflict="code").execute()
    ignored = notes.upsert({"id": 1, "title": "e"}, ignore_duplicates=True).execute()
    assert [len(each.data) for each in (merged, by_code, ignored)] == [1, 1, 0]
    gone = notes.delete(count=CountMethod.exact).eq("id", 1).execute()
    assert ([row["title"] for row in rows_of(gone)], gone.count) == (["d"], 1)
    assert notes.select("id").execute().data == []


def test_many_rows_at_once(client: Client) -> None:
    """It names the columns of a bulk insert, and asks for defaults where they are missing."""
    rows: list[Mapping[str, object]] = [{"title": "a", "data": {"own": 1}}, {"title": "b"}]
    client.table("notes").insert(rows, default_to_null=False).execute()
    client.table("notes").insert(rows).execute()
    found = client.table("notes").select("data").order("id").execute()
    expected = [{"own": 1}, {"fresh": True}, {"own": 1}, None]
    assert found.data == [{"data": each} for each in expected]


def test_functions(client: Client) -> None:
    """Scalars, rows with filters, nothing, and a function that reads by GET."""
    assert client.rpc("add", {"p_a": 1}).execute().data == 11
    rows = client.rpc("returns_rows", {}).select("name").eq("id", 2).execute()
    assert rows.data == [{"name": "item 2"}]
    assert client.rpc("add", {"p_a": 1, "p_b": 2}, get=True).execute().data == 3
    role = client.rpc("whoami").execute().data
    assert isinstance(role, dict)
    assert role["role"] == "authenticated"


@pytest.mark.parametrize(
    ("function", "arguments", "code"),
    [
        ("missing", {}, "PGRST202"),
        ("fail", {"p_code": "PT402", "p_message": "too few credits"}, "PT402"),
        ("for_service", {}, "42501"),
    ],
)
def test_refusals_are_its_errors(
    client: Client, function: str, arguments: dict[str, str], code: str
) -> None:
    """It finds code, message, details and hint where it looks for them."""
    with pytest.raises(APIError) as raised:
        client.rpc(function, arguments).execute()
    assert raised.value.code == code
    assert raised.value.message


def test_policies_hold_for_it_too(
    connect: Connect, client: Client, supabase: SupabaseProcess
) -> None:
    """A user sees their own rows, the secret key all, nobody none."""
    client.table("notes").insert({"title": "mine"}).execute()
    other = connect(supabase.anon_key)
    other.postgrest.auth(supabase.sign())
    assert other.table("notes").select("title").execute().data == []
    for key in (supabase.service_key, supabase.legacy_service_key):
        found = connect(key).table("notes").select("title").execute()
        assert found.data == [{"title": "mine"}]
    with pytest.raises(APIError) as raised:
        connect(supabase.anon_key).table("notes").select("title").execute()
    assert raised.value.code == "42501"


def test_its_own_verification_of_a_token(
    connect: Connect, supabase: SupabaseProcess, user_id: UUID
) -> None:
    """It verifies tokens by the published keys, as Supabase documents."""
    claims = connect(supabase.anon_key).auth.get_claims(supabase.sign(user_id))
    assert claims is not None
    assert claims["claims"]["sub"] == str(user_id)
