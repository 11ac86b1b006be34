"""Folders and files that only their owner can read; secrets are made on first start."""

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path


def make_private_folder(path: Path) -> None:
    """
    Make a folder, and those above it that are missing, for their owner alone.

    Raises:
        OSError: One of them cannot be made.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)


def make_private_file(path: Path) -> None:
    """
    Make an empty file for its owner alone, unless it is there.

    Raises:
        OSError: It cannot be made.
    """
    make_private_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def read_or_create(path: Path, make: Callable[[], bytes]) -> bytes:
    """
    Return a file's content, making it first when it is missing.

    Several processes may start at once: the file is written whole under another name and linked, so
    all of them read the one that came first.

    Args:
        path: Of the file.
        make: Returns new content.

    Raises:
        OSError: The file cannot be read or written, or others than its owner can read it.
    """
    try:
        return _read(path)
    except FileNotFoundError:
        make_private_folder(path.parent)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(make())
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()
    return _read(path)


def _read(path: Path) -> bytes:
    content = path.read_bytes()
    if path.stat().st_mode & 0o077:
        message = f"others can read {path}; run: chmod 600 {path}"
        raise PermissionError(message)
    return content
