"""
Which images are accepted: type, size and pixels, decided from the first bytes.

Only the dimensions are read, never the pixels and none of what a file may carry before them: an image
library inflates colour profiles and parses every segment on the way, which takes seconds for a hostile
file and would stop everybody else. Decoding is the model's business, behind its own limits; so a file
that is cut short behind its header is accepted here and refused, with a refund, there.
"""

import re
import zlib
from collections.abc import Callable, Mapping
from typing import Literal, overload

from attrs import frozen

from s3edge.errors import Code, EdgeError, invalid


MAX_IMAGE_BYTES = 10 * 1024 * 1024
"""Contract: at most 10 MiB of file."""

MAX_IMAGE_PIXELS = 50_000_000
"""Contract: at most 50 megapixels."""

MAX_HEADER_BYTES = 1024 * 1024
"""How far into a file its dimensions may stand: cameras put profiles and thumbnails first."""

SNIFF_BYTES = 12
"""Enough of a file to tell its type."""

CONTENT_TYPES = ("image/png", "image/jpeg", "image/webp")
"""The media types that are accepted."""

MAX_JPEG_SEGMENTS = 4096
"""Before the first frame; a photograph has a few dozen, and each costs time."""

_MARKER = 0xFF
_FILL = re.compile(rb"\xff*")
"""Any number of these may stand before a marker; its own first byte is the last of them."""

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15; the three left out are DHT, JPG and DAC."""

_BEFORE_NO_FRAME = frozenset({0x00, 0x01, *range(0xD0, 0xDB)})
"""Entropy-coded data, restarts, SOI, EOI, SOS: behind these no header follows."""


@frozen
class ImageHeader:
    """
    What an image's first bytes say of it.

    Attributes:
        content_type: By its magic bytes.
        width: In pixels.
        height: In pixels.
    """

    content_type: str
    width: int
    height: int


def sniff(first_bytes: bytes) -> str | None:
    """
    Return the media type that a file's magic bytes name, or ``None``.

    The signatures are those of the PNG specification (section 5.2), JPEG's SOI and first marker, and
    the WebP container specification.
    """
    if first_bytes.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if first_bytes.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if first_bytes[:4] == b"RIFF" and first_bytes[8:12] == b"WEBP":
        return "image/webp"
    return None


def check_type(first_bytes: bytes, declared: str) -> str:
    """
    Return the media type of a file that starts so and was declared so.

    Raises:
        EdgeError: ``INVALID_REQUEST`` when the type is not accepted or the two disagree.
    """
    if declared not in CONTENT_TYPES:
        raise invalid("file", f"Send one of {', '.join(CONTENT_TYPES)}; got {_shown(declared)}.")
    actual = sniff(first_bytes)
    if actual is None:
        raise invalid(
            "file", f"The file is declared as {declared} but is not an image of that type."
        )
    if actual != declared:
        raise invalid("file", f"The file is declared as {declared} but its content is {actual}.")
    return actual


@overload
def read_header(prefix: bytes, content_type: str, *, complete: Literal[True]) -> ImageHeader: ...


@overload
def read_header(prefix: bytes, content_type: str, *, complete: bool) -> ImageHeader | None: ...


def read_header(prefix: bytes, content_type: str, *, complete: bool) -> ImageHeader | None:
    """
    Read an image's dimensions from its first bytes.

    Args:
        prefix: The file's beginning.
        content_type: What ``check_type`` returned for it.
        complete: Whether the prefix is the whole file.

    Returns:
        The header, or ``None`` when more bytes are needed.

    Raises:
        EdgeError: ``INVALID_REQUEST`` when the header cannot be read or names too many pixels.
    """
    try:
        width, height = _SIZE_OF[content_type](prefix)
    except (EOFError, ValueError) as error:
        # A header that is cut short may go on in the next bytes; one that is broken is final.
        if complete or isinstance(error, ValueError) or len(prefix) >= MAX_HEADER_BYTES:
            raise invalid(
                "file", "The image's header cannot be read; the file is damaged."
            ) from None
        return None
    if width < 1 or height < 1:
        raise invalid("file", "The image has no pixels.")
    if width * height > MAX_IMAGE_PIXELS:
        raise _too_many_pixels()
    return ImageHeader(content_type, width, height)


def _png_size(prefix: bytes) -> tuple[int, int]:
    """
    Return a PNG's width and height.

    Layout: PNG specification (third edition), sections 5.3 and 11.2.2: IHDR is the first chunk.
    """
    header = _slice(prefix, 8, 25)
    if header[:8] != b"\x00\x00\x00\x0dIHDR":
        raise ValueError(header[:8])
    if zlib.crc32(header[4:21]) != int.from_bytes(header[21:], "big"):
        raise ValueError("the header's checksum is wrong")
    return int.from_bytes(header[8:12], "big"), int.from_bytes(header[12:16], "big")


def _jpeg_size(prefix: bytes) -> tuple[int, int]:
    """
    Return a JPEG's width and height: those of the first frame, behind any number of other segments.

    Layout: ITU-T T.81, annex B: markers of two bytes, segments that begin with their own length.
    """
    at = 2
    for _ in range(MAX_JPEG_SEGMENTS):
        at = _behind_fill(prefix, at)
        marker = _slice(prefix, at, 2)
        if marker[0] != _MARKER or marker[1] in _BEFORE_NO_FRAME:
            raise ValueError(marker)
        length = _number(prefix, at + 2, 2, "big")
        if marker[1] in _FRAMES:
            return _number(prefix, at + 7, 2, "big"), _number(prefix, at + 5, 2, "big")
        if length < 2:  # noqa: PLR2004 - it counts itself
            raise ValueError(length)
        at += 2 + length
    raise ValueError("too many segments")


def _behind_fill(prefix: bytes, at: int) -> int:
    """Return where the marker begins; not byte by byte, because a file may be fill and nothing else."""
    fill = _FILL.match(prefix, at)
    return at if fill is None else max(at, fill.end() - 1)


def _webp_size(prefix: bytes) -> tuple[int, int]:
    """
    Return a WebP's width and height.

    Layout: RFC 9649, sections 2.5 to 2.7 and 3.4; RFC 6386, section 9.1.
    """
    kind, body = _slice(prefix, 12, 4), prefix[20:]
    if kind == b"VP8 ":
        frame = _slice(body, 0, 6)
        if frame[0] & 1 or frame[3:] != b"\x9d\x01\x2a":
            raise ValueError("the first frame is no key frame")
        return _number(body, 6, 2) & 0x3FFF, _number(body, 8, 2) & 0x3FFF
    if kind == b"VP8L" and _slice(body, 0, 1) == b"\x2f":
        bits = _number(body, 1, 4)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        return _number(body, 4, 3) + 1, _number(body, 7, 3) + 1
    raise ValueError(kind)


def _slice(content: bytes, at: int, size: int) -> bytes:
    """Return some bytes; raise ``EOFError`` when they have not all arrived."""
    found = content[at : at + size]
    if len(found) < size:
        raise EOFError
    return found


def _number(content: bytes, at: int, size: int, order: Literal["little", "big"] = "little") -> int:
    return int.from_bytes(_slice(content, at, size), order)


_SIZE_OF: Mapping[str, Callable[[bytes], tuple[int, int]]] = {
    "image/png": _png_size,
    "image/jpeg": _jpeg_size,
    "image/webp": _webp_size,
}


def too_large() -> EdgeError:
    """Return the refusal of a file over the limit."""
    return EdgeError(
        Code.FILE_TOO_LARGE,
        f"The file is larger than {MAX_IMAGE_BYTES // (1024 * 1024)} MiB"
        f" ({MAX_IMAGE_BYTES:,} bytes); send a smaller one.",
    )


def _too_many_pixels() -> EdgeError:
    return invalid(
        "file",
        f"The image has more than {MAX_IMAGE_PIXELS // 1_000_000} megapixels; scale it down.",
    )


def _shown(text: str) -> str:
    limit = 60
    return repr(text if len(text) <= limit else text[:limit] + "…")
