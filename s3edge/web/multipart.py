"""
Reads an upload's multipart body while it arrives.

The file's bytes are handed on as they come and nothing is kept, so memory stays flat whatever is
sent. What follows the file is parsed before the stream of its bytes ends: the reader of that stream
hears of every fault in the body, to its very end, before it can take the file for complete.

Format: RFC 7578 (multipart/form-data) over RFC 2046, section 5.1.
"""

import re
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from attrs import define, field
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from s3edge.errors import invalid
from s3edge.rules.images import MAX_IMAGE_BYTES, too_large
from s3edge.rules.keys import parse_id
from s3edge.web.http import Request


MAX_PARTS = 16
"""An upload has one or two; anything near this many is not an upload."""

MAX_FIELD_BYTES = 1024
"""Of a part that is not the file."""

MAX_OVERHEAD_BYTES = 64 * 1024
"""What boundaries, headers and small fields may add to the file."""

MAX_PART_HEADERS = 8
MAX_PART_HEADER_BYTES = 4 * 1024

_LENGTH = re.compile(r"[0-9]+")

_FILE = "file"
_PROJECT = "project_id"


@define
class _Part:
    """A part as the parser has seen it so far."""

    headers: dict[str, bytes] = field(factory=dict)
    name: str = ""
    value: bytearray = field(factory=bytearray)


class UploadForm:
    """
    An upload's fields, read from a request's body.

    Use as a context: ``async with UploadForm(request) as form``, then read ``form.chunks()`` to its end.

    Attributes:
        content_type: The media type that the file's part declares.
    """

    def __init__(self, request: Request) -> None:
        """
        Prepare to read.

        Raises:
            EdgeError: ``INVALID_REQUEST`` when the body is not multipart, ``FILE_TOO_LARGE`` when its
                declared length says so already.
        """
        boundary = _boundary(request.headers.get("content-type", ""))
        _check_declared_length(request.headers.get("content-length"))
        self.content_type = ""
        self._body = request.body
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
            max_header_count=MAX_PART_HEADERS,
            max_header_size=MAX_PART_HEADER_BYTES,
        )
        self._parts = 0
        self._part = _Part()
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._file_chunks: deque[bytes] = deque()
        self._file_seen = False
        self._overhead_bytes = 0
        self._begun = False
        self._ended = False

    async def __aenter__(self) -> Self:
        """Read up to the first bytes of the file."""
        while not self._file_chunks and await self._feed():
            pass
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of what was read."""
        self._file_chunks.clear()

    async def chunks(self) -> AsyncIterator[bytes]:
        """
        Yield the file's bytes; ends only after the whole body was found to be good.

        Raises:
            EdgeError: ``INVALID_REQUEST``, ``FILE_TOO_LARGE``.
            ClientDisconnected: The client went away.
        """
        while True:
            while self._file_chunks:
                yield self._file_chunks.popleft()
            if not await self._feed():
                break
        if not self._file_seen:
            raise invalid(_FILE, "The form has no file; send the image in the field 'file'.")

    async def _feed(self) -> bool:
        """Parse one more chunk of the body; return whether there was one."""
        chunk = await anext(self._body, None)
        if chunk is None:
            if not self._ended:
                raise invalid("body", "The multipart body ends before its last boundary.")
            return False
        file_bytes_before = sum(map(len, self._file_chunks))
        # Behind a leading newline the parser would skip to the chunk's first hyphen, wherever it is cut.
        content = chunk if self._begun else chunk.lstrip(b"\r\n")
        self._begun = self._begun or bool(content)
        try:
            self._parser.write(content)
        except FormParserError:
            raise invalid("body", "The body is not well-formed multipart/form-data.") from None
        self._overhead_bytes += len(chunk) - sum(map(len, self._file_chunks)) + file_bytes_before
        if self._overhead_bytes > MAX_OVERHEAD_BYTES:
            raise invalid(
                "body",
                f"The form holds more than {MAX_OVERHEAD_BYTES // 1024} KiB besides the file.",
            )
        return True

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise invalid("body", f"The form has more than {MAX_PARTS} parts.")
        self._part = _Part()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        name = self._header_name.decode("latin-1").lower()
        self._part.headers[name] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _on_headers_finished(self) -> None:
        disposition, options = parse_options_header(
            self._part.headers.get("content-disposition", b"")
        )
        if disposition != b"form-data" or b"name" not in options:
            raise invalid("body", "A part of the form has no name.")
        self._part.name = options[b"name"].decode("utf-8", "replace")
        if self._part.name == _FILE:
            if self._file_seen:
                raise invalid(_FILE, "The form has more than one file; send one at a time.")
            self._file_seen = True
            media_type, _ = parse_options_header(self._part.headers.get("content-type", b""))
            self.content_type = media_type.decode("latin-1").lower()

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part.name == _FILE:
            self._file_chunks.append(data[start:end])
            return
        self._part.value += data[start:end]
        if len(self._part.value) > MAX_FIELD_BYTES:
            raise invalid(
                self._part.name[:60],
                f"Send the image in the field 'file'; any other field may hold {MAX_FIELD_BYTES} bytes"
                " at most.",
            )

    def _on_part_end(self) -> None:
        # Forms with an empty project field send an empty text for it.
        if self._part.name != _PROJECT or not self._part.value:
            return
        if parse_id(self._part.value.decode("utf-8", "replace")) is None:
            raise invalid(_PROJECT, "Send the project's UUID.")

    def _on_end(self) -> None:
        self._ended = True


def _boundary(content_type: str) -> bytes:
    media_type, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    # RFC 2046: 1 to 70 characters.
    if media_type != b"multipart/form-data" or not 1 <= len(boundary) <= 70:  # noqa: PLR2004
        raise invalid("Content-Type", "Send multipart/form-data with a boundary.")
    return boundary


def _check_declared_length(content_length: str | None) -> None:
    """Refuse at once what says of itself that it is too large."""
    if (
        content_length is not None
        and _LENGTH.fullmatch(content_length)
        and float(content_length) > MAX_IMAGE_BYTES + MAX_OVERHEAD_BYTES
    ):
        raise too_large()
