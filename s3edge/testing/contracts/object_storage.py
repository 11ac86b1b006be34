"""What any ``ObjectStorage`` must do."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from functools import partial
from urllib.parse import urlsplit
from uuid import uuid4

import anyio
import pytest
from attrs import frozen

from s3edge.errors import Code, EdgeError
from s3edge.ports import ObjectStorage
from s3edge.rules.images import CONTENT_TYPES
from s3edge.rules.keys import mask_key, unsigned, upload_key
from s3edge.testing.contracts.concurrency import at_once
from s3edge.testing.contracts.refusal import refused
from s3edge.values import StoredObject


PNG = "image/png"

CHUNK = bytes(range(256)) * 1024
"""256 KiB in which every byte occurs."""


@frozen
class ObjectStorageHarness:
    """
    What the suite needs.

    Attributes:
        storage: The port under test.
        keys: Names, in the store's own words, everything that is physically there: objects, unfinished
            uploads, temporary files. It does not go through the port.
        foreign_urls: Makes URLs that look like the given one, which this storage made, and are not
            its own: another bucket, another folder. The suite itself makes those with another scheme,
            host or port.
    """

    storage: ObjectStorage
    keys: Callable[[], Awaitable[Collection[str]]]
    foreign_urls: Callable[[str], Sequence[str]]


class ObjectStorageContract:
    """
    The promises of ``ObjectStorage``, checked.

    A subclass supplies the fixture ``harness``.
    """

    pytestmark = pytest.mark.anyio

    async def test_check_passes(self, harness: ObjectStorageHarness) -> None:
        """The storage answers, and holds afterwards what it held before."""
        await _put(harness.storage, _key(), [CHUNK])
        before = sorted(await harness.keys())
        await harness.storage.check()
        assert sorted(await harness.keys()) == before

    async def test_what_is_put_is_read_back(self, harness: ObjectStorageHarness) -> None:
        """Bytes, length and type come back, however the stream was cut."""
        streams: list[list[bytes]] = [
            [],
            [b""],
            [b"\x00"],
            [b"a", b"", b"bc"],
            [CHUNK, b"end"],
            # More than a part of a multipart upload, which is 5 MiB at least.
            [CHUNK] * 24 + [b"end"],
        ]
        for index, stream in enumerate(streams):
            content = b"".join(stream)
            content_type = CONTENT_TYPES[index % len(CONTENT_TYPES)]
            for size_bytes in (None, len(content)):
                key = _key()
                stored = StoredObject(key, len(content), content_type)
                put = harness.storage.put(
                    key, _stream(stream), content_type=content_type, size_bytes=size_bytes
                )
                assert await put == stored
                assert await harness.storage.head(key) == stored
                assert await _content(harness.storage, key) == content

    async def test_nothing_is_seen_before_the_end(self, harness: ObjectStorageHarness) -> None:
        """While the stream runs its key holds nothing; then it holds all."""
        key = _key()

        async def watched() -> AsyncIterator[bytes]:
            for _ in range(4):
                await _assert_absent(harness.storage, key)
                yield CHUNK
            await _assert_absent(harness.storage, key)

        await harness.storage.put(key, watched(), content_type=PNG)
        assert await _content(harness.storage, key) == CHUNK * 4

    async def test_a_stream_that_raises_leaves_nothing(self, harness: ObjectStorageHarness) -> None:
        """The stream's own error comes out, and neither object nor leftover stays."""
        before = sorted(await harness.keys())
        errors: Sequence[Exception] = (
            EdgeError(Code.FILE_TOO_LARGE, "The file is too large."),
            ConnectionResetError("the client went away"),
        )
        for error in errors:
            for chunks in ([], [CHUNK], [CHUNK] * 24):
                key = _key()
                with pytest.raises(type(error)) as caught:
                    await harness.storage.put(
                        key, _stream(chunks, then=error), content_type=PNG, size_bytes=None
                    )
                assert caught.value is error
                await _assert_absent(harness.storage, key)
        assert sorted(await harness.keys()) == before

    async def test_a_cancelled_put_leaves_nothing(self, harness: ObjectStorageHarness) -> None:
        """A put that is cancelled amid the stream leaves neither object nor leftover."""
        before = sorted(await harness.keys())
        for chunks in ([], [CHUNK], [CHUNK] * 24):
            key, waiting = _key(), anyio.Event()
            async with anyio.create_task_group() as group:
                put = partial(harness.storage.put, key, _stalled(chunks, waiting), content_type=PNG)
                group.start_soon(put)
                await waiting.wait()
                group.cancel_scope.cancel()
            await _assert_absent(harness.storage, key)
        assert sorted(await harness.keys()) == before

    async def test_the_first_put_wins(self, harness: ObjectStorageHarness) -> None:
        """A key keeps its first object, whatever comes later, of any type, or at the same time."""
        for first_type in CONTENT_TYPES:
            key = _key()
            first = await harness.storage.put(key, _stream([b"first"]), content_type=first_type)
            before = sorted(await harness.keys())
            for content_type in CONTENT_TYPES:
                later = _stream([b"a later one"])
                assert await harness.storage.put(key, later, content_type=content_type) == first
                assert await harness.storage.head(key) == first
                assert await _content(harness.storage, key) == b"first"
            assert sorted(await harness.keys()) == before
        key, contents = _key(), [bytes([index]) * (index + 1) for index in range(8)]
        stored, refusals = await at_once(
            partial(_put, harness.storage, key, [content]) for content in contents
        )
        assert refusals == []
        winner = await _content(harness.storage, key)
        assert winner in contents
        assert stored == [StoredObject(key, len(winner), PNG)] * len(contents)

    async def test_a_url_leads_back_to_its_key(self, harness: ObjectStorageHarness) -> None:
        """Each key has a URL of its own, permanent but for the query, that names it again."""
        user_id, task_id = uuid4(), uuid4()
        keys = [
            upload_key(user_id, uuid4()),
            upload_key(user_id, uuid4()),
            mask_key(user_id, task_id),
            mask_key(user_id, task_id, 1),
            mask_key(uuid4(), task_id),
            "a",
            "a/b",
            "a-b_c/d.e",
        ]
        permanent = set()
        for key in keys:
            url = harness.storage.url_for(key)
            assert harness.storage.key_of(url) == key
            assert harness.storage.key_of(unsigned(url)) == key
            assert unsigned(harness.storage.url_for(key)) == unsigned(url)
            permanent.add(unsigned(url))
        assert len(permanent) == len(keys)

    async def test_a_foreign_url_has_no_key(self, harness: ObjectStorageHarness) -> None:
        """What only looks like a URL of this storage names nothing in it."""
        url = harness.storage.url_for(_key())
        for foreign in [*_foreign_urls(url), *harness.foreign_urls(url)]:
            assert (foreign, harness.storage.key_of(foreign)) == (foreign, None)

    async def test_an_absent_key_has_no_head(self, harness: ObjectStorageHarness) -> None:
        """A key that holds nothing has no head, nor has the folder of one that does."""
        key = _key()
        await _put(harness.storage, key, [CHUNK])
        assert await harness.storage.head(_key()) is None
        assert await harness.storage.head(key.rpartition("/")[0]) is None
        assert await harness.storage.head(key + "/x") is None

    async def test_an_absent_key_cannot_be_opened(self, harness: ObjectStorageHarness) -> None:
        """Reading a key that holds nothing is refused, nor is the folder of one read."""
        key = _key()
        await _put(harness.storage, key, [CHUNK])
        for absent in (_key(), key.rpartition("/")[0], key + "/x"):
            with refused(Code.NOT_FOUND):
                await _content(harness.storage, absent)

    async def test_a_deleted_object_is_gone(self, harness: ObjectStorageHarness) -> None:
        """Nothing of a deleted object stays, others do, and its key can be used again."""
        other = _key()
        await _put(harness.storage, other, [b"other"])
        before = sorted(await harness.keys())
        for content_type in CONTENT_TYPES:
            key = _key()
            await harness.storage.put(key, _stream([CHUNK]), content_type=content_type)
            await harness.storage.delete(key)
            await _assert_absent(harness.storage, key)
            assert sorted(await harness.keys()) == before
            await _put(harness.storage, key, [b"again"])
            assert await _content(harness.storage, key) == b"again"
            await harness.storage.delete(key)
        assert await _content(harness.storage, other) == b"other"

    async def test_deleting_nothing_is_no_error(self, harness: ObjectStorageHarness) -> None:
        """Deleting is done when nothing is there, for the second time as for the first."""
        key = _key()
        await harness.storage.delete(key)
        await _put(harness.storage, key, [CHUNK])
        await harness.storage.delete(key)
        await harness.storage.delete(key)
        await _assert_absent(harness.storage, key)


def _key() -> str:
    return upload_key(uuid4(), uuid4())


async def _put(storage: ObjectStorage, key: str, chunks: Sequence[bytes]) -> StoredObject:
    return await storage.put(key, _stream(chunks), content_type=PNG)


async def _content(storage: ObjectStorage, key: str) -> bytes:
    return b"".join([chunk async for chunk in storage.open(key)])


async def _assert_absent(storage: ObjectStorage, key: str) -> None:
    assert await storage.head(key) is None
    with refused(Code.NOT_FOUND):
        await _content(storage, key)


async def _stream(
    chunks: Sequence[bytes], *, then: Exception | None = None
) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if then is not None:
        raise then


async def _stalled(chunks: Sequence[bytes], waiting: anyio.Event) -> AsyncIterator[bytes]:
    """Yield the chunks, say so, and never end."""
    for chunk in chunks:
        yield chunk
    waiting.set()
    await anyio.sleep_forever()


def _foreign_urls(url: str) -> Sequence[str]:
    """Return URLs with another scheme, host, port or path, and texts that are no URL."""
    parts = urlsplit(url)
    other_scheme = "http" if parts.scheme == "https" else "https"
    host, port = parts.hostname or "", parts.port
    elsewhere = [
        "evil.example",
        f"{parts.netloc}.evil.example",
        f"evil-{parts.netloc}",
        f"{parts.netloc}@evil.example",
        f"somebody@{parts.netloc}",
        f"{host}:{4711 if port is None else port + 1}",
    ]
    bare = unsigned(url)
    return [
        *(parts._replace(netloc=netloc).geturl() for netloc in elsewhere),
        parts._replace(scheme=other_scheme).geturl(),
        parts._replace(scheme="ftp").geturl(),
        f"//{parts.netloc}{parts.path}",
        parts.path,
        parts._replace(path="/").geturl(),
        # No key has such a path: a server that normalises it would read another object.
        *(
            bare + end
            for end in ("/", "//x", "/../x", "/./x", "/%2e%2e/x", "%2Fx", "#x", "\\x", " ")
        ),
        f"https://evil.example/?{url}",
        f"https://evil.example/#{url}",
        f" {url}",
        "http://[::1",
        "http://host:port/",
        "not a URL",
        "",
    ]
