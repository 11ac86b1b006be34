"""What can be uploaded, and how each kind becomes something that is read piece by piece, and again."""

import io
import os
import re
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Protocol, TypeAlias, TypeGuard, cast, runtime_checkable

from attrs import field, frozen

from s3edge.client.effects import Flow, Gather, Spool, work
from s3edge.client.errors import FileTooLarge, InvalidRequest
from s3edge.errors import Detail
from s3edge.rules.images import MAX_IMAGE_BYTES, SNIFF_BYTES, sniff


SPOOLED_BYTES = 1024 * 1024
"""Of an iterator this much is kept in memory, and the rest on disk."""

READ_BYTES = 64 * 1024
"""How much of a pipe is asked for at once."""

_URL = re.compile(r"https?://", re.IGNORECASE)


@runtime_checkable
class SavesImage(Protocol):
    """An image of Pillow's, or what saves itself like one."""

    @property
    def mode(self) -> str:
        """How its pixels are kept; files have one as well, and save nothing."""
        ...

    def save(self, fp: Any, format: str | None = None) -> object:  # noqa: A002 - Pillow's name
        """Write the image to a file."""
        ...


ImageSource: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | IO[bytes]
    | Iterable[bytes]
    | AsyncIterable[bytes]
    | SavesImage
)
"""A path, bytes, a binary file, an iterator of bytes, or an image of Pillow's."""


@frozen
class Content:
    """
    An image that was looked at and may be sent, any number of times.

    Attributes:
        size_bytes: Its length.
        content_type: By its first bytes.
        open: Returns it as a file that stands at its beginning.
    """

    size_bytes: int
    content_type: str
    open: Callable[[], AbstractContextManager[IO[bytes]]] = field(repr=False)


def content_of(source: ImageSource, resources: ExitStack) -> Flow[Content]:
    """
    Look at what is to be uploaded.

    What can be read once only (an iterator, a pipe) is written to a temporary file first, so that it can
    be measured before it is sent, and sent again.

    Args:
        source: What the user gave.
        resources: Closed after the upload.

    Raises:
        FileTooLarge: It is larger than 10 MiB.
        InvalidRequest: It is no PNG, JPEG or WebP image, or cannot be read.
    """
    if isinstance(source, str | os.PathLike):
        if isinstance(source, str) and _URL.match(source):
            # Not shown: it may be signed.
            raise _invalid(
                "a URL cannot be uploaded; download the image, and give its path or bytes. What was"
                " uploaded already needs no upload: segment takes its id or URL"
            )
        path = Path(source)
        return (yield from work(lambda: _examined(lambda: path.open("rb"), str(path))))
    if isinstance(source, bytes | bytearray):
        held = bytes(source)
        return _examined(lambda: io.BytesIO(held), "the image")
    if isinstance(source, SavesImage):
        spool = resources.enter_context(_new_spool())
        yield from work(lambda: source.save(spool, "PNG"))
    elif isinstance(source, AsyncIterable):
        spool = resources.enter_context(_new_spool())
        yield Gather(source, _bounded_write(spool))
    elif _is_seekable(source):
        return (yield from work(lambda: _examined_file(source)))
    else:
        chunks = _chunks_of(source)
        spool = resources.enter_context(_new_spool())
        yield from work(lambda: _drain(chunks, _bounded_write(spool)))
    spool.seek(0)
    return (yield from work(lambda: _examined_file(spool)))


def _new_spool() -> AbstractContextManager[Spool]:
    return SpooledTemporaryFile(SPOOLED_BYTES)


def _bounded_write(spool: Spool) -> Callable[[bytes], object]:
    def write(chunk: object) -> None:
        if not isinstance(chunk, bytes | bytearray):
            raise _invalid("what is uploaded must be bytes; open files with 'rb'")
        if spool.tell() + len(chunk) > MAX_IMAGE_BYTES:
            raise too_large("the image")
        spool.write(chunk)

    return write


def _drain(chunks: Iterable[bytes], write: Callable[[bytes], object]) -> None:
    for chunk in chunks:
        write(chunk)


def _chunks_of(source: Any) -> Iterable[bytes]:
    if hasattr(source, "read"):
        return _read_to_end(source)
    if isinstance(source, Iterable):
        return cast("Iterable[bytes]", source)
    raise _invalid(f"{type(source).__name__} cannot be uploaded; give a path, bytes or a file")


def _read_to_end(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(READ_BYTES):
        yield chunk


def _is_seekable(source: object) -> TypeGuard[IO[bytes]]:
    if getattr(source, "closed", False) is True:
        raise _invalid("the file is closed; upload it before it is closed")
    seekable = getattr(source, "seekable", None)
    return hasattr(source, "read") and callable(seekable) and bool(seekable())


def _examined_file(file: IO[bytes]) -> Content:
    """Look at a file from where it stands; it stays the user's, and open."""
    start = file.tell()

    @contextmanager
    def reopened() -> Generator[IO[bytes], None, None]:
        file.seek(start)
        yield file

    return _examined(reopened, "the image")


def _examined(open_: Callable[[], AbstractContextManager[IO[bytes]]], name: str) -> Content:
    try:
        with open_() as file:
            start = file.tell()
            first: Any = file.read(SNIFF_BYTES)
            if not isinstance(first, bytes):
                raise _invalid("what is uploaded must be bytes; open files with 'rb'")
            size_bytes = file.seek(0, io.SEEK_END) - start
    except (OSError, ValueError) as error:  # the latter of names with a zero byte, and closed files
        reason = getattr(error, "strerror", None) or error
        raise _invalid(f"{name} cannot be read: {reason}") from None
    if size_bytes > MAX_IMAGE_BYTES:
        raise too_large(name)
    content_type = sniff(first)
    if content_type is None:
        raise _invalid(f"{name} is not a PNG, JPEG or WebP image")
    return Content(size_bytes, content_type, open_)


def read_exactly(file: IO[bytes], size_bytes: int, chunk_bytes: int) -> Iterator[bytes]:
    """
    Yield so many bytes of a file.

    Raises:
        InvalidRequest: There are fewer: the file was cut meanwhile.
    """
    left = size_bytes
    while left:
        chunk = file.read(min(chunk_bytes, left))
        if not chunk:
            raise _invalid("the image became shorter while it was sent")
        left -= len(chunk)
        yield chunk


def too_large(name: str) -> FileTooLarge:
    """Return the refusal of an image over the API's limit."""
    return FileTooLarge(f"{name} is larger than {MAX_IMAGE_BYTES // 1024**2} MiB")


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(message, details=[Detail("file", message)])
