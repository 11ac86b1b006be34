"""Whatever holds an image can be uploaded, is looked at first, and is streamed."""

import io
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from s3edge.client import ConfigurationError, FileTooLarge, InvalidRequest, S3EdgeError
from s3edge.rules.images import MAX_IMAGE_BYTES
from s3edge.testing.scripted_api import ScriptedApi, ok


IMAGE: dict[str, Any] = {
    "image_id": "6b6f2c1e-3333-4333-8333-333333333333",
    "image_url": "http://media.test/i",
    "size_bytes": 1,
    "content_type": "image/png",
    "width": 4,
    "height": 3,
}

pytestmark = pytest.mark.anyio


def file_in(request: httpx.Request) -> tuple[str, bytes]:
    """Return the type and the content of the file in an upload."""
    boundary = request.headers["Content-Type"].partition("boundary=")[2].encode()
    parts = request.content.split(b"--" + boundary)
    head, _, content = parts[-2].partition(b"\r\n\r\n")
    assert parts[-1] == b"--\r\n"
    assert int(request.headers["Content-Length"]) == len(request.content)
    return head.rpartition(b"Content-Type: ")[2].decode(), content.removesuffix(b"\r\n")


def test_a_path_is_uploaded(api: ScriptedApi, png: bytes, tmp_path: Path) -> None:
    """As text or as a ``Path``, with the project that it belongs to."""
    path = tmp_path / "image.of-no-type"
    path.write_bytes(png)
    api.answer(ok(IMAGE), ok(IMAGE))
    api.client().upload(str(path), project_id=IMAGE["image_id"])
    api.client().upload(path)
    assert [file_in(request) for request in api.requests] == [("image/png", png)] * 2
    assert f'name="project_id"\r\n\r\n{IMAGE["image_id"]}\r\n'.encode() in api.requests[0].content


def test_bytes_are_uploaded(api: ScriptedApi, png: bytes) -> None:
    """Their type is told by their beginning."""
    jpeg, webp = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (4, 3)).save(jpeg, "JPEG")
    Image.new("RGB", (4, 3)).save(webp, "WEBP")
    api.answer(ok(IMAGE), ok(IMAGE), ok(IMAGE))
    for content in (png, jpeg.getvalue(), bytearray(webp.getvalue())):
        api.client().upload(content)
    assert [file_in(request) for request in api.requests] == [
        ("image/png", png),
        ("image/jpeg", jpeg.getvalue()),
        ("image/webp", webp.getvalue()),
    ]


def test_an_open_file_is_uploaded_from_where_it_stands(
    api: ScriptedApi, png: bytes, tmp_path: Path
) -> None:
    """It stays open, and its owner's."""
    path = tmp_path / "image"
    path.write_bytes(b"before" + png)
    api.answer(httpx.ReadError("x"), ok(IMAGE))
    with path.open("rb") as file:
        file.seek(6)
        api.client().upload(file)
        assert not file.closed
    assert [file_in(request)[1] for request in api.requests] == [png, png]


def test_an_iterator_is_uploaded_and_repeated(api: ScriptedApi, png: bytes) -> None:
    """Although it can be read only once."""

    def chunks() -> Iterator[bytes]:
        yield png[:10]
        yield png[10:]

    api.answer(httpx.ReadError("x"), ok(IMAGE), ok(IMAGE))
    api.client().upload(chunks())
    api.client().upload([png])
    assert [file_in(request)[1] for request in api.requests] == [png] * 3


def test_a_pipe_is_uploaded(api: ScriptedApi, png: bytes) -> None:
    """A file that cannot be rewound."""

    def send() -> None:
        write.write(png)
        write.close()

    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as read, os.fdopen(writing, "wb") as write:
        thread = threading.Thread(target=send)
        thread.start()
        api.answer(ok(IMAGE))
        api.client().upload(read)
        thread.join()
    assert file_in(api.requests[0])[1] == png


def test_a_picture_of_pillows_is_uploaded(api: ScriptedApi) -> None:
    """As PNG, which loses nothing."""
    picture = Image.new("RGB", (4, 3), (9, 8, 7))
    api.answer(ok(IMAGE))
    api.client().upload(picture)
    content_type, content = file_in(api.requests[0])
    assert content_type == "image/png"
    assert Image.open(io.BytesIO(content)).getpixel((3, 2)) == (9, 8, 7)


async def test_the_async_client_uploads_all_of_these(
    api: ScriptedApi, png: bytes, tmp_path: Path
) -> None:
    """And asynchronous iterators besides."""

    async def chunks() -> AsyncIterator[bytes]:
        yield png[:10]
        yield png[10:]

    path = tmp_path / "image"
    path.write_bytes(png)
    sources: list[Any] = [path, png, io.BytesIO(png), iter([png]), chunks()]
    api.answer(*(ok(IMAGE) for _ in range(6)))
    async with api.async_client() as client:
        for source in sources:
            await client.upload(source)
        await client.upload(Image.open(io.BytesIO(png)))
    assert [file_in(request)[1] for request in api.requests[:5]] == [png] * 5
    with pytest.raises(ConfigurationError, match="AsyncClient"):
        api.client().upload(chunks())


@pytest.mark.parametrize("kind", ["path", "bytes", "file", "iterator"])
def test_too_large_an_image_is_refused_before_a_byte_is_sent(
    api: ScriptedApi, png: bytes, tmp_path: Path, kind: str
) -> None:
    """Over 10 MiB, to the byte; an iterator is not even read to its end."""
    largest = png + bytes(MAX_IMAGE_BYTES - len(png))
    path = tmp_path / "image"
    read: list[int] = []

    def chunks(content: bytes) -> Iterator[bytes]:
        for start in range(0, len(content), 1024 * 1024):
            read.append(start)
            yield content[start : start + 1024 * 1024]
        yield from [b"\0" * 1024] * 1024

    def source(content: bytes) -> Any:
        path.write_bytes(content)
        return {
            "path": path,
            "bytes": content,
            "file": io.BytesIO(content),
            "iterator": chunks(content) if len(content) > MAX_IMAGE_BYTES else iter([content]),
        }[kind]

    with pytest.raises(FileTooLarge, match="10 MiB") as refusal:
        api.client().upload(source(largest + b"\0"), idempotency_key="mine")
    assert (refusal.value.idempotency_key, api.requests) == ("mine", [])
    api.answer(ok(IMAGE))
    api.client().upload(source(largest))
    assert len(api.requests) == 1


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (b"", "not a PNG"),
        (b"GIF89a" + bytes(100), "PNG, JPEG or WebP"),
        (io.StringIO("text"), "'rb'"),
        (["text"], "'rb'"),
        ("/no/such/file", "cannot be read: No such file"),
        (7, "int cannot be uploaded"),
    ],
)
def test_what_is_no_image_is_refused_before_a_byte_is_sent(
    api: ScriptedApi, source: Any, says: str
) -> None:
    """With the field and what is wrong with it, as the server would say."""
    with pytest.raises(InvalidRequest, match=says) as refusal:
        api.client().upload(source)
    assert refusal.value.details[0].field == "file"
    assert api.requests == []


async def test_progress_only_grows_and_ends_with_the_file(api: ScriptedApi, png: bytes) -> None:
    """In bytes, also when the upload breaks off and begins anew, in both clients."""
    image = png + bytes(300_000)

    def half(request: httpx.Request) -> httpx.Response:
        message = "broken"
        raise httpx.WriteError(message)

    for _ in range(2):
        api.answer(half, ok(IMAGE))
    told: list[tuple[int, int]] = []
    api.client().upload(image, on_progress=lambda sent, total: told.append((sent, total)))
    awaited: list[tuple[int, int]] = []
    async with api.async_client() as client:
        await client.upload(image, on_progress=lambda sent, total: awaited.append((sent, total)))
    for progress in (told, awaited):
        sent = [each for each, _ in progress]
        assert sent == sorted(set(sent))
        assert (progress[0][0], progress[-1]) == (0, (len(image), len(image)))
        assert len(progress) > 4


def test_a_file_that_shrinks_meanwhile_is_noticed(
    api: ScriptedApi, png: bytes, tmp_path: Path
) -> None:
    """What was promised cannot be sent any more."""
    path = tmp_path / "image"
    path.write_bytes(png + bytes(500_000))

    def cut(sent: int, total: int) -> None:
        os.truncate(path, 1000)

    with pytest.raises(InvalidRequest, match="shorter"):
        api.client().upload(path, on_progress=cut)


def test_an_error_in_a_callback_ends_the_upload(api: ScriptedApi, png: bytes) -> None:
    """It is the caller's own, and passes through."""

    def stop(sent: int, total: int) -> None:
        raise KeyError(sent)

    with pytest.raises(KeyError):
        api.client().upload(png, on_progress=stop)


def test_a_slow_upload_ends_in_time(api: ScriptedApi, png: bytes) -> None:
    """The total time-out holds for what is sent, too."""
    with pytest.raises(S3EdgeError, match="in time"):
        api.client(timeout=10).upload(
            png + bytes(500_000), on_progress=lambda *_: api.time.advance(6)
        )
    assert api.time.elapsed_s < 20
