"""Uploads: what is accepted, what is refused, and that a refusal leaves nothing behind."""

import io
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import anyio
import pytest
from PIL import Image

from s3edge.errors import unavailable
from s3edge.gateway import Gateway
from s3edge.memory import MemoryObjectStorage
from s3edge.rules.images import MAX_IMAGE_BYTES
from s3edge.values import StoredObject, User
from s3edge.web.http import ClientDisconnected, Response


pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[Response]]
Check = Callable[..., dict[str, Any]]
Balance = Callable[[User], Awaitable[int]]

BOUNDARY = "----boundary7MA4YWxk"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
PROJECT = "1b4e28ba-2fa1-4d2a-883f-0016d3cca427"

CHUNK = 64 * 1024


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    """Return an image of 5 by 3 pixels as a file."""
    file = io.BytesIO()
    Image.new(mode, (5, 3)).save(file, kind, **options)
    return file.getvalue()


PNG = encoded("PNG")


def png_header(width: int, height: int) -> bytes:
    """Return a PNG of these dimensions up to the beginning of its pixels."""
    content = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + content
        + struct.pack(">I", zlib.crc32(content))
        + b"\x00\x00\x00\x00IDAT"
    )


def part(name: str, content: bytes, content_type: str | None = None) -> bytes:
    """Return one part of a form, with its boundary before it."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"'
    if content_type is not None:
        head += f'; filename="a.png"\r\nContent-Type: {content_type}'
    return head.encode() + b"\r\n\r\n" + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    """Return a whole body."""
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def file_form(content: bytes, content_type: str = "image/png") -> bytes:
    """Return the body of an upload."""
    return form(part("file", content, content_type))


class Body:
    """A body that comes in chunks, and remembers how much of it was read."""

    def __init__(
        self, *contents: bytes, repeat: bytes = b"", error: Exception | None = None
    ) -> None:
        self._contents = contents
        self._repeat = repeat
        self._error = error
        self.read_bytes = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the contents in chunks, then the repeated chunk for ever, or raise the error."""
        for content in self._contents:
            for start in range(0, len(content), CHUNK):
                chunk = content[start : start + CHUNK]
                self.read_bytes += len(chunk)
                yield chunk
        while self._repeat:
            self.read_bytes += len(self._repeat)
            yield self._repeat
        if self._error is not None:
            raise self._error


@pytest.fixture
def refused(
    send: Send,
    error_of: Check,
    storage: MemoryObjectStorage,
    credits_of: Balance,
    alice: User,
) -> Callable[..., Awaitable[dict[str, Any]]]:
    """Send a bad upload and see that it leaves nothing: ``refused(body, status, code)``."""

    async def refused(
        body: bytes | AsyncIterator[bytes],
        status: int = 400,
        code: str = "INVALID_REQUEST",
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        response = await send("POST", "/api/v1/upload", headers=headers or FORM, body=body)
        error = error_of(response, status, code)
        assert storage.keys() == []
        assert await credits_of(alice) == 100
        return error

    return refused


Refused = Callable[..., Awaitable[dict[str, Any]]]


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (PNG, "image/png"),
        (encoded("PNG", "RGBA"), "image/png"),
        (encoded("JPEG"), "image/jpeg"),
        (encoded("WEBP"), "image/webp"),
        (encoded("WEBP", lossless=True), "image/webp"),
        (encoded("WEBP", "RGBA"), "image/webp"),
        (PNG, "IMAGE/PNG"),
        (PNG, "image/png; charset=binary"),
        (PNG, " image/png "),
    ],
)
async def test_an_image_is_stored_and_described(
    send: Send,
    data_of: Check,
    storage: MemoryObjectStorage,
    alice: User,
    content: bytes,
    content_type: str,
) -> None:
    """The answer has the contract's fields, and the object stands under its user's key."""
    response = await send(
        "POST", "/api/v1/upload", headers=FORM, body=file_form(content, content_type)
    )

    data = data_of(response)
    assert data.keys() == {
        "image_id",
        "image_url",
        "size_bytes",
        "content_type",
        "width",
        "height",
    }
    kind = content_type.strip().lower().partition(";")[0]
    assert (data["size_bytes"], data["content_type"]) == (len(content), kind)
    assert (data["width"], data["height"]) == (5, 3)
    key = f"uploads/{alice.user_id}/{data['image_id']}"
    assert UUID(data["image_id"]).version == 4
    assert storage.keys() == [key]
    assert storage.key_of(data["image_url"]) == key
    assert await storage.head(key) == StoredObject(key, len(content), kind)
    assert b"".join([chunk async for chunk in storage.open(key)]) == content


async def test_an_uploaded_image_can_be_read_by_its_url(send: Send, data_of: Check) -> None:
    """The URL of the answer leads to the very bytes that were sent, without a token."""
    data = data_of(await send("POST", "/api/v1/upload", headers=FORM, body=file_form(PNG)))

    response = await send("GET", data["image_url"].removeprefix("https://edge.test"), user=None)

    assert response.status == 200
    assert dict(response.headers)["content-type"] == "image/png"
    assert not isinstance(response.body, bytes)
    assert b"".join([chunk async for chunk in response.body]) == PNG


@pytest.mark.parametrize(
    "body",
    [
        form(part("project_id", PROJECT.encode()), part("file", PNG, "image/png")),
        form(part("file", PNG, "image/png"), part("project_id", PROJECT.encode())),
        form(part("file", PNG, "image/png"), part("project_id", b"")),
        form(part("other", b"ignored"), part("file", PNG, "image/png"), part("more", b"")),
        b"\r\n\r\n" + file_form(PNG),
        file_form(PNG) + b"\r\nepilogue",
        file_form(PNG).removesuffix(b"\r\n"),
    ],
)
async def test_other_fields_may_come_before_and_behind(
    send: Send, data_of: Check, body: bytes
) -> None:
    """A project, unknown fields, blank lines before and an epilogue behind are no faults."""
    data_of(await send("POST", "/api/v1/upload", headers=FORM, body=body))


async def test_each_upload_has_an_id_of_its_own(
    send: Send, data_of: Check, storage: MemoryObjectStorage
) -> None:
    """The same file twice is two images."""
    for _ in range(2):
        data_of(await send("POST", "/api/v1/upload", headers=FORM, body=file_form(PNG)))

    assert len(storage.keys()) == 2


@pytest.mark.parametrize(
    "body",
    [
        form(),
        form(part("project_id", PROJECT.encode())),
        form(part("image", PNG, "image/png")),
        form(part("File", PNG, "image/png")),
        form(part("file", b"", "image/png")),
        form(part("file", b"")),
        form(part("file", PNG, "image/png"), part("file", PNG, "image/png")),
        form(part("file", PNG, "image/png"), part("file", b"", "image/png")),
        form(part("file", b"", "image/png"), part("file", PNG, "image/png")),
    ],
    ids=["nothing", "project", "name", "case", "empty", "text", "two", "then empty", "first empty"],
)
async def test_exactly_one_file_is_wanted(refused: Refused, body: bytes) -> None:
    """No file, an empty one and two are refused, and the field is named."""
    error = await refused(body)

    assert [detail["field"] for detail in error["details"]] == ["file"]


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (PNG, "image/jpeg"),
        (encoded("JPEG"), "image/png"),
        (encoded("WEBP"), "image/png"),
        (b"just some text, long enough for a header", "image/png"),
        (b"x", "image/png"),
        (encoded("GIF"), "image/png"),
        (encoded("GIF"), "image/gif"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"),
        (PNG, "application/octet-stream"),
        (PNG, "text/html"),
        (PNG, ""),
        (PNG[:20], "image/png"),
        (PNG[:8], "image/png"),
        (encoded("JPEG")[:30], "image/jpeg"),
        (encoded("WEBP")[:22], "image/webp"),
        (PNG[:12] + b"\xff" * 40, "image/png"),
    ],
)
async def test_a_file_that_is_not_what_it_says_is_refused(
    refused: Refused, content: bytes, content_type: str
) -> None:
    """Wrong names, other formats, text and headers that are cut short are the client's fault."""
    error = await refused(file_form(content, content_type))

    assert [detail["field"] for detail in error["details"]] == ["file"]


async def test_a_file_without_a_type_is_refused(refused: Refused) -> None:
    """The part has to declare what it is."""
    await refused(form(part("file", PNG)))


@pytest.mark.parametrize("project", [b"1", b"not a uuid", b"\xff\xfe", b"\x00", b"x" * 1024, b" "])
@pytest.mark.parametrize("first", [True, False])
async def test_a_project_that_is_no_uuid_is_refused(
    refused: Refused,
    project: bytes,
    first: bool,
) -> None:
    """Also when it comes behind the file, whose bytes are already on their way into storage."""
    parts = [part("project_id", project), part("file", PNG, "image/png")]

    error = await refused(form(*(parts if first else reversed(parts))))

    assert [detail["field"] for detail in error["details"]] == ["project_id"]


@pytest.mark.parametrize("width", [51_000, 2**31 - 1])
async def test_51_megapixels_in_a_kilobyte_are_refused(refused: Refused, width: int) -> None:
    """A small file that claims a huge image is refused by its header."""
    error = await refused(file_form(png_header(width, 1000).ljust(1024, b"\0")))

    assert "50 megapixels" in error["message"]


async def test_50_megapixels_are_accepted(send: Send, data_of: Check) -> None:
    """The limit itself is allowed."""
    content = png_header(10_000, 5_000).ljust(1024, b"\0")

    data = data_of(await send("POST", "/api/v1/upload", headers=FORM, body=file_form(content)))

    assert (data["width"], data["height"]) == (10_000, 5_000)


def sized_form(size_bytes: int) -> bytes:
    """Return an upload of a good file of this size."""
    return file_form(PNG + bytes(size_bytes - len(PNG)))


@pytest.mark.parametrize("declared", [True, False])
async def test_ten_mebibytes_are_accepted(
    send: Send,
    data_of: Check,
    declared: bool,
) -> None:
    """The limit counts the file, not the form around it."""
    body = sized_form(MAX_IMAGE_BYTES)
    headers = FORM | ({"content-length": str(len(body))} if declared else {})

    response = await send("POST", "/api/v1/upload", headers=headers, body=Body(body).chunks())

    assert data_of(response)["size_bytes"] == 10_485_760


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("whole", [True, False])
async def test_one_byte_more_is_refused(
    refused: Refused,
    declared: bool,
    whole: bool,
) -> None:
    """10 MiB and one byte is too large, however it is sent."""
    body = sized_form(MAX_IMAGE_BYTES + 1)
    headers = FORM | ({"content-length": str(len(body))} if declared else {})

    await refused(body if whole else Body(body).chunks(), 413, "FILE_TOO_LARGE", headers)


@pytest.mark.parametrize("length", ["11000000", "9" * 30, "9" * 5000])
async def test_a_length_that_is_too_large_is_refused_unread(refused: Refused, length: str) -> None:
    """What says of itself that it is too large need not be sent."""
    body = Body(file_form(PNG))

    await refused(body.chunks(), 413, "FILE_TOO_LARGE", FORM | {"content-length": length})

    assert body.read_bytes == 0


@pytest.mark.parametrize("length", ["", "0", "-1", "1e9", "many", "1, 1", "²", "\u0661" * 20])
async def test_a_length_that_is_no_number_says_nothing(
    send: Send, data_of: Check, length: str
) -> None:
    """The body itself decides; a strange header is not our error."""
    headers = FORM | {"content-length": length}

    data_of(await send("POST", "/api/v1/upload", headers=headers, body=file_form(PNG)))


async def test_an_endless_file_is_refused_as_soon_as_it_is_too_large(refused: Refused) -> None:
    """A chunked body without a length is read to the limit and no further."""
    body = Body(part("file", PNG, "image/png").removesuffix(b"\r\n"), repeat=bytes(CHUNK))

    await refused(body.chunks(), 413, "FILE_TOO_LARGE")

    assert MAX_IMAGE_BYTES < body.read_bytes < MAX_IMAGE_BYTES + 3 * CHUNK


async def test_a_boundary_that_never_comes_is_refused(refused: Refused) -> None:
    """A file that just ends, without the form's end, is incomplete."""
    await refused(file_form(PNG).partition(b"\r\n--" + BOUNDARY.encode() + b"--")[0])
    await refused(file_form(PNG).removesuffix(b"--\r\n"))
    await refused(part("file", PNG, "image/png"))
    await refused(b"")


@pytest.mark.parametrize("junk", [b"x", b"-", b"\r\n", b"\r\n-", b"\0", f"--{BOUNDARY}x".encode()])
async def test_an_endless_body_without_a_boundary_is_refused_soon(
    refused: Refused, junk: bytes
) -> None:
    """Junk is not read for longer than a form could need."""
    body = Body(repeat=(junk * CHUNK)[:CHUNK])

    await refused(body.chunks())

    assert body.read_bytes <= 3 * CHUNK


async def test_a_hundred_thousand_parts_are_refused(refused: Refused) -> None:
    """A form of very many parts is given up after the first few."""
    body = Body(form(*[part(f"field{number}", b"x") for number in range(100_000)]))

    await refused(body.chunks())

    assert body.read_bytes <= 2 * CHUNK


@pytest.mark.parametrize(
    "head",
    [
        b"X-Long: " + b"x" * CHUNK,
        b"X" * CHUNK,
        b"".join(b"X-%d: y\r\n" % number for number in range(1000)),
        b'Content-Disposition: form-data; name="' + b"n" * CHUNK + b'"',
        b"X-Spaces: " + b" " * CHUNK,
    ],
    ids=["value", "name", "many", "field name", "spaces"],
)
async def test_a_part_header_of_64_kib_is_refused(refused: Refused, head: bytes) -> None:
    """A part's header is small, in each of its lines and in their number."""
    await refused(f"--{BOUNDARY}\r\n".encode() + head + b"\r\n\r\n" + PNG)


@pytest.mark.parametrize(
    "parts",
    [
        [part("note", b"x" * 1025)],
        [part("note", b"x" * CHUNK)],
        [part("n" * 3000, b"x" * 1025)],
        [part("\u00e9", b"x" * 1025)],
        [part(f"note{number}", b"x") for number in range(17)],
    ],
)
async def test_large_or_many_other_fields_are_refused(refused: Refused, parts: list[bytes]) -> None:
    """A form carries one file, and little besides; what is echoed of a name is short."""
    error = await refused(form(*parts, part("file", PNG, "image/png")))

    assert len(error["message"]) < 300


@pytest.mark.parametrize(
    "body",
    [
        b"not a form at all",
        b"{}",
        file_form(PNG).replace(BOUNDARY.encode(), b"another"),
        file_form(PNG).replace(b"\r\n", b"\n"),
        f"--{BOUNDARY}\r\n\r\n".encode() + PNG + f"\r\n--{BOUNDARY}--".encode(),
        form(b"--" + BOUNDARY.encode() + b"\r\nContent-Disposition: form-data\r\n\r\nx\r\n"),
        form(
            b"--" + BOUNDARY.encode() + b'\r\nContent-Disposition: file; name="file"\r\n\r\nx\r\n'
        ),
        form(b"--" + BOUNDARY.encode() + b"\r\nno colon\r\n\r\nx\r\n"),
        form(b"--" + BOUNDARY.encode() + b"\r\n: empty\r\n\r\nx\r\n"),
        form(b"--" + BOUNDARY.encode() + b"\r\nA\x00B: c\r\n\r\nx\r\n"),
    ],
)
async def test_a_body_that_is_no_form_is_refused(refused: Refused, body: bytes) -> None:
    """Text, JSON, another boundary, bare newlines and parts without names are the client's fault."""
    await refused(body)


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "b" * 71,
        f"multipart/mixed; boundary={BOUNDARY}",
        f"multipart/form-data; charset=utf-8; Boundary*={BOUNDARY}",
        "multipart/form-data; boundary*0*=a; boundary*=b",
        f"multipart/form-data; boundary*{'9' * 5000}={BOUNDARY}",
        ";" * 10_000,
        'multipart/form-data; boundary="',
        "é; boundary=é",
        "\x00",
    ],
)
async def test_another_content_type_is_refused(refused: Refused, content_type: str | None) -> None:
    """The header has to say that it is a form and where its parts begin."""
    headers = {"x-nothing": ""} if content_type is None else {"content-type": content_type}

    await refused(file_form(PNG), headers=headers)


@pytest.mark.parametrize("kept", [0, 1, 30, 100, 150, -1])
async def test_a_client_that_stops_half_way_leaves_nothing(
    send: Send, storage: MemoryObjectStorage, kept: int
) -> None:
    """When the client goes away there is nobody to answer and nothing to keep."""
    body = Body(file_form(PNG)[:kept], error=ClientDisconnected())

    with pytest.raises(ClientDisconnected):
        await send("POST", "/api/v1/upload", headers=FORM, body=body.chunks())

    assert storage.keys() == []


async def test_a_client_that_is_cut_off_while_the_file_is_stored_leaves_nothing(
    send: Send, storage: MemoryObjectStorage
) -> None:
    """A request that is cancelled in the middle of a large file stores no part of it."""
    half = anyio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield sized_form(MAX_IMAGE_BYTES)[: MAX_IMAGE_BYTES // 2]
        half.set()
        await anyio.sleep_forever()

    async def upload() -> None:
        await send("POST", "/api/v1/upload", headers=FORM, body=chunks())

    async with anyio.create_task_group() as group:
        group.start_soon(upload)
        await half.wait()
        group.cancel_scope.cancel()

    assert storage.keys() == []


class FullStorage(MemoryObjectStorage):
    """Takes every byte and then fails."""

    async def put(
        self,
        key: str,
        chunks: Any,
        *,
        content_type: str,
        size_bytes: int | None = None,
    ) -> StoredObject:
        """Implement ``ObjectStorage``."""
        async for _ in chunks:
            pass
        raise unavailable("The bucket is full.")


async def test_a_storage_that_is_down_is_not_the_clients_fault(
    send: Send, gateway: Gateway, error_of: Check
) -> None:
    """503 says that the same upload may succeed later."""
    gateway.storage = FullStorage("https://edge.test", gateway.clock)

    response = await send("POST", "/api/v1/upload", headers=FORM, body=file_form(PNG))

    error_of(response, 503, "SERVICE_UNAVAILABLE")
    assert "retry-after" in dict(response.headers)


async def test_a_file_that_comes_byte_by_byte_is_read(send: Send, data_of: Check) -> None:
    """However a body is cut, it is the same upload."""

    async def bytes_one_by_one() -> AsyncIterator[bytes]:
        for byte in file_form(PNG):
            yield bytes([byte])

    response = await send("POST", "/api/v1/upload", headers=FORM, body=bytes_one_by_one())

    assert data_of(response)["size_bytes"] == len(PNG)
