"""One PostgreSQL and one Supabase project for all tests here."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest

from s3edge.testing.standins.postgres import Database, PostgresServer
from s3edge.testing.standins.supabase import SupabaseProcess


SCHEMA = Path(__file__).with_name("schema.sql")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """Run it for the session."""
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="session")
def database(postgres: PostgresServer) -> Database:
    """Return the project's database, with the tables and functions of the tests."""
    database = postgres.create_database("project")
    database.apply(SCHEMA.read_text())
    return database


@pytest.fixture(scope="session")
def supabase(
    database: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SupabaseProcess]:
    """Run the project for the session."""
    with SupabaseProcess(tmp_path_factory.mktemp("supabase"), database) as process:
        yield process


@pytest.fixture(scope="session")
def user_id() -> UUID:
    """Name somebody."""
    return uuid4()


@pytest.fixture(scope="session")
def user(supabase: SupabaseProcess, user_id: UUID) -> Iterator[httpx.Client]:
    """Return a client of theirs."""
    with _signed_in(supabase, user_id) as client:
        yield client


@pytest.fixture(scope="session")
def somebody_else(supabase: SupabaseProcess) -> Iterator[httpx.Client]:
    """Return a client of another user's."""
    with _signed_in(supabase, uuid4()) as client:
        yield client


def _signed_in(supabase: SupabaseProcess, user_id: UUID) -> httpx.Client:
    token = supabase.sign(user_id)
    headers = {"apikey": supabase.anon_key, "Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=f"{supabase.url}/rest/v1", headers=headers, timeout=30)


@pytest.fixture(scope="session")
def anybody(supabase: SupabaseProcess) -> Iterator[httpx.Client]:
    """Return a client of nobody's."""
    with httpx.Client(
        base_url=f"{supabase.url}/rest/v1", headers={"apikey": supabase.anon_key}, timeout=30
    ) as client:
        yield client


@pytest.fixture(scope="session")
def service(supabase: SupabaseProcess) -> Iterator[httpx.Client]:
    """Return a client with the secret key."""
    with httpx.Client(
        base_url=f"{supabase.url}/rest/v1", headers={"apikey": supabase.service_key}, timeout=30
    ) as client:
        yield client


@pytest.fixture(scope="session")
def owner(database: Database) -> Iterator[psycopg.Connection]:
    """Return a connection of the tables' owner."""
    with psycopg.connect(database.url("postgres"), autocommit=True) as connection:
        yield connection


@pytest.fixture
def emptied(owner: psycopg.Connection) -> None:
    """Empty the tables that tests write to."""
    # Faster than truncating: no file is made anew.
    owner.execute(
        "delete from public.notes; delete from public.inbox; delete from public.texts;"
        ' delete from public."odd name"; alter sequence public.notes_id_seq restart'
    )
