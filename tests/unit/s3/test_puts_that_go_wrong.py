"""Puts whose store fails, loses answers or lies: what is told, and that nothing is left."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from aiohttp import web

from s3edge.errors import Code, EdgeError
from s3edge.values import StoredObject
from s3edge_s3.parts import PART_BYTES
from s3edge_s3.storage import S3ObjectStorage


pytestmark = pytest.mark.anyio

Store = Any  # RecordingStore in conftest.py
Sent = Any
S3Error = Callable[[int, str], web.Response]
OpenStorage = Callable[..., AbstractAsyncContextManager[S3ObjectStorage]]

KEY = "uploads/11111111-0000-4000-8000-000000000000/22222222-0000-4000-8000-000000000000"
PNG = "image/png"
WHOLE, IN_PARTS = 10, 2 * PART_BYTES + 10

sizes = pytest.mark.parametrize("size_bytes", [WHOLE, IN_PARTS], ids=["whole", "parts"])

LAST = ("PUT", "POST complete")
"""The requests that make an object appear."""


async def stream(size_bytes: int, *, then: Exception | None = None) -> AsyncIterator[bytes]:
    """Yield so many bytes, and perhaps raise."""
    for start in range(0, size_bytes, PART_BYTES):
        yield b"\xa5" * min(PART_BYTES, size_bytes - start)
    if then is not None:
        raise then


async def put(storage: S3ObjectStorage, size_bytes: int) -> StoredObject:
    """Put so many bytes."""
    return await storage.put(KEY, stream(size_bytes), content_type=PNG)


async def assert_unavailable(storage: S3ObjectStorage, size_bytes: int) -> None:
    """Put, and fail unless that is refused for now."""
    with pytest.raises(EdgeError) as caught:
        await put(storage, size_bytes)
    assert (caught.value.code, caught.value.retryable) == (Code.SERVICE_UNAVAILABLE, True)


@sizes
async def test_another_put_was_first(
    store: Store, storage: S3ObjectStorage, size_bytes: int
) -> None:
    """Its object stays and is returned; of ours nothing does."""
    store.keep(KEY, b"first", "image/webp")
    assert await put(storage, size_bytes) == StoredObject(KEY, 5, "image/webp")
    assert store.objects[KEY].body == b"first"
    assert store.uploads == {}


@sizes
async def test_another_put_overtakes(
    store: Store, storage: S3ObjectStorage, size_bytes: int
) -> None:
    """So it is when the other object appears just before ours would."""

    async def overtake(sent: Sent) -> None:
        if sent.action in LAST:
            store.keep(KEY, b"first")

    store.before = overtake
    assert (await put(storage, size_bytes)).size_bytes == 5
    assert store.objects[KEY].body == b"first"
    assert store.uploads == {}


@sizes
@pytest.mark.parametrize("status", [429, 500, 503, 409])
async def test_a_busy_store_is_asked_again(
    store: Store, storage: S3ObjectStorage, answer_with: S3Error, size_bytes: int, status: int
) -> None:
    """Each request may be refused for a moment."""
    refused: set[str] = set()

    async def refuse_once(sent: Sent) -> web.Response | None:
        if sent.action in refused:
            return None
        refused.add(sent.action)
        return answer_with(status, "SlowDown")

    store.before = refuse_once
    assert await put(storage, size_bytes) == StoredObject(KEY, size_bytes, PNG)
    assert len(store.sent) == 2 * len(refused)


@sizes
async def test_a_lost_answer_is_asked_for_again(
    store: Store, storage: S3ObjectStorage, hang_up: type[Exception], size_bytes: int
) -> None:
    """The store acted and its answer was lost, each time: the object is there once, and is ours."""
    lost: set[str] = set()

    async def lose_once(sent: Sent) -> None:
        if sent.action not in lost and sent.action != "POST begin":
            lost.add(sent.action)
            raise hang_up

    store.after = lose_once
    assert await put(storage, size_bytes) == StoredObject(KEY, size_bytes, PNG)
    assert list(store.objects) == [KEY]
    assert store.uploads == {}
    assert lost


@sizes
async def test_an_answer_that_stays_lost_is_settled(
    store: Store, storage: S3ObjectStorage, hang_up: type[Exception], size_bytes: int
) -> None:
    """No try of the last request is answered, but the object is there."""

    async def lose(sent: Sent) -> None:
        if sent.action in LAST:
            raise hang_up

    store.after = lose
    assert await put(storage, size_bytes) == StoredObject(KEY, size_bytes, PNG)
    assert store.uploads == {}


@sizes
async def test_a_failure_that_acted_is_settled(
    store: Store, storage: S3ObjectStorage, answer_with: S3Error, size_bytes: int
) -> None:
    """The last request is answered by 500 although it did its work."""

    async def fail(sent: Sent) -> web.Response | None:
        return answer_with(500, "InternalError") if sent.action in LAST else None

    store.after = fail
    assert await put(storage, size_bytes) == StoredObject(KEY, size_bytes, PNG)


@sizes
@pytest.mark.parametrize("failing", ["first", "last"])
@pytest.mark.parametrize("how", ["500", "403", "silence", "hang up", "garbage", "redirect"])
async def test_a_store_that_fails_keeps_nothing(
    store: Store,
    storage: S3ObjectStorage,
    hasty: S3ObjectStorage,
    answer_with: S3Error,
    hang_up: type[Exception],
    size_bytes: int,
    failing: str,
    how: str,
) -> None:
    """Whatever it does instead of its work, the user may try again and nothing is left."""
    begins = "POST begin" if size_bytes > PART_BYTES else "PUT"
    actions = (begins,) if failing == "first" else LAST

    async def fail(sent: Sent) -> web.Response | None:
        if sent.action not in actions:
            return None
        if how == "silence":
            await store.silence()
        if how == "hang up":
            raise hang_up
        if how == "garbage":
            return web.Response(text="<html>Welcome to the hotel</html>")
        if how == "redirect":
            return web.Response(status=301, headers={"Location": "http://127.0.0.1:1/"})
        return answer_with(int(how), "Broken")

    store.before = fail
    await assert_unavailable(hasty if how == "silence" else storage, size_bytes)
    assert store.is_empty
    store.before = None
    assert (await put(storage, size_bytes)).size_bytes == size_bytes


@pytest.mark.parametrize("how", ["500", "403", "silence", "no etag"])
async def test_a_part_that_fails_aborts_the_upload(
    store: Store,
    storage: S3ObjectStorage,
    hasty: S3ObjectStorage,
    answer_with: S3Error,
    how: str,
) -> None:
    """The parts before it are forgotten."""

    async def fail(sent: Sent) -> web.Response | None:
        if sent.action != "PUT part 2":
            return None
        if how == "silence":
            await store.silence()
        return web.Response() if how == "no etag" else answer_with(int(how), "Broken")

    store.before = fail
    await assert_unavailable(hasty if how == "silence" else storage, IN_PARTS)
    assert store.is_empty
    assert store.actions[-1] == "DELETE upload"


@sizes
async def test_other_bytes_than_were_sent_are_removed(
    store: Store, storage: S3ObjectStorage, size_bytes: int
) -> None:
    """An ETag that is not the MD5 of what was sent: the object is taken back."""
    is_whole = size_bytes <= PART_BYTES
    wrong = "0" * 32 if is_whole else f"{'0' * 32}-3"

    async def corrupt(sent: Sent) -> web.Response | None:
        if sent.action == "PUT":
            return web.Response(headers={"ETag": f'"{wrong}"'})
        if sent.action == "POST complete":
            return web.Response(text=f'<R><ETag>"{wrong}"</ETag></R>')
        return None

    store.after = corrupt
    await assert_unavailable(storage, size_bytes)
    assert store.is_empty
    assert store.actions[-1] == "DELETE"


async def test_a_corrupt_part_aborts_the_upload(store: Store, storage: S3ObjectStorage) -> None:
    """So it is with a part, before anything appears."""

    async def corrupt(sent: Sent) -> web.Response | None:
        is_second = sent.action == "PUT part 2"
        return web.Response(headers={"ETag": f'"{"0" * 32}"'}) if is_second else None

    store.after = corrupt
    await assert_unavailable(storage, IN_PARTS)
    assert store.is_empty
    assert "POST complete" not in store.actions


@sizes
@pytest.mark.parametrize("form", ["kms", "opaque"])
async def test_an_etag_that_is_no_md5_is_no_fault(
    store: Store, storage: S3ObjectStorage, size_bytes: int, form: str
) -> None:
    """With encryption by a key service it is something else; then the length and the mark tell."""
    encrypted = {"x-amz-server-side-encryption": "aws:kms"} if form == "kms" else {}
    etag = "0" * 32 if form == "kms" else "opaque"

    async def tag_otherwise(sent: Sent) -> web.Response | None:
        if sent.action == "PUT":
            return web.Response(headers={"ETag": f'"{etag}"', **encrypted})
        if sent.action == "POST complete":
            return web.Response(text=f"<R><ETag>{etag}-3</ETag></R>", headers=encrypted)
        return None

    store.after = tag_otherwise
    assert await put(storage, size_bytes) == StoredObject(KEY, size_bytes, PNG)
    assert store.actions[-1] == "HEAD"


async def test_what_is_taken_back_is_never_anothers(store: Store, storage: S3ObjectStorage) -> None:
    """A lying answer of success, while another's object stands there: that one is left alone."""
    store.keep(KEY, b"first")

    async def lie(sent: Sent) -> web.Response | None:
        return web.Response(headers={"ETag": '"lie"'}) if sent.action == "PUT" else None

    store.before = lie
    await assert_unavailable(storage, WHOLE)
    assert store.objects[KEY].body == b"first"


@pytest.mark.parametrize("times", [1, 100])
async def test_completing_may_fail_after_saying_200(
    store: Store, storage: S3ObjectStorage, times: int
) -> None:
    """An error document counts, whatever the status before it: it is tried again, then given up."""
    seen: list[Sent] = []

    async def fail(sent: Sent) -> web.Response | None:
        if sent.action != "POST complete" or len(seen) == times:
            return None
        seen.append(sent)
        document = (
            '<?xml version="1.0" encoding="UTF-8"?>\n\n<Error><Code>InternalError</Code></Error>'
        )
        return web.Response(text=document)

    store.before = fail
    if times == 1:
        assert await put(storage, IN_PARTS) == StoredObject(KEY, IN_PARTS, PNG)
    else:
        await assert_unavailable(storage, IN_PARTS)
        assert store.is_empty


async def test_completing_may_be_too_late_after_saying_200(
    store: Store, storage: S3ObjectStorage
) -> None:
    """The same for another put that was first."""
    store.keep(KEY, b"first")

    async def refuse(sent: Sent) -> web.Response | None:
        document = "<Error><Code>PreconditionFailed</Code></Error>"
        return web.Response(text=document) if sent.action == "POST complete" else None

    store.before = refuse
    assert (await put(storage, IN_PARTS)).size_bytes == 5
    assert store.uploads == {}


@pytest.mark.parametrize("parts", [0, 1, 2, 3])
async def test_a_stream_that_raises_leaves_nothing(
    store: Store, storage: S3ObjectStorage, parts: int
) -> None:
    """The very error comes out, and what was sent is forgotten."""
    lost = ConnectionResetError("the client went away")
    with pytest.raises(ConnectionResetError) as caught:
        await storage.put(KEY, stream(parts * PART_BYTES, then=lost), content_type=PNG)
    assert caught.value is lost
    assert store.is_empty


async def test_an_abort_that_fails_hides_nothing(
    store: Store,
    storage: S3ObjectStorage,
    answer_with: S3Error,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The stream's error comes out although the store does not forget; the log says so."""

    async def refuse(sent: Sent) -> web.Response | None:
        return answer_with(403, "AccessDenied") if sent.action == "DELETE upload" else None

    store.before = refuse
    lost = ConnectionResetError("the client went away")
    with pytest.raises(ConnectionResetError):
        await storage.put(KEY, stream(IN_PARTS, then=lost), content_type=PNG)
    assert "was not removed" in caplog.text


async def test_the_store_comes_back(
    find_free_port: Callable[[], int], open_storage: OpenStorage
) -> None:
    """While nobody listens, calls are refused; as soon as somebody does, they work."""
    port = find_free_port()
    async with open_storage(f"http://127.0.0.1:{port}") as storage:
        await assert_unavailable(storage, WHOLE)
        await assert_unavailable(storage, IN_PARTS)
        with pytest.raises(EdgeError):
            await storage.head(KEY)

        async def absent(request: web.Request) -> web.Response:
            return web.Response(status=404)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", absent)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            assert await storage.head(KEY) is None
        finally:
            await runner.cleanup()
