"""Secrets made on first start and kept in files that only their owner can read."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path


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
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(make())
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
    finally:
        temporary.unlink()
    return _read(path)


def _read(path: Path) -> bytes:
    content = path.read_bytes()
    if path.stat().st_mode & 0o077:
        message = f"others can read {path}; run: chmod 600 {path}"
        raise PermissionError(message)
    return content
