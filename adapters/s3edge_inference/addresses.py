"""How the addresses of GPU servers are written in a setting."""

import re
from urllib.parse import urlsplit


_HOST = re.compile(r"[a-z0-9._:-]+")
_PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]*")


def base_url(text: str, number: int) -> str:
    """
    Return a base URL without a trailing slash.

    Args:
        text: As it was written.
        number: Its place in the setting, from 1.

    Raises:
        ValueError: What is wrong with it, said without showing it.
    """
    url_number = f"URL {number}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        message = f"{url_number} is malformed; write http://host:port"
        raise ValueError(message) from None
    if "@" in parts.netloc:
        message = f"{url_number} holds credentials; leave them out and set API_SECRET_KEY"
        raise ValueError(message)
    if "?" in text or "#" in text:
        message = f"{url_number} has a query or a fragment; leave it out"
        raise ValueError(message)
    well_formed = (
        parts.scheme in ("http", "https")
        and parts.hostname is not None
        and _HOST.fullmatch(parts.hostname) is not None
        and port != 0
        and not parts.netloc.endswith(":")
        and _PATH.fullmatch(parts.path) is not None
    )
    if not well_formed:
        message = f"{url_number} is malformed; write http://host:port"
        raise ValueError(message)
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
