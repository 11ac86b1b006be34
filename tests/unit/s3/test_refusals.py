"""What a store refuses is the operator's to mend: the user hears 503, the log says what to do."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import anyio
import pytest
from aiohttp import web

from s3edge.errors import Code, EdgeError
from s3edge_aiohttp import Answer
from s3edge_s3.answers import UNKNOWN_CODE, error_code, etag, object_head, upload_id
from s3edge_s3.faults import Faults
from s3edge_s3.parts import PART_BYTES
from s3edge_s3.presets import R2_NAMES, S3_NAMES
from s3edge_s3.storage import S3ObjectStorage


pytestmark = pytest.mark.anyio

Store = Any  # RecordingStore in conftest.py
Sent = Any
S3Error = Callable[[int, str], web.Response]
OpenStorage = Callable[..., AbstractAsyncContextManager[S3ObjectStorage]]

KEY = "uploads/11111111-0000-4000-8000-000000000000/22222222-0000-4000-8000-000000000000"
SECRETS = ("AKIDEXAMPLE", "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY", "Signature=", "127.0.0.1")


async def stream(size_bytes: int) -> AsyncIterator[bytes]:
    """Yield so many bytes."""
    for start in range(0, size_bytes, PART_BYTES):
        yield b"\xa5" * min(PART_BYTES, size_bytes - start)


async def put(storage: S3ObjectStorage) -> None:
    """Put a small object."""
    await storage.put(KEY, stream(10), content_type="image/png")


async def put_in_parts(storage: S3ObjectStorage) -> None:
    """Put a large object."""
    await storage.put(KEY, stream(PART_BYTES + 10), content_type="image/png")


async def head(storage: S3ObjectStorage) -> None:
    """Look at an object."""
    await storage.head(KEY)


async def read(storage: S3ObjectStorage) -> None:
    """Read an object."""
    _ = [chunk async for chunk in storage.open(KEY)]


async def delete(storage: S3ObjectStorage) -> None:
    """Delete an object."""
    await storage.delete(KEY)


async def check(storage: S3ObjectStorage) -> None:
    """Check the storage."""
    await storage.check()


operations = pytest.mark.parametrize(
    "operation", [put, put_in_parts, head, read, delete, check], ids=lambda call: call.__name__
)
Operation = Callable[[S3ObjectStorage], Awaitable[None]]


async def refused(storage: S3ObjectStorage, operation: Operation) -> EdgeError:
    """Return the error of an operation."""
    with pytest.raises(EdgeError) as caught:
        await operation(storage)
    assert caught.value.code is Code.SERVICE_UNAVAILABLE
    return caught.value


@operations
@pytest.mark.parametrize(
    ("status", "code", "setting"),
    [
        (401, "Unauthorized", "R2_ACCESS_KEY_ID"),
        (403, "AccessDenied", "Object Read & Write"),
        (403, "InvalidAccessKeyId", "R2_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", "R2_SECRET_ACCESS_KEY"),
        (403, "RequestTimeTooSkewed", "clock"),
        (301, "PermanentRedirect", "R2_ENDPOINT"),
    ],
)
async def test_a_refusal_is_said_in_the_log(
    store: Store,
    storage: S3ObjectStorage,
    answer_with: S3Error,
    caplog: pytest.LogCaptureFixture,
    operation: Operation,
    status: int,
    code: str,
    setting: str,
) -> None:
    """One error line names the status and the setting, and neither it nor the error holds a secret."""

    async def refuse(sent: Sent) -> web.Response:
        return answer_with(status, code)

    store.before = refuse
    caplog.set_level(logging.DEBUG)
    error = await refused(storage, operation)
    assert len(store.sent) == 1
    [line] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.levelno == logging.ERROR
    assert str(status) in line.message
    # A HEAD's answer has no body, so only the status can tell.
    if operation is not head:
        assert code in line.message
        assert setting in line.message
    said = caplog.text + repr(error) + str(error) + repr(storage)
    assert [secret for secret in SECRETS if secret in said] == []
    assert "Unauthorized" not in str(error)


@pytest.mark.parametrize("operation", [put, put_in_parts, read, delete, check])
async def test_a_missing_bucket_is_no_missing_object(
    store: Store,
    storage: S3ObjectStorage,
    answer_with: S3Error,
    caplog: pytest.LogCaptureFixture,
    operation: Operation,
) -> None:
    """404 NoSuchBucket is the operator's fault, not an absence."""

    async def refuse(sent: Sent) -> web.Response:
        return answer_with(404, "NoSuchBucket")

    store.before = refuse
    await refused(storage, operation)
    assert "NoSuchBucket" in caplog.text
    assert "R2_BUCKET" in caplog.text


async def test_check_wants_an_s3_server(store: Store, storage: S3ObjectStorage) -> None:
    """A web server that knows no such page is none."""

    async def answer(sent: Sent) -> web.Response:
        return web.Response(status=404, text="<html>not here</html>")

    await storage.check()
    store.before = answer
    await refused(storage, check)


async def test_head_wants_an_s3_server(store: Store, storage: S3ObjectStorage) -> None:
    """A portal that answers 200 to everything stores nothing."""

    async def answer(sent: Sent) -> web.Response:
        return web.Response(text="<html>Welcome to the hotel</html>")

    store.before = answer
    await refused(storage, head)


@operations
async def test_a_silent_store_is_given_up(
    store: Store,
    storage: S3ObjectStorage,
    impatient: S3ObjectStorage,
    caplog: pytest.LogCaptureFixture,
    operation: Operation,
) -> None:
    """Nobody waits for ever; when the store speaks again, it is used as ever."""

    async def say_nothing(sent: Sent) -> None:
        await store.silence()

    store.before = say_nothing
    error = await refused(impatient, operation)
    said = caplog.text + repr(error) + str(error)
    assert [secret for secret in SECRETS if secret in said] == []
    store.before = None
    await put(storage)
    assert [chunk async for chunk in storage.open(KEY)] == [b"\xa5" * 10]


async def test_an_object_that_breaks_off_is_not_whole(
    store: Store, storage: S3ObjectStorage
) -> None:
    """A reader never takes a part of an object for all of it."""
    store.keep(KEY, b"x" * 1000)

    async def break_off(sent: Sent) -> web.Response | None:
        if sent.action != "GET":
            return None
        return CutShort(headers={"Content-Length": "1000", "ETag": '"x"'})

    store.before = break_off
    await refused(storage, read)


class CutShort(web.Response):
    """Says that it is long, and is not."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Send a little and hang up."""
        assert self._payload_writer is not None
        await self._payload_writer.write(b"x" * 10)
        assert self._req is not None
        assert self._req.transport is not None
        self._req.transport.close()


async def test_a_refusal_amid_a_long_body_is_seen(
    open_storage: OpenStorage, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that answers 403 to the head and hangs up is not taken for one that broke off."""
    ended = anyio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            body = b"<Error><Code>AccessDenied</Code></Error>"
            writer.write(
                b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            await writer.drain()
            # As servers do that do not want to lose their answer.
            while await reader.read(65536):
                pass
        with suppress(ConnectionError):
            writer.close()
            await writer.wait_closed()
        ended.set()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, open_storage(f"http://127.0.0.1:{port}") as storage:
        with pytest.raises(EdgeError):
            await storage.put(KEY, stream(PART_BYTES), content_type="image/png")
        await ended.wait()
    assert "403 AccessDenied" in caplog.text


def test_error_codes_are_read_from_anything() -> None:
    """Only a plain code near the beginning counts; no entity is ever expanded."""
    bomb = (
        b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
        b"<Error><Code>&b;</Code></Error>"
    )
    assert error_code(b"<Error><Code>NoSuchKey</Code></Error>") == "NoSuchKey"
    assert error_code(bomb) == UNKNOWN_CODE
    assert error_code(b"<Code>" + b"a" * 65 + b"</Code>") == UNKNOWN_CODE
    assert error_code(b"<Code>a\nERROR forged</Code>") == UNKNOWN_CODE
    assert error_code(b" " * 70_000 + b"<Code>NoSuchKey</Code>") == UNKNOWN_CODE
    assert error_code(b"") == UNKNOWN_CODE
    assert error_code(b"\xff\xfe\x00") == UNKNOWN_CODE


def test_upload_ids_and_etags_are_unescaped() -> None:
    """They come as XML text, whatever is in them."""
    named = Answer(200, {}, b"<UploadId>a&amp;b&lt;c/+=</UploadId>")
    assert upload_id(named) == "a&b<c/+="
    assert upload_id(Answer(200, {}, b"<UploadId></UploadId>")) is None
    assert etag(Answer(200, {}, b"<ETag>&quot;abc-2&quot;</ETag>")) == "abc-2"
    assert etag(Answer(200, {}, b"<ETag>&#34;abc-2&#34;</ETag>")) == "abc-2"
    assert etag(Answer(200, {"etag": '"abc"'}, b"")) == "abc"
    assert etag(Answer(200, {}, b"")) == ""


@pytest.mark.parametrize("length", ["", "-1", "٣", "1e3", "0x1"])
def test_a_head_without_a_length_is_none(length: str) -> None:
    """A length is decimal ASCII digits."""
    assert object_head({"etag": '"x"', "content-length": length}) is None
    assert object_head({"etag": '"x"', "content-length": "3"}) is not None


@pytest.mark.parametrize("names", [R2_NAMES, S3_NAMES])
@pytest.mark.parametrize(
    "status", [200, 301, 400, 401, 403, 404, 412, 429, 499, 500, 503, 599, 999]
)
def test_there_is_advice_for_every_answer(names: Any, status: int) -> None:
    """Whatever the status, known or not, what to do about it is one line."""
    advice = Faults(names).fix_of(status, UNKNOWN_CODE)
    assert advice
    assert "\n" not in advice
