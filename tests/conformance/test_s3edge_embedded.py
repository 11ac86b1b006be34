"""SQLite, files and the local issuer keep every promise."""

import sqlite3
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from s3edge.config.local_auth import LocalAuthenticator
from s3edge.gateway import RandomIds
from s3edge.rules.claims import LEEWAY_S
from s3edge.rules.keys import unsigned
from s3edge.testing import (
    AuthenticatorContract,
    AuthenticatorHarness,
    DatabaseContract,
    DatabaseHarness,
    ManualClock,
    ObjectStorageContract,
    ObjectStorageHarness,
)
from s3edge.testing.contracts.database_machine import database_machine
from s3edge.values import User
from s3edge_embedded.database import SqliteDatabase
from s3edge_embedded.issuer import LOCAL_ISSUER, LocalIssuer
from s3edge_embedded.storage import FileObjectStorage
from s3edge_supabase.jwks import JwksCache
from s3edge_supabase.tokens import SupabaseAuthenticator


BASE_URL = "http://testserver"


@asynccontextmanager
async def open_database() -> AsyncIterator[DatabaseHarness]:
    """Open a new file; its cost does not divide what users have."""
    clock = ManualClock()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "s3edge.db"

        async def usage(user: User) -> Collection[int]:
            with sqlite3.connect(path) as connection:
                rows = connection.execute(
                    "select credits_used from usage_logs where user_id = ? and action <> 'grant'",
                    (str(user.user_id),),
                ).fetchall()
            connection.close()
            return [row[0] for row in rows]

        async with SqliteDatabase(
            path, clock, initial_credits=50, segment_cost=3, task_deadline_s=900
        ) as database:
            yield DatabaseHarness(
                database,
                clock.sleep,
                initial_credits=50,
                segment_cost=3,
                deadline_s=900,
                usage=usage,
            )


class TestSqliteDatabase(DatabaseContract):
    """``SqliteDatabase``."""

    @pytest.fixture
    async def harness(self) -> AsyncIterator[DatabaseHarness]:
        """Return an empty database."""
        async with open_database() as harness:
            yield harness


TestSqliteDatabaseMachine = database_machine(open_database).TestCase


class TestFileObjectStorage(ObjectStorageContract):
    """``FileObjectStorage``."""

    @pytest.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[ObjectStorageHarness]:
        """Return an empty storage."""
        folder = tmp_path / "media"

        async def keys() -> Collection[str]:
            return [
                str(path.relative_to(folder))
                for path in folder.rglob("*")
                if path.is_file() and path.name not in {".media-secret", ".base-urls"}
            ]

        def foreign_urls(url: str) -> Sequence[str]:
            path = unsigned(url).removeprefix(BASE_URL)
            return [
                f"{BASE_URL}/other{path}",
                f"{BASE_URL}/media",
                f"{BASE_URL}/media/../.media-secret",
                f"{BASE_URL}/media/.media-secret",
                f"file://{folder}",
            ]

        async with FileObjectStorage(folder, BASE_URL, ManualClock()) as storage:
            yield ObjectStorageHarness(storage, keys, foreign_urls)


class TestLocalAuthenticator(AuthenticatorContract):
    """The local issuer's tokens, verified as Supabase's are."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> AuthenticatorHarness:
        """Return an authenticator with a key of its own."""
        clock = ManualClock()
        issuer = LocalIssuer(tmp_path, clock, RandomIds())
        verifier = SupabaseAuthenticator(JwksCache(issuer.fetch_jwks), LOCAL_ISSUER, clock)

        async def issue(user: User, lifetime_s: float) -> str:
            return issuer.issue(user.user_id, user.tier, lifetime_s)

        async def advance(seconds: float) -> None:
            # Clocks may differ by as much; the promise is about what is beyond that.
            clock.advance(seconds + LEEWAY_S)

        def tamper(token: str) -> str:
            head, _, signature = token.rpartition(".")
            return f"{head}.{signature[:20]}{'A' if signature[20] != 'A' else 'B'}{signature[21:]}"

        return AuthenticatorHarness(LocalAuthenticator(issuer, verifier), issue, advance, tamper)
