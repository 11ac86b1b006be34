"""What the doctor finds of a Postgres, and what it advises."""

from collections.abc import Mapping
from datetime import timedelta

import pytest

from s3edge.gateway import SystemClock
from s3edge.ports import Finding
from s3edge.rules.schema import SCHEMA_VERSION
from s3edge.testing import ManualClock
from s3edge_postgres.address import parse_address
from s3edge_postgres.database import PostgresDatabase
from tests.unit.postgres.conftest import TERMS, Postgres


pytestmark = pytest.mark.anyio


async def found(url: str, *, ahead_s: float = 0) -> Mapping[str, Finding]:
    """Examine the database at an address, with a clock that is ahead of the database's."""
    clock = ManualClock(SystemClock().now() + timedelta(seconds=ahead_s))
    async with PostgresDatabase(parse_address(url), clock, TERMS) as database:
        findings = [finding async for finding in database.examine()]
    assert all("\n" not in finding.message for finding in findings)
    return {finding.name: finding for finding in findings}


def bad(findings: Mapping[str, Finding]) -> set[str]:
    """Return the names of what is not as it must be."""
    return {name for name, finding in findings.items() if not finding.ok}


async def test_all_is_well(postgres: Postgres) -> None:
    """Each thing is named, with what was seen."""
    findings = await found(postgres.url)
    assert bad(findings) == set()
    assert findings["server"].message.startswith("PostgreSQL 1")
    assert findings["role"].message == "plain"
    assert findings["migrations"].message == f"version {SCHEMA_VERSION}"
    assert findings["clock"].message.endswith(" s")
    assert (
        findings["connections"].message
        == "21 a process of the server's 197, so room for 9 processes"
    )
    pooled = await found(f"{postgres.url}?pooler=transaction")
    assert "pooler in transaction mode" in pooled["connections"].message


async def test_too_many_connections_are_noticed(postgres: Postgres) -> None:
    """A pool that the server has no room for; the advice is to lower it."""
    findings = await found(f"{postgres.url}?pool_size=200")
    assert bad(findings) == {"connections"}
    assert "lower pool_size" in findings["connections"].message


@pytest.mark.parametrize(("ahead_s", "side"), [(120, "ahead of"), (-120, "behind")])
async def test_a_wrong_clock_is_noticed(postgres: Postgres, ahead_s: float, side: str) -> None:
    """Leases and deadlines are timed by the database's clock."""
    findings = await found(postgres.url, ahead_s=ahead_s)
    assert bad(findings) == {"clock"}
    assert f"120 s {side} the database's" in findings["clock"].message


async def test_a_missing_schema_is_noticed(postgres: Postgres) -> None:
    """The advice is the command that applies it; nothing else is looked at then."""
    findings = await found(postgres.server.create_plain_database("empty"))
    assert bad(findings) == {"migrations"}
    assert "s3edge migrate" in findings["migrations"].message
    assert "policies and grants" not in findings


async def test_an_older_schema_is_noticed(postgres: Postgres) -> None:
    """Also by what ``/health/ready`` asks."""
    version = (
        "create or replace function public.s3edge_schema_version() returns integer"
        " language sql immutable set search_path = '' as 'select {}'"
    )
    postgres.run(version.format(1))
    try:
        findings = await found(postgres.url)
        assert bad(findings) == {"migrations"}
        assert "version 1, not" in findings["migrations"].message
    finally:
        postgres.run(version.format(SCHEMA_VERSION))


async def test_another_role_is_noticed(postgres: Postgres) -> None:
    """Who does not own the schema can call nothing."""
    url = postgres.url.replace("//plain:", "//stranger:")
    postgres.run_as_superuser(f"create role stranger login password '{postgres.password}'")
    findings = await found(url)
    assert "role" in bad(findings)
    assert "connect as the role that applied it" in findings["role"].message


async def test_changed_access_rules_are_noticed(postgres: Postgres) -> None:
    """A policy that somebody added is named."""
    postgres.run("create policy open_door on public.usage_logs using (true)")
    try:
        findings = await found(postgres.url)
        assert bad(findings) == {"policies and grants"}
        assert "open_door" in findings["policies and grants"].message
    finally:
        postgres.run("drop policy open_door on public.usage_logs")


async def test_a_server_that_is_away_is_one_finding(postgres: Postgres) -> None:
    """Why, and what to compare; without the password."""
    away = postgres.url.rpartition(":")[0] + ":1/plain"
    findings = await found(away)
    assert bad(findings) == set(findings) == {"server"}
    assert "compare S3EDGE_DATABASE" in findings["server"].message
    wrong = await found(postgres.url.replace(postgres.password, "wr0ng"))
    assert "password authentication failed" in wrong["server"].message
    assert "wr0ng" not in wrong["server"].message
