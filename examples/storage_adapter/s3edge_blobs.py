"""
Images and masks as rows of one SQLite file, for ``S3EDGE_STORAGE=blobs:///srv/media.db``.

One file is what is backed up, moved and deleted. Each object is a row, written whole or not at all, and
in memory once while it is put or read: 10 MiB at the most.
"""

import secrets
import sqlite3
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from anyio import to_thread

from s3edge.errors import Code, EdgeError, unavailable
from s3edge.ports import Clock, ObjectStorage, Wiring
from s3edge.rules.media_urls import MediaUrls
from s3edge.values import StoredObject
from s3edge.web.http import Route
from s3edge.web.media import media_route


TABLES = """
create table if not exists objects (key text primary key, type text not null, content blob not null);
create table if not exists secret (one integer primary key check (one = 1), bytes blob not null);
"""


class BlobObjectStorage:
    """
    The ``ObjectStorage`` port on one SQLite file; the app serves its signed URLs.

    Args:
        path: The file; made when it is missing, in a folder that is there.
        base_url: Where the app is reached, without a trailing slash.
        clock: Tells when a URL has expired.

    Raises:
        OSError: The file cannot be made.
        sqlite3.Error: It is no database, or cannot be written.
    """

    def __init__(self, path: Path, base_url: str, clock: Clock) -> None:
        # The file holds what signs the URLs: nobody else may read it.
        path.touch(mode=0o600)
        self._path = path
        self._clock = clock
        with closing(self._connect()) as db:
            db.executescript(TABLES)
            db.execute("insert or ignore into secret values (1, ?)", (secrets.token_bytes(32),))
            secret = db.execute("select bytes from secret").fetchone()[0]
        self._urls = MediaUrls(base_url, secret)

    def routes(self) -> Sequence[Route]:
        """Return the route that answers this storage's URLs."""
        return [media_route(self, self._urls, self._clock)]

    async def put(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        content_type: str,
        size_bytes: int | None = None,  # noqa: ARG002 - the row is as long as the stream was
    ) -> StoredObject:
        """Gather the stream, then write one row: whatever raises before that leaves nothing."""
        content = b"".join([chunk async for chunk in chunks])
        await self._run(
            "insert or ignore into objects values (?, ?, ?)", key, content_type, content
        )
        stored = await self.head(key)
        if stored is None:
            raise unavailable("The object was removed while it was being stored.")
        return stored

    def url_for(self, key: str) -> str:
        """Return a URL that can be read for about an hour."""
        return self._urls.url_for(key, self._clock.now())

    def key_of(self, url: str) -> str | None:
        """Return the key of a URL that was made here."""
        return self._urls.key_of(url)

    async def head(self, key: str) -> StoredObject | None:
        """Return what is stored under a key."""
        rows = await self._run("select length(content), type from objects where key = ?", key)
        return StoredObject(key, *rows[0]) if rows else None

    async def open(self, key: str) -> AsyncIterator[bytes]:
        """Stream an object's bytes, in one chunk."""
        rows = await self._run("select content from objects where key = ?", key)
        if not rows:
            raise EdgeError(Code.NOT_FOUND, "There is no such object.")
        yield rows[0][0]

    async def delete(self, key: str) -> None:
        """Remove an object."""
        await self._run("delete from objects where key = ?", key)

    async def check(self) -> None:
        """Look, and change nothing."""
        await self._run("select 1 from objects limit 1")

    async def _run(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        def run() -> list[tuple[Any, ...]]:
            with closing(self._connect()) as db:
                return db.execute(sql, values).fetchall()

        try:
            return await to_thread.run_sync(run)
        except sqlite3.Error as error:
            raise unavailable("The storage cannot be used; try again.") from error

    def _connect(self) -> sqlite3.Connection:
        # Each statement is its own transaction.
        return sqlite3.connect(self._path, isolation_level=None)


def from_url(url: str, wiring: Wiring) -> ObjectStorage:
    """
    Return the storage of a ``blobs:///path`` setting.

    Raises:
        ValueError: It names no file, or one that is no database.
        OSError: The file cannot be made.
    """
    path = unquote(urlsplit(url).path)
    if path in ("", "/"):
        raise ValueError("name a file, as in blobs:///srv/media.db")
    try:
        return BlobObjectStorage(Path(path), wiring.public_url, wiring.clock)
    except sqlite3.Error as error:
        raise ValueError(f"{path} cannot be opened: {error}") from error
