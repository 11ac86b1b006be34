"""What is sent: R2 refuses much that moto takes."""

import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from s3edge.errors import Code, EdgeError
from s3edge.values import StoredObject
from s3edge_s3.parts import PART_BYTES
from s3edge_s3.storage import S3ObjectStorage


pytestmark = pytest.mark.anyio

Store = Any  # RecordingStore in conftest.py
OpenStorage = Callable[..., AbstractAsyncContextManager[S3ObjectStorage]]

KEY = "uploads/11111111-0000-4000-8000-000000000000/22222222-0000-4000-8000-000000000000"
PNG = "image/png"
CHUNK_BYTES = 256 * 1024


async def stream(size_bytes: int, chunk_bytes: int = CHUNK_BYTES) -> AsyncIterator[bytes]:
    """Yield so many bytes."""
    for start in range(0, size_bytes, chunk_bytes):
        yield b"\xa5" * min(chunk_bytes, size_bytes - start)


def names(sent: Any) -> set[str]:
    """Return the names of a request's headers, without those of the transport."""
    return set(sent.headers) - {"accept", "accept-encoding", "host", "user-agent", "connection"}


SIGNED = {"authorization", "x-amz-content-sha256", "x-amz-date"}
OF_OBJECT = {"content-type", "x-amz-meta-s3edge-put"}


@pytest.mark.parametrize("size_bytes", [0, 1, CHUNK_BYTES, PART_BYTES - 1, PART_BYTES])
async def test_up_to_a_part_is_one_put(
    store: Store, storage: S3ObjectStorage, size_bytes: int
) -> None:
    """One conditional PUT of known length, its body hashed, and no header that is not needed."""
    stored = await storage.put(KEY, stream(size_bytes), content_type=PNG)
    assert stored == StoredObject(KEY, size_bytes, PNG)
    [sent] = store.sent
    assert (sent.action, sent.key) == ("PUT", KEY)
    assert names(sent) == SIGNED | OF_OBJECT | {"content-length", "if-none-match"}
    assert sent.headers["content-length"] == str(size_bytes)
    assert sent.headers["if-none-match"] == "*"
    assert sent.headers["content-type"] == PNG
    assert sent.size_bytes == size_bytes


@pytest.mark.parametrize(
    ("size_bytes", "chunk_bytes", "last_bytes"),
    [
        (PART_BYTES + 1, CHUNK_BYTES, 1),
        (2 * PART_BYTES, CHUNK_BYTES, PART_BYTES),
        (2 * PART_BYTES, 2 * PART_BYTES, PART_BYTES),
        (2 * PART_BYTES + 12_345, 1_000_003, 12_345),
        (3 * PART_BYTES - 1, 3 * PART_BYTES, PART_BYTES - 1),
    ],
)
async def test_more_is_sent_in_equal_parts(
    store: Store,
    storage: S3ObjectStorage,
    size_bytes: int,
    chunk_bytes: int,
    last_bytes: int,
) -> None:
    """All parts but the last have 5 MiB, however the stream was cut; the end is conditional."""
    stored = await storage.put(KEY, stream(size_bytes, chunk_bytes), content_type=PNG)
    assert stored == StoredObject(KEY, size_bytes, PNG)
    begin, *parts, complete = store.sent
    assert begin.action == "POST begin"
    assert names(begin) == SIGNED | OF_OBJECT | {"content-length"}
    assert [part.action for part in parts] == [f"PUT part {i + 1}" for i in range(len(parts))]
    assert [part.size_bytes for part in parts[:-1]] == [PART_BYTES] * (len(parts) - 1)
    assert parts[-1].size_bytes == last_bytes
    for part in parts:
        assert names(part) == SIGNED | {"content-length"}
        assert part.headers["content-length"] == str(part.size_bytes)
    assert complete.action == "POST complete"
    assert names(complete) == SIGNED | {"content-length", "content-type", "if-none-match"}
    assert complete.headers["if-none-match"] == "*"
    assert await storage.head(KEY) == stored


async def test_nothing_is_asked_but_of_single_objects(
    store: Store, storage: S3ObjectStorage
) -> None:
    """Reading, removing and checking send signed requests about one key, without a body."""
    await storage.put(KEY, stream(3), content_type=PNG)
    await storage.head(KEY)
    assert [chunk async for chunk in storage.open(KEY)] == [b"\xa5" * 3]
    await storage.check()
    await storage.delete(KEY)
    assert store.actions == ["PUT", "HEAD", "GET", "GET", "DELETE"]
    for sent in store.sent[1:]:
        assert sent.key
        assert names(sent) - {"content-length"} == SIGNED
        assert sent.size_bytes == 0
        assert sent.headers["accept-encoding"] == "identity"


async def test_a_lent_key_sends_its_token(store: Store, open_storage: OpenStorage) -> None:
    """The session token goes along, and is signed."""
    async with open_storage(store.endpoint, token="session-token") as storage:
        await storage.put(KEY, stream(3), content_type=PNG)
        url = storage.url_for(KEY)
    [sent] = store.sent
    assert sent.headers["x-amz-security-token"] == "session-token"
    assert "x-amz-security-token" in sent.headers["authorization"]
    assert parse_qs(urlsplit(url).query)["X-Amz-Security-Token"] == ["session-token"]


async def test_a_signed_url_is_read_by_anybody(store: Store, storage: S3ObjectStorage) -> None:
    """It is SigV4, good for an hour and five minutes, and for this object alone."""
    await storage.put(KEY, stream(3), content_type=PNG)
    url = storage.url_for(KEY)
    query = parse_qs(urlsplit(url).query)
    assert set(query) == {
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-Date",
        "X-Amz-Expires",
        "X-Amz-Signature",
        "X-Amz-SignedHeaders",
    }
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Expires"] == ["3900"]
    assert query["X-Amz-SignedHeaders"] == ["host"]
    async with httpx.AsyncClient(trust_env=False) as anybody:
        answer = await anybody.get(url)
        assert (answer.status_code, answer.content) == (200, b"\xa5" * 3)
        assert answer.headers["content-type"] == PNG
        assert (await anybody.get(url.replace(KEY, "masks/x"))).status_code == 403


async def test_a_wrong_secret_is_refused(
    store: Store, open_storage: OpenStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store of these tests does look at signatures."""
    monkeypatch.setattr(
        "botocore.credentials.Credentials.get_frozen_credentials",
        lambda self: type("Key", (), {"access_key": "x", "secret_key": "y", "token": None}),
    )
    async with open_storage(store.endpoint) as storage:
        with pytest.raises(EdgeError) as caught:
            await storage.put(KEY, stream(3), content_type=PNG)
    assert caught.value.code is Code.SERVICE_UNAVAILABLE
    assert store.is_empty


@pytest.mark.parametrize("operation", ["put", "head", "open", "delete"])
async def test_what_is_no_key_is_never_sent(
    store: Store, storage: S3ObjectStorage, operation: str
) -> None:
    """A key that could lead elsewhere is refused or holds nothing; no request is made."""
    bad = "uploads/../secret?acl"

    async def read() -> None:
        with pytest.raises(EdgeError) as caught:
            _ = [chunk async for chunk in storage.open(bad)]
        assert caught.value.code is Code.NOT_FOUND

    async def put() -> None:
        with pytest.raises(EdgeError) as caught:
            await storage.put(bad, stream(3), content_type=PNG)
        assert caught.value.code is Code.INTERNAL_ERROR

    async def head() -> None:
        assert await storage.head(bad) is None

    async def delete() -> None:
        await storage.delete(bad)

    operations: dict[str, Callable[[], Awaitable[None]]] = {
        "put": put,
        "head": head,
        "open": read,
        "delete": delete,
    }
    await operations[operation]()
    assert store.sent == []


@pytest.mark.parametrize("parts", [1, 2, 7])
async def test_the_memory_of_a_put_is_bounded(
    store: Store, storage: S3ObjectStorage, parts: int
) -> None:
    """However long the stream is, no more than a part waits to be sent, and two are in memory."""
    held: list[int] = []

    async def watched() -> AsyncIterator[bytes]:
        taken = 0
        async for chunk in stream(parts * PART_BYTES):
            held.append(taken - store.received_bytes)
            taken += len(chunk)
            yield chunk
        held.append(taken - store.received_bytes)

    tracemalloc.start()
    try:
        stored = await storage.put(KEY, watched(), content_type=PNG)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2 * PART_BYTES + 8 * CHUNK_BYTES
    assert stored.size_bytes == parts * PART_BYTES
    assert len(held) == parts * PART_BYTES // CHUNK_BYTES + 1
    assert max(held) <= PART_BYTES + CHUNK_BYTES
