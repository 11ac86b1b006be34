"""
Objects as plain files, one a key.

A put writes to a temporary file in the same file system, syncs it, links it under its final name and
syncs the folder: whoever reads sees the whole object or none, also after a power cut. The media type
is kept as the file's ending, so that the folder can be looked at with any image viewer.
"""

import logging
import os
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar, TypeVarTuple
from urllib.parse import unquote, urlsplit

import anyio
from anyio import CapacityLimiter, to_thread

from s3edge.errors import Code, EdgeError, unavailable
from s3edge.ports import Clock, ObjectStorage, Wiring
from s3edge.rules.keys import is_key
from s3edge.rules.media_urls import MediaUrls
from s3edge.values import StoredObject
from s3edge.web.http import Route
from s3edge.web.media import media_route
from s3edge_embedded.private_files import make_private_folder, read_or_create


WRITE_BYTES = 256 * 1024
"""Bytes gathered before a thread is asked to write them."""

READ_BYTES = 256 * 1024

THREADS = 16
"""Files written and read at once; more of them wait."""

_ENDINGS = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}
_OTHER_TYPE, _OTHER_ENDING = "application/octet-stream", ".bin"
_TYPES = {ending: content_type for content_type, ending in _ENDINGS.items()} | {
    _OTHER_ENDING: _OTHER_TYPE
}

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_log = logging.getLogger(__name__)

_TEMPORARY = ".incoming"
_SECRET_BYTES = 32


class FileObjectStorage:
    """
    The ``ObjectStorage`` port on a folder; its URLs are signed, and served by the app.

    Args:
        folder: Where the objects are; made when it is missing.
        base_url: Where the app is reached, without a trailing slash.
        clock: Tells when a URL has expired.
    """

    def __init__(self, folder: Path, base_url: str, clock: Clock) -> None:
        try:
            make_private_folder(folder / _TEMPORARY)
            secret = read_or_create(
                folder / ".media-secret", lambda: secrets.token_bytes(_SECRET_BYTES)
            )
            former = _remember(folder / ".base-urls", base_url)
        except OSError as error:
            message = f"The folder {folder} cannot be used: {error}"
            raise unavailable(message) from error
        self._folder = folder
        self._clock = clock
        self._urls = MediaUrls(base_url, secret, former)
        self._threads = CapacityLimiter(THREADS)

    async def __aenter__(self) -> Self:
        """Remove what puts of an earlier process left unfinished."""
        await self._in_thread(self._sweep)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Do nothing: every put cleans up after itself."""

    def routes(self) -> Sequence[Route]:
        """Return the route that answers this storage's URLs."""
        return [media_route(self, self._urls, self._clock)]

    async def put(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        content_type: str,
        size_bytes: int | None = None,  # noqa: ARG002 - nothing is reserved in advance
    ) -> StoredObject:
        """Implement ``ObjectStorage``."""
        final = self._path(key, content_type)
        temporary = self._folder / _TEMPORARY / f"{os.getpid()}-{secrets.token_hex(16)}"
        try:
            file = await self._in_thread(_create, temporary)
            try:
                await self._fill(file, chunks)
            finally:
                with anyio.CancelScope(shield=True):
                    await self._in_thread(file.close)
            await self._in_thread(_publish, temporary, final)
        finally:
            with anyio.CancelScope(shield=True):
                await self._in_thread(temporary.unlink, True)  # noqa: FBT003 - missing_ok
        stored = await self.head(key)
        if stored is None:
            raise unavailable("The object was removed while it was being stored.")
        return stored

    def url_for(self, key: str) -> str:
        """Implement ``ObjectStorage``."""
        return self._urls.url_for(key, self._clock.now())

    def key_of(self, url: str) -> str | None:
        """Implement ``ObjectStorage``."""
        return self._urls.key_of(url)

    async def head(self, key: str) -> StoredObject | None:
        """Implement ``ObjectStorage``."""
        found = await self._in_thread(self._find, key)
        if found is None:
            return None
        path, size_bytes = found
        return StoredObject(key, size_bytes, _TYPES[path.suffix])

    async def open(self, key: str) -> AsyncIterator[bytes]:
        """Implement ``ObjectStorage``."""
        found = await self._in_thread(self._find, key)
        if found is None:
            raise EdgeError(Code.NOT_FOUND, "There is no such object.")
        file = await self._in_thread(found[0].open, "rb")
        try:
            while chunk := await self._in_thread(file.read, READ_BYTES):
                yield chunk
        finally:
            file.close()

    async def delete(self, key: str) -> None:
        """Implement ``ObjectStorage``."""
        found = await self._in_thread(self._find, key)
        if found is not None:
            await self._in_thread(found[0].unlink, True)  # noqa: FBT003 - missing_ok

    async def check(self) -> None:
        """Implement ``Checked``: write, sync and remove a small file."""
        await self._in_thread(self._probe)

    async def _fill(self, file: BinaryIO, chunks: AsyncIterable[bytes]) -> None:
        gathered = bytearray()
        async for chunk in chunks:
            gathered += chunk
            if len(gathered) >= WRITE_BYTES:
                await self._in_thread(file.write, bytes(gathered))
                gathered.clear()
        await self._in_thread(_finish, file, bytes(gathered))

    async def _in_thread(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Run a blocking call, in one of this storage's own threads."""
        try:
            return await to_thread.run_sync(function, *arguments, limiter=self._threads)
        except OSError as error:
            _log.error("the storage folder failed: %s", error)
            raise unavailable("The storage cannot be used; try again.") from error

    def _path(self, key: str, content_type: str) -> Path:
        if not is_key(key):
            raise EdgeError(Code.INTERNAL_ERROR, f"{key!r} is not a key.")
        return self._folder / (key + _ENDINGS.get(content_type, _OTHER_ENDING))

    def _find(self, key: str) -> tuple[Path, int] | None:
        if not is_key(key):
            return None
        for ending in _TYPES:
            path = self._folder / (key + ending)
            try:
                return path, path.stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                continue
        return None

    def _sweep(self) -> None:
        """Remove temporary files whose process is gone; another process may be writing its own."""
        for path in (self._folder / _TEMPORARY).iterdir():
            pid = path.name.partition("-")[0]
            if not pid.isdecimal() or int(pid) == os.getpid() or not _is_running(int(pid)):
                path.unlink(missing_ok=True)

    def _probe(self) -> None:
        path = self._folder / _TEMPORARY / f"{os.getpid()}-{secrets.token_hex(16)}"
        try:
            with _create(path) as file:
                _finish(file, b"s3edge")
        finally:
            path.unlink(missing_ok=True)


def from_url(url: str, wiring: Wiring) -> ObjectStorage:
    """
    Return the storage of a ``file:///folder`` setting; the path is absolute (RFC 8089).

    Raises:
        ValueError: The URL names no folder.
    """
    parts = urlsplit(url)
    folder = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or folder in ("", "/"):
        raise ValueError("name an absolute folder, as in file:///srv/s3edge/media")
    return FileObjectStorage(Path(folder), wiring.public_url, wiring.clock)


def _create(path: Path) -> BinaryIO:
    return path.open("xb")


def _finish(file: BinaryIO, rest: bytes) -> None:
    file.write(rest)
    file.flush()
    os.fsync(file.fileno())


def _publish(temporary: Path, final: Path) -> None:
    """Give a finished file its name, unless one is there already, and make that last."""
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(temporary, final)
    except FileExistsError:
        return
    folder = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _remember(path: Path, base_url: str) -> Sequence[str]:
    """
    Return where the app was reached before, adding where it is now.

    The database keeps URLs; when the port or the host changes, those of before still name our files.
    """
    known = path.read_text("utf-8").split() if path.exists() else []
    if base_url not in known:
        with path.open("a", encoding="utf-8") as file:
            file.write(base_url + "\n")
    return known


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
