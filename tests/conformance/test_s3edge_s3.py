"""Buckets keep every promise, read by signed URLs or by a public host."""

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from s3edge.gateway import RandomIds
from s3edge.ports import Wiring
from s3edge.rules.claims import DEFAULT_TIER_CLAIM
from s3edge.rules.keys import unsigned, upload_key
from s3edge.testing import ManualClock, ObjectStorageContract, ObjectStorageHarness
from s3edge.testing.standins.object_store import ObjectStoreProcess, StandInBucket
from s3edge_s3.presets import from_r2, from_s3_url
from s3edge_s3.storage import S3ObjectStorage


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStoreProcess]:
    """Return a running store."""
    with ObjectStoreProcess() as running:
        yield running


@pytest.fixture
def bucket(store: ObjectStoreProcess) -> StandInBucket:
    """Return an empty bucket."""
    return store.create_bucket()


def wiring(vendor: Mapping[str, str]) -> Wiring:
    """Return what a factory is told."""
    return Wiring(
        data_dir=Path(),
        public_url="http://testserver",
        clock=ManualClock(),
        ids=RandomIds(),
        initial_credits=100,
        segment_cost=1,
        task_deadline_s=900,
        tier_claim=DEFAULT_TIER_CLAIM,
        vendor=vendor,
    )


def harness_of(storage: object, bucket: StandInBucket) -> ObjectStorageHarness:
    """Return the suite's harness for a storage on a bucket."""
    assert isinstance(storage, S3ObjectStorage)

    async def keys() -> Collection[str]:
        return bucket.keys()

    def foreign_urls(url: str) -> Sequence[str]:
        bare = unsigned(url)
        return [
            bare.replace(f"/{bucket.name}/", "/another-bucket/"),
            bare.replace(f"/{bucket.name}/", f"/{bucket.name}-2/"),
            bare.replace(f"/{bucket.name}/", "/"),
            bare.replace("http://", f"http://{bucket.name}."),
            bare.upper(),
            f"s3://{bucket.name}/a",
        ]

    return ObjectStorageHarness(storage, keys, foreign_urls)


async def assert_anybody_reads_by_url(harness: ObjectStorageHarness) -> None:
    """Fail unless what was put, whole or in parts, is read by its URL alone."""

    async def stream(content: bytes) -> AsyncIterator[bytes]:
        yield content

    async with httpx.AsyncClient(trust_env=False) as anybody:
        for content in (b"content", b"content" * 1_000_000):
            key = upload_key(uuid4(), uuid4())
            await harness.storage.put(key, stream(content), content_type="image/webp")
            answer = await anybody.get(harness.storage.url_for(key))
            assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp")
            assert answer.content == content


class TestR2(ObjectStorageContract):
    """A bucket as R2's, read by signed URLs."""

    @pytest.fixture
    async def harness(self, bucket: StandInBucket) -> AsyncIterator[ObjectStorageHarness]:
        """Return an empty storage."""
        storage = from_r2("r2", wiring(bucket.r2_settings()))
        assert isinstance(storage, S3ObjectStorage)
        async with storage:
            yield harness_of(storage, bucket)

    async def test_anybody_reads_by_url(self, harness: ObjectStorageHarness) -> None:
        """A signed URL needs nothing besides."""
        await assert_anybody_reads_by_url(harness)


class TestPublicBaseUrl(ObjectStorageContract):
    """A bucket as MinIO's, read by anybody at a host of its own."""

    @pytest.fixture
    async def harness(self, store: ObjectStoreProcess) -> AsyncIterator[ObjectStorageHarness]:
        """Return an empty storage."""
        bucket = store.create_bucket(is_public=True)
        settings = {"AWS_ACCESS_KEY_ID": "stand-in", "AWS_SECRET_ACCESS_KEY": "stand-in"}
        url = (
            f"s3://{bucket.name}?endpoint={bucket.endpoint}"
            f"&public_base_url={bucket.public_base_url}"
        )
        storage = from_s3_url(url, wiring(settings))
        assert isinstance(storage, S3ObjectStorage)
        async with storage:
            yield harness_of(storage, bucket)

    async def test_anybody_reads_by_url(self, harness: ObjectStorageHarness) -> None:
        """A public URL holds nothing but the key."""
        assert "?" not in harness.storage.url_for("a")
        await assert_anybody_reads_by_url(harness)
