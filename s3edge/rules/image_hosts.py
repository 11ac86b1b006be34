"""On which hosts, besides the storage, images may stand."""

from collections.abc import Collection
from urllib.parse import urlsplit


def host_of(image_url: str) -> str | None:
    """
    Return the host of an image's URL as a setting names it: ``name`` or ``name:port``, lower case.

    ``None`` for what is no ``http`` or ``https`` URL that every parser reads alike.
    """
    # Parsers disagree on blanks and control characters in a URL, so one with any is nobody's.
    if not (image_url.isascii() and image_url.isprintable()) or " " in image_url:
        return None
    try:
        parts = urlsplit(image_url)
    except ValueError:
        return None
    return parts.netloc.lower() if parts.scheme in {"http", "https"} else None


def is_allowed_host(image_url: str, image_hosts: Collection[str]) -> bool:
    """Return whether an image stands on a host that the operator allowed."""
    return host_of(image_url) in image_hosts
