"""How long a page of a million results takes, over the first page of a hundred."""

import http.client
import json
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import anyio

from s3edge.gateway import SystemClock
from s3edge.rules.paging import DEFAULT_LIMIT
from s3edge.testing.large_lists import FEW, MANY, MANY_RESULTS, load_large_lists
from s3edge.testing.server import ServerProcess
from s3edge.testing.standins.postgres import PostgresServer
from s3edge.values import Position, ResultQuery, Tier, User
from s3edge_postgres.address import parse_address
from s3edge_postgres.applying import apply
from s3edge_postgres.database import PostgresDatabase
from s3edge_postgres.migrations import migrations
from s3edge_postgres.rows import Terms


ROUNDS = 300

DEEP_PAGE = 45_000
"""Of 50,000: the cursor that is measured follows it."""

FIRST_OF_FEW = "first page of 100 results"

OFFSETS = {
    "first page of 1,000,000": 0,
    "page 1,000": 999 * DEFAULT_LIMIT,
    "page 50,000, the last": MANY_RESULTS - DEFAULT_LIMIT,
}


def compare_lists(folder: Path) -> None:
    """Print a row a page: by the adapter alone, and over HTTP; each with its total."""
    with PostgresServer(folder) as postgres:
        url = postgres.create_plain_database("lists")
        apply(parse_address(url), lambda _: migrations())
        load_large_lists(postgres.database("lists").url("superuser"))
        adapter = anyio.run(measure_adapter, url)
        place = folder / "lists"
        place.mkdir()
        settings = {"S3EDGE_DATABASE": url, "S3EDGE_RATE_LIMITS": "off", "S3EDGE_LOG": "error"}
        server = ServerProcess(place, settings)
        server.start()
        try:
            over_http = anyio.run(measure_http, server)
        finally:
            server.stop()
    print(f"\n{'list of results, Postgres':<32}{'adapter':>10}{'ratio':>8}{'HTTP':>10}{'ratio':>8}")
    for name in adapter:
        print(
            f"{name:<32}{adapter[name]:>7.2f} ms{adapter[name] / adapter[FIRST_OF_FEW]:>8.2f}"
            f"{over_http[name]:>7.2f} ms{over_http[name] / over_http[FIRST_OF_FEW]:>8.2f}"
        )


async def measure_adapter(url: str) -> Mapping[str, float]:
    """Return how long each list takes through the adapter, in milliseconds."""
    async with PostgresDatabase(parse_address(url), SystemClock(), Terms(0, 1, 900)) as database:

        def listing(user_id: UUID, query: ResultQuery) -> Callable[[], Awaitable[object]]:
            return lambda: database.results(User(user_id=user_id, tier=Tier.FREE), query)

        before = ResultQuery(limit=1, offset=DEEP_PAGE * DEFAULT_LIMIT - 1)
        [last] = (await database.results(User(user_id=MANY, tier=Tier.FREE), before)).tasks
        after = Position(last.created_at, last.id)
        calls = {FIRST_OF_FEW: listing(FEW, ResultQuery(limit=DEFAULT_LIMIT))}
        for name, offset in OFFSETS.items():
            calls[name] = listing(MANY, ResultQuery(limit=DEFAULT_LIMIT, offset=offset))
        calls["deep cursor"] = listing(MANY, ResultQuery(limit=DEFAULT_LIMIT, after=after))
        return await medians_ms(calls)


async def measure_http(server: ServerProcess) -> Mapping[str, float]:
    """Return how long each list takes over HTTP, one request after the other, in milliseconds."""
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    tokens = {user_id: server.token(user_id) for user_id in (FEW, MANY)}

    def get(user_id: UUID, query: str) -> bytes:
        headers = {"Authorization": f"Bearer {tokens[user_id]}"}
        connection.request("GET", f"/api/v1/results?{query}", headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == http.client.OK, body
        return body

    def getting(user_id: UUID, query: str) -> Callable[[], Awaitable[object]]:
        async def call() -> object:
            # Nothing else runs in this process.
            return get(user_id, query)

        return call

    cursor = json.loads(get(MANY, f"page={DEEP_PAGE}"))["data"]["next_cursor"]
    calls = {FIRST_OF_FEW: getting(FEW, "page=1")}
    for name, offset in OFFSETS.items():
        calls[name] = getting(MANY, f"page={offset // DEFAULT_LIMIT + 1}")
    calls["deep cursor"] = getting(MANY, f"cursor={cursor}")
    return await medians_ms(calls)


async def medians_ms(calls: Mapping[str, Callable[[], Awaitable[object]]]) -> Mapping[str, float]:
    """Return the median of each call, in milliseconds; they take turns, in another order each time."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    names, order = list(calls), random.Random(0)
    for _ in range(ROUNDS):
        order.shuffle(names)
        for name in names:
            began = time.perf_counter()
            await calls[name]()
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(taken[name]) * 1000 for name in calls}
