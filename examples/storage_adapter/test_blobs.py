"""The storage keeps every promise of its port."""

import sqlite3
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from s3edge.rules.keys import unsigned
from s3edge.testing import ManualClock, ObjectStorageContract, ObjectStorageHarness
from s3edge_blobs import BlobObjectStorage


BASE_URL = "http://testserver"


class TestBlobObjectStorage(ObjectStorageContract):
    """``BlobObjectStorage``."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> ObjectStorageHarness:
        """Return an empty storage."""
        path = tmp_path / "media.db"
        storage = BlobObjectStorage(path, BASE_URL, ManualClock())

        async def keys() -> Collection[str]:
            with closing(sqlite3.connect(path)) as db:
                return [row[0] for row in db.execute("select key from objects")]

        def foreign_urls(url: str) -> Sequence[str]:
            path = unsigned(url).removeprefix(BASE_URL)
            return [f"{BASE_URL}/other{path}", f"{BASE_URL}/media"]

        return ObjectStorageHarness(storage, keys, foreign_urls)
