"""
How Postgres lists a million results: by plan and by pages touched, which do not depend on the machine.

Every statement is looked at with both kinds of plan that a prepared one may get: made for the values, or
made once for all of them (https://www.postgresql.org/docs/current/sql-prepare.html).
"""

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any
from uuid import UUID

import psycopg
import pytest
from attrs import evolve, field, frozen

from s3edge.gateway import SystemClock
from s3edge.rules.paging import DEFAULT_LIMIT
from s3edge.testing.large_lists import FEW, FEW_RESULTS, MANY, MANY_RESULTS, load_large_lists
from s3edge.testing.standins.postgres import PostgresServer
from s3edge.values import Position, ResultQuery, Tier, User
from s3edge_postgres import statements
from s3edge_postgres.address import PostgresAddress, parse_address
from s3edge_postgres.applying import apply
from s3edge_postgres.database import PostgresDatabase
from s3edge_postgres.migrations import migrations
from s3edge_postgres.rows import Terms


pytestmark = pytest.mark.anyio

DEEP = 900_000
"""How many results are newer than the deep cursor."""

OFFSETS = {"first": 0, "page 1,000": 999 * DEFAULT_LIMIT, "last": MANY_RESULTS - DEFAULT_LIMIT}

WALKED = 2 * 2000 + DEFAULT_LIMIT + 1
"""Index entries of a walk: a run, which may grow to twice its length, and the page."""

RUNS = 500

TOUCHED = 250
"""
Pages of 8 KiB that a list may touch. Four for each of the 21 rows looked up by its id, some 45 for 4,000
index entries, and the user's 500 runs, read twice at 50 a page.
"""


@frozen
class Filled:
    """
    The database with a million results.

    Attributes:
        address: Where it is, over a single connection.
        url: The same; holds the password.
    """

    address: PostgresAddress
    url: str = field(repr=False)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """Make it once."""
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        url = server.create_plain_database("lists")
        address = parse_address(url)
        apply(address, lambda _: migrations())
        load_large_lists(server.database("lists").url("superuser"))
        yield Filled(evolve(address, pool_size=1), url)


@pytest.fixture
async def database(filled: Filled) -> AsyncIterator[PostgresDatabase]:
    """Open the adapter."""
    async with PostgresDatabase(filled.address, SystemClock(), Terms(100, 1, 900)) as database:
        yield database


def user(user_id: UUID) -> User:
    """Return a user."""
    return User(user_id=user_id, tier=Tier.FREE)


def values_of(user_id: UUID, offset: int = 0, after: Position | None = None) -> dict[str, Any]:
    """Return the values that the adapter runs the statement with."""
    values = {"user_id": user_id, "limit": DEFAULT_LIMIT + 1, "offset": offset}
    return values if after is None else values | {"created_at": after.created_at, "id": after.id}


def nodes_of(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Walk through those steps of a plan that were taken."""
    if plan["Actual Loops"] > 0:
        yield plan
        for child in plan.get("Plans", ()):
            yield from nodes_of(child)


def explained(filled: Filled, kind: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Run the adapter's statement as a prepared one, and return the plan with what it took."""
    statement = statements.results(
        by_position="created_at" in values, of_project=False, in_status=False
    )
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))
    numbered = re.sub(r"%\((\w+)\)s", lambda match: f"${names.index(match[1]) + 1}", statement)
    with psycopg.connect(filled.url) as connection:
        connection.execute(f"set plan_cache_mode = force_{kind}_plan".encode())
        connection.execute(f"prepare list as {numbered}".encode())
        given = ", ".join("%s" for _ in names)
        [[plan]] = psycopg.ClientCursor(connection).execute(
            f"explain (analyze, buffers, timing off, format json) execute list({given})".encode(),
            [values[name] for name in names],
        )
        [found] = plan
        whole: Mapping[str, Any] = found["Plan"]
        return whole


def touched(plan: Mapping[str, Any]) -> int:
    """Return how many pages a plan touched, whether they were in memory or not."""
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def assert_walks_an_index(plan: Mapping[str, Any]) -> None:
    """Check a plan: which steps it takes, over how many rows."""
    nodes = list(nodes_of(plan))
    assert not [node for node in nodes if node["Node Type"] == "Seq Scan"]
    scans = [node for node in nodes if node.get("Relation Name") == "segmentation_results"]
    walks = [node for node in scans if node["Index Name"] == "s3edge_results_newest"]
    [walk] = walks
    assert walk["Node Type"] == "Index Only Scan"
    assert walk["Scan Direction"] == "Forward"
    assert walk["Heap Fetches"] == 0
    assert walk["Actual Rows"] <= WALKED
    [lookup] = [node for node in scans if node["Index Name"] == "segmentation_results_pkey"]
    assert lookup["Actual Loops"] <= DEFAULT_LIMIT + 1
    # The index has the order already: only what is shown is sorted, and runs, if need be.
    assert [node["Node Type"] for node in nodes if walk in node.get("Plans", ())] == ["Limit"]
    sorted_rows = [node["Plans"][0]["Actual Rows"] for node in nodes if "Sort" in node["Node Type"]]
    assert max(sorted_rows) <= RUNS
    assert touched(plan) <= TOUCHED


@pytest.mark.parametrize("kind", ["custom", "generic"])
async def test_every_page_is_near(filled: Filled, database: PostgresDatabase, kind: str) -> None:
    """The first, the thousandth, the last and what follows a deep cursor; the total included."""
    page = await database.results(user(MANY), ResultQuery(limit=1, offset=DEEP - 1))
    after = Position(page.tasks[0].created_at, page.tasks[0].id)
    asked = {name: values_of(MANY, offset) for name, offset in OFFSETS.items()}
    asked |= {"deep cursor": values_of(MANY, after=after), "few": values_of(FEW)}
    plans = {name: explained(filled, kind, values) for name, values in asked.items()}
    for plan in plans.values():
        assert_walks_an_index(plan)
        assert touched(plan) <= 2 * touched(plans["few"])


async def test_the_adapter_runs_that_statement(database: PostgresDatabase) -> None:
    """Prepared once, and often enough for Postgres to choose the plan that it keeps."""
    for turn in range(12):
        few = await database.results(user(FEW), ResultQuery(limit=DEFAULT_LIMIT))
        many = await database.results(user(MANY), ResultQuery(limit=DEFAULT_LIMIT, offset=turn))
        assert (few.total, many.total) == (FEW_RESULTS, MANY_RESULTS)
    rows = await database._connections.rows(
        "select statement, generic_plans + custom_plans as runs from pg_prepared_statements"
    )
    text = statements.results(by_position=False, of_project=False, in_status=False)
    pattern = re.escape(text)
    for name in ("user_id", "limit", "offset"):
        pattern = pattern.replace(re.escape(f"%({name})s"), r"\$\d")
    [runs] = [row["runs"] for row in rows if re.fullmatch(pattern, row["statement"])]
    assert runs == 24


async def test_pages_are_the_same_by_offset_and_by_cursor(database: PostgresDatabase) -> None:
    """Over the borders of runs, where two results may share their moment, none is repeated or skipped."""
    first = await database.results(user(MANY), ResultQuery(limit=1, offset=1950))
    after = Position(first.tasks[0].created_at, first.tasks[0].id)
    for offset in range(1951, 2251, 100):
        by_offset = await database.results(user(MANY), ResultQuery(limit=100, offset=offset))
        by_cursor = await database.results(user(MANY), ResultQuery(limit=100, after=after))
        assert by_offset.tasks == by_cursor.tasks
        after = Position(by_cursor.tasks[-1].created_at, by_cursor.tasks[-1].id)
