"""
How objects are named, and whose they are.

A key names its owner, so that the owner of an image is known without asking a database.
"""

import re
from uuid import UUID


MAX_KEY_BYTES = 1024
"""Amazon S3's and Cloudflare R2's limit."""

_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def upload_key(user_id: UUID, image_id: UUID) -> str:
    """Return the key of an uploaded image."""
    return f"{upload_prefix(user_id)}{image_id}"


def mask_key(user_id: UUID, task_id: UUID, index: int = 0) -> str:
    """Return the key of a task's mask; a batch numbers those after its first."""
    return f"{mask_prefix(user_id)}{task_id}" + (f"-{index}" if index else "")


def upload_prefix(user_id: UUID) -> str:
    """Return what the keys of a user's images begin with."""
    return f"uploads/{user_id}/"


def mask_prefix(user_id: UUID) -> str:
    """Return what the keys of a user's masks begin with."""
    return f"masks/{user_id}/"


def is_upload_of(user_id: UUID, key: str) -> bool:
    """Return whether a key names an image that this user uploaded."""
    prefix = upload_prefix(user_id)
    return key.startswith(prefix) and parse_id(key.removeprefix(prefix)) is not None


def parse_id(text: str) -> UUID | None:
    """Return the UUID that a text spells in its canonical form, or ``None``."""
    try:
        parsed = UUID(text)
    except ValueError:
        return None
    return parsed if str(parsed) == text.lower() else None


def is_key(key: str) -> bool:
    """Return whether a key is safe in a bucket, a URL and a file system alike."""
    return len(key) <= MAX_KEY_BYTES and all(_SEGMENT.fullmatch(part) for part in key.split("/"))


def unsigned(url: str) -> str:
    """Return a URL without its query, which is where a signature stands."""
    return url.partition("?")[0]
