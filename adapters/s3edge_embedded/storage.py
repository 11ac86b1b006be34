"""
Objects as plain files, each in a folder named for its key.

A put writes into a temporary folder of the same file system, syncs the file, and renames the folder to
its final name, which fails when there is one: whoever reads sees the whole object or none, also after a
power cut, and of two puts the first wins. The media type is kept as the file's ending, so that the
images can be looked at with any viewer. A key must not be the beginning of another.
"""

import errno
import logging
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar, TypeVarTuple
from urllib.parse import unquote, urlsplit

from s3edge.errors import Code, EdgeError, unavailable
from s3edge.ports import Clock, ObjectStorage, Wiring
from s3edge.rules.keys import is_key
from s3edge.rules.media_urls import MediaUrls
from s3edge.values import StoredObject
from s3edge.web.http import Route
from s3edge.web.media import media_route
from s3edge_embedded.private_files import make_private_folder, read_or_create
from s3edge_embedded.threads import Threads


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

_OBJECT = "@object"
"""The file's name in its folder; no part of a key can be spelt so."""

_TEMPORARY = ".incoming"
_BASE_URLS = ".base-urls"

_ABANDONED_S = 3600
"""No upload takes that long."""
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
            former = _former_base_urls(folder)
        except OSError as error:
            message = f"The folder {folder} cannot be used: {error}"
            raise unavailable(message) from error
        self._folder = folder
        self._is_remembered = base_url in former
        self._clock = clock
        self._urls = MediaUrls(base_url, secret, former)
        self._threads = Threads(THREADS, "s3edge-storage")

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
        if not is_key(key):
            raise EdgeError(Code.INTERNAL_ERROR, f"{key!r} is not a key.")
        temporary = self._new_temporary()
        name = _OBJECT + _ENDINGS.get(content_type, _OTHER_ENDING)
        opened = ExitStack()
        try:
            try:
                file = await self._in_thread(_create, temporary / name, opened)
                await self._fill(file, chunks)
            finally:
                await self._in_thread_anyway(opened.close)
            await self._in_thread(_publish, temporary, self._folder / key)
        finally:
            await self._in_thread_anyway(_remove, temporary)
        stored = await self.head(key)
        if stored is None:
            raise unavailable("The object was removed while it was being stored.")
        return stored

    def url_for(self, key: str) -> str:
        """Implement ``ObjectStorage``."""
        if not self._is_remembered:
            _remember(self._folder, self._urls.base_url)
            self._is_remembered = True
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
        with ExitStack() as opened:
            file = await self._in_thread(_open, found[0], opened)
            while chunk := await self._in_thread(file.read, READ_BYTES):
                yield chunk

    async def delete(self, key: str) -> None:
        """Implement ``ObjectStorage``."""
        if is_key(key):
            await self._in_thread(_remove, self._folder / key)

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
        with _as_edge_errors():
            return await self._threads.run(function, *arguments)

    async def _in_thread_anyway(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Do the same, also when this is cancelled."""
        with _as_edge_errors():
            return await self._threads.run_anyway(function, *arguments)

    def _new_temporary(self) -> Path:
        """Return the name of a folder that nobody has; whose it is stands in it, for ``_sweep``."""
        return self._folder / _TEMPORARY / f"{os.getpid()}-{secrets.token_hex(16)}"

    def _find(self, key: str) -> tuple[Path, int] | None:
        if not is_key(key):
            return None
        for ending in _TYPES:
            path = self._folder / key / (_OBJECT + ending)
            try:
                return path, path.stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                continue
        return None

    def _sweep(self) -> None:
        """Remove what a process that is gone left; another process may be writing its own."""
        for path in (self._folder / _TEMPORARY).iterdir():
            pid = path.name.partition("-")[0]
            if not pid.isdecimal() or not _is_running(int(pid)):
                _remove(path)
            elif int(pid) == os.getpid() and time.time() - path.stat().st_mtime > _ABANDONED_S:
                # Ours by number only: in containers, several servers on one volume have the same.
                _remove(path)

    def _probe(self) -> None:
        temporary = self._new_temporary()
        try:
            with ExitStack() as opened:
                _finish(_create(temporary / _OBJECT, opened), b"s3edge")
        finally:
            _remove(temporary)


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


@contextmanager
def _as_edge_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _log.error("the storage folder failed: %s", error)
        raise unavailable("The storage cannot be used; try again.") from error


def _create(path: Path, opened: ExitStack) -> BinaryIO:
    """Make a file and its folder; who was cancelled meanwhile has it in what is to be closed."""
    path.parent.mkdir(mode=0o700)
    return opened.enter_context(path.open("xb"))


def _open(path: Path, opened: ExitStack) -> BinaryIO:
    return opened.enter_context(path.open("rb"))


def _finish(file: BinaryIO, rest: bytes) -> None:
    file.write(rest)
    file.flush()
    os.fsync(file.fileno())


def _publish(temporary: Path, final: Path) -> None:
    """Give a finished object its name, unless there is one of that name, and make that last."""
    _sync(temporary)
    missing = [folder for folder in final.parents if not folder.exists()]
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.rename(final)
    except OSError as error:
        # POSIX lets a system say either when the target is a folder with something in it.
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return
        raise
    for folder in (final.parent, *(folder.parent for folder in missing)):
        _sync(folder)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    """Remove an object's folder and what is in it, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        message = f"{folder} cannot be removed"
        raise OSError(message)


def _former_base_urls(folder: Path) -> Sequence[str]:
    """Return the addresses under which URLs were handed out before."""
    path = folder / _BASE_URLS
    return path.read_text("utf-8").split() if path.exists() else []


def _remember(folder: Path, base_url: str) -> None:
    """
    Keep the address under which URLs are handed out.

    The database keeps URLs; when the port or the host changes, those of before still name our files.
    """
    try:
        with (folder / _BASE_URLS).open("a", encoding="utf-8") as file:
            file.write(base_url + "\n")
    except OSError as error:
        raise unavailable("The storage cannot be used; try again.") from error


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
