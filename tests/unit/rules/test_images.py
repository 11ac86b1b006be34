"""Which images are accepted, decided from their first bytes."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable

import pytest
from PIL import Image, PngImagePlugin

from s3edge.errors import Code, EdgeError
from s3edge.rules.images import (
    MAX_HEADER_BYTES,
    MAX_IMAGE_BYTES,
    MAX_IMAGE_PIXELS,
    SNIFF_BYTES,
    check_type,
    read_header,
    sniff,
    too_large,
)


WIDTH, HEIGHT = 60, 40


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return an image as a file of this kind."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    """Return an image that does not compress."""
    return Image.effect_noise(size, 100).convert(mode)


def png_header(width: int, height: int) -> bytes:
    """Return a PNG up to the beginning of its pixels."""
    content = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + content
        + struct.pack(">I", zlib.crc32(content))
        + b"\x00\x00\x00\x00IDAT"
    )


def webp(fourcc: bytes, body: bytes) -> bytes:
    """Return a WebP file of one chunk."""
    chunk = fourcc + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def with_segments_first(jpeg: bytes, size_bytes: int) -> bytes:
    """Return a JPEG with this many bytes of APP2 segments right behind its start."""
    segments = b""
    while len(segments) < size_bytes:
        length = min(65535, size_bytes - len(segments) - 2)
        segments += b"\xff\xe2" + struct.pack(">H", max(2, length)) + bytes(max(0, length - 2))
    return jpeg[:2] + segments + jpeg[2:]


def rich_png() -> bytes:
    """Return a PNG with every chunk that stands before the pixels."""
    text = PngImagePlugin.PngInfo()
    text.add_text("about", "b" * 200, zip=True)
    text.add_itxt("more", "y" * 50, zip=True)
    exif = Image.Exif()
    exif[0x010E] = "a description"
    return encoded(
        noise("RGBA"), "PNG", pnginfo=text, exif=exif, icc_profile=b"p" * 100, dpi=(10, 10)
    )


def rich_jpeg() -> bytes:
    """Return a JPEG as cameras write them."""
    exif = Image.Exif()
    exif[0x010E] = "a description"
    exif[0x8825] = {1: "N"}
    return encoded(noise(), "JPEG", exif=exif, icc_profile=b"p" * 500, dpi=(72, 72))


ACCEPTED: dict[str, tuple[str, Callable[[], bytes]]] = {
    "png rgb": ("image/png", lambda: encoded(noise(), "PNG")),
    "png grey": ("image/png", lambda: encoded(noise("L"), "PNG")),
    "png palette": ("image/png", lambda: encoded(noise("P"), "PNG")),
    "png 16 bit": ("image/png", lambda: encoded(noise("I;16"), "PNG")),
    "png alpha and metadata": ("image/png", rich_png),
    "png animated": (
        "image/png",
        lambda: encoded(noise(), "PNG", save_all=True, append_images=[noise()]),
    ),
    "jpeg": ("image/jpeg", lambda: encoded(noise(), "JPEG")),
    "jpeg progressive": ("image/jpeg", lambda: encoded(noise(), "JPEG", progressive=True)),
    "jpeg grey": ("image/jpeg", lambda: encoded(noise("L"), "JPEG")),
    "jpeg cmyk": ("image/jpeg", lambda: encoded(noise("CMYK"), "JPEG")),
    "jpeg and metadata": ("image/jpeg", rich_jpeg),
    "jpeg of a stereo camera": (
        "image/jpeg",
        lambda: encoded(noise(), "MPO", save_all=True, append_images=[noise()]),
    ),
    "webp lossy": ("image/webp", lambda: encoded(noise(), "WEBP")),
    "webp lossless": ("image/webp", lambda: encoded(noise(), "WEBP", lossless=True)),
    "webp lossy alpha": ("image/webp", lambda: encoded(noise("RGBA"), "WEBP")),
    "webp lossless alpha": ("image/webp", lambda: encoded(noise("RGBA"), "WEBP", lossless=True)),
    "webp animated": (
        "image/webp",
        lambda: encoded(noise(), "WEBP", save_all=True, append_images=[noise()]),
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_every_kind_of_accepted_file_is_read(name: str) -> None:
    """Each variety of the three formats is known by its bytes and its size is read."""
    content_type, make = ACCEPTED[name]
    content = make()

    assert check_type(content[:SNIFF_BYTES], content_type) == content_type
    header = read_header(content, content_type, complete=True)
    assert header is not None
    assert (header.content_type, header.width, header.height) == (content_type, WIDTH, HEIGHT)


@pytest.mark.parametrize("name", ACCEPTED)
def test_every_beginning_says_the_truth_or_asks_for_more(name: str) -> None:
    """A file that is cut anywhere is read as what it is or not yet, never as something else."""
    content_type, make = ACCEPTED[name]
    content = make()

    for cut in range(SNIFF_BYTES, len(content)):
        header = read_header(content[:cut], content_type, complete=False)
        assert header is None or (header.width, header.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_small_beginning_is_enough(name: str) -> None:
    """Dimensions are known after 2 KiB, however long the file goes on."""
    content_type, make = ACCEPTED[name]

    assert read_header(make()[:2048], content_type, complete=False) is not None


@pytest.mark.parametrize("lossless", [False, True])
def test_a_large_webp_is_read_from_its_beginning(lossless: bool) -> None:
    """A WebP file of more bytes than are ever looked at is accepted."""
    content = encoded(noise(size=(1200, 1000)), "WEBP", lossless=lossless, quality=100, method=0)
    assert len(content) > MAX_HEADER_BYTES

    header = read_header(content[:MAX_HEADER_BYTES], "image/webp", complete=False)
    assert header is not None
    assert (header.width, header.height) == (1200, 1000)


def test_a_jpeg_with_a_large_profile_before_its_size_is_read() -> None:
    """Hundreds of kilobytes of APP segments before SOF are passed over."""
    content = with_segments_first(encoded(noise(), "JPEG"), 600_000)

    assert read_header(content[:300_000], "image/jpeg", complete=False) is None
    header = read_header(content[:MAX_HEADER_BYTES], "image/jpeg", complete=False)
    assert header is not None
    assert (header.width, header.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("fill", [1, 2, 3, 1000, MAX_HEADER_BYTES - 2000])
def test_fill_before_a_marker_is_passed_over(fill: int) -> None:
    """Any number of 0xFF bytes may stand there, by the standard; also where the bytes end meanwhile."""
    photograph = encoded(noise(), "JPEG")
    content = photograph[:2] + b"\xff" * fill + photograph[2:]

    assert read_header(content[: 2 + fill], "image/jpeg", complete=False) is None
    header = read_header(content, "image/jpeg", complete=True)
    assert (header.width, header.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("size", [3, 4, MAX_IMAGE_BYTES])
def test_a_jpeg_that_is_all_fill_is_refused(size: int) -> None:
    """It names no dimensions, however long it is."""
    content = b"\xff\xd8" + b"\xff" * (size - 2)
    with pytest.raises(EdgeError, match="header cannot be read"):
        read_header(content, "image/jpeg", complete=True)


def test_a_header_beyond_the_first_mebibyte_is_refused() -> None:
    """Dimensions that stand too far into a file are not looked for any longer."""
    content = with_segments_first(encoded(noise(), "JPEG"), MAX_HEADER_BYTES + 1000)

    with pytest.raises(EdgeError, match="header cannot be read"):
        read_header(content[:MAX_HEADER_BYTES], "image/jpeg", complete=False)


@pytest.mark.parametrize(("width", "height"), [(10_000, 5_000), (1, MAX_IMAGE_PIXELS)])
def test_fifty_megapixels_are_accepted(width: int, height: int) -> None:
    """The limit itself is allowed, whatever the shape."""
    header = read_header(png_header(width, height), "image/png", complete=False)

    assert header is not None
    assert (header.width, header.height) == (width, height)


@pytest.mark.parametrize(
    ("width", "height"),
    [(1, MAX_IMAGE_PIXELS + 1), (10_000, 5_001), (20_000, 20_000), (2**31 - 1, 2**31 - 1)],
)
def test_one_pixel_more_is_refused(width: int, height: int) -> None:
    """Above the limit the file is refused from its header alone, also far above it."""
    with pytest.raises(EdgeError, match="more than 50 megapixels") as refused:
        read_header(png_header(width, height), "image/png", complete=False)
    assert refused.value.code is Code.INVALID_REQUEST


@pytest.mark.parametrize(
    "content",
    [
        webp(b"VP8X", bytes(4) + b"\x00\x40\x00" + b"\x00\x40\x00"),
        webp(b"VP8L", b"\x2f" + struct.pack("<I", 16383 << 14 | 16383) + bytes(5)),
        webp(b"VP8 ", b"\x10\x00\x00\x9d\x01\x2a\xff\x3f\xff\x3f"),
    ],
    ids=["extended", "lossless", "lossy"],
)
def test_a_webp_of_too_many_pixels_is_refused(content: bytes) -> None:
    """Every kind of WebP header is held to the limit."""
    with pytest.raises(EdgeError, match="more than 50 megapixels"):
        read_header(content, "image/webp", complete=False)


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (png_header(0, 5), "image/png"),
        (png_header(5, 0), "image/png"),
        (webp(b"VP8 ", b"\x10\x00\x00\x9d\x01\x2a\x00\x00\x05\x00"), "image/webp"),
    ],
)
def test_an_image_without_pixels_is_refused(content: bytes, content_type: str) -> None:
    """A width or a height of zero is no image."""
    with pytest.raises(EdgeError) as refused:
        read_header(content, content_type, complete=True)
    assert refused.value.code is Code.INVALID_REQUEST


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (png_header(5, 5)[:20], "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"\xff\xd8\xff\xe0\x00", "image/jpeg"),
        (b"\xff\xd8\xff\xe0\xff\xff" + bytes(100), "image/jpeg"),
        (b"RIFF\x10\x00\x00\x00WEBP", "image/webp"),
        (webp(b"VP8 ", b"\x10\x00\x00\x9d\x01"), "image/webp"),
        (webp(b"VP8X", bytes(8)), "image/webp"),
    ],
)
def test_a_header_that_is_cut_short_is_refused_once_the_file_is_complete(
    content: bytes, content_type: str
) -> None:
    """The rest may still come; when nothing follows, the file is damaged."""
    assert read_header(content, content_type, complete=False) is None
    with pytest.raises(EdgeError, match="damaged") as refused:
        read_header(content, content_type, complete=True)
    assert refused.value.code is Code.INVALID_REQUEST


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"\x89PNG\r\n\x1a\n" + b"junk" * 20, "image/png"),
        (png_header(5, 5)[:29] + b"\0\0\0\0", "image/png"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "image/jpeg"),
        (b"\xff\xd8\xff\xda" + bytes(100), "image/jpeg"),
        (b"\xff\xd8\xff\xd9" + bytes(100), "image/jpeg"),
        (b"\xff\xd8\xff\xe0\x00\x02junk", "image/jpeg"),
        (b"\xff\xd8" + b"\xff\xe1\x00\x02" * 100_000, "image/jpeg"),
        (webp(b"VP8 ", b"\x10\x00\x00\x00\x00\x00\x05\x00\x05\x00"), "image/webp"),
        (webp(b"VP8 ", b"\x11\x00\x00\x9d\x01\x2a\x05\x00\x05\x00"), "image/webp"),
        (webp(b"VP8L", b"\x2e" + bytes(9)), "image/webp"),
        (webp(b"ALPH", bytes(20)), "image/webp"),
    ],
)
@pytest.mark.parametrize("complete", [False, True])
def test_a_broken_header_is_refused_at_once(
    content: bytes, content_type: str, complete: bool
) -> None:
    """Nothing that follows could mend it."""
    with pytest.raises(EdgeError, match="damaged") as refused:
        read_header(content, content_type, complete=complete)
    assert refused.value.code is Code.INVALID_REQUEST


def test_remarks_of_the_reader_on_a_hostile_header_go_nowhere() -> None:
    """A file on which Pillow would print a warning is read without one."""
    content = bytearray(encoded(noise(), "MPO", save_all=True, append_images=[noise()]))
    offset = content.index(b"MPF\x00") + 4
    content[offset + 8 : offset + 40] = b"\xff" * 32

    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        read_header(bytes(content), "image/jpeg", complete=False)
    assert remarks == []


@pytest.mark.parametrize(
    ("first_bytes", "content_type"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0d", "image/png"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01", "image/jpeg"),
        (b"\xff\xd8\xff\xdb", "image/jpeg"),
        (b"RIFF\x00\x00\x00\x00WEBP", "image/webp"),
        (b"RIFF\x00\x00\x00\x00WAVE", None),
        (b"GIF89a\x01\x00\x01\x00\x00\x00", None),
        (b"BM\x00\x00\x00\x00", None),
        (b"<svg xmlns=", None),
        (b"\x89PNG\n\x1a\n", None),
        (b"\xff\xd8", None),
        (b"", None),
    ],
)
def test_a_file_is_known_by_its_magic_bytes(first_bytes: bytes, content_type: str | None) -> None:
    """Only the three formats have a type, and only by their whole signature."""
    assert sniff(first_bytes) == content_type


def test_a_png_declared_as_jpeg_is_refused() -> None:
    """The declared type and the content must agree, and the refusal names both."""
    with pytest.raises(EdgeError, match=r"image/jpeg.*image/png") as refused:
        check_type(png_header(1, 1), "image/jpeg")
    assert refused.value.code is Code.INVALID_REQUEST
    assert [detail.field for detail in refused.value.details] == ["file"]


@pytest.mark.parametrize(
    "declared",
    [
        "",
        "image/gif",
        "image/svg+xml",
        "IMAGE/PNG",
        "image/png; a=b",
        "text/html",
        "\x00",
        "x" * 9999,
    ],
)
def test_a_type_that_is_not_accepted_is_refused(declared: str) -> None:
    """Another declared type is refused even when the content is a good PNG, and is not echoed whole."""
    with pytest.raises(EdgeError) as refused:
        check_type(png_header(1, 1), declared)
    assert refused.value.code is Code.INVALID_REQUEST
    assert len(refused.value.message) < 300


def test_text_declared_as_an_image_is_refused() -> None:
    """Content without a known signature is refused whatever it is called."""
    with pytest.raises(EdgeError, match="not an image of that type"):
        check_type(b"just a text.", "image/png")


def test_the_refusal_of_a_large_file_names_the_limit() -> None:
    """A user reads how large the file may be."""
    error = too_large()

    assert error.code is Code.FILE_TOO_LARGE
    assert MAX_IMAGE_BYTES == 10_485_760
    assert "10 MiB" in error.message
