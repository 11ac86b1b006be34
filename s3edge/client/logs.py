"""
What the client logs, to the logger ``s3edge.client``: never a token, a query, a signed URL or a prompt.

``S3EDGE_LOG=debug`` shows it on standard error where nothing else was set up.
"""

import logging
import os
from urllib.parse import urlsplit

from s3edge.client.effects import HttpCall, HttpReply
from s3edge.client.errors import S3EdgeError


LOG_VARIABLE = "S3EDGE_LOG"

log = logging.getLogger("s3edge.client")


def set_up() -> None:
    """Show what is logged, if the environment asks for it and nobody else has seen to it."""
    if os.environ.get(LOG_VARIABLE, "").lower() != "debug":
        return
    log.setLevel(logging.DEBUG)
    if not log.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))
        log.addHandler(handler)


def answered(call: HttpCall, reply: HttpReply, failures: int) -> None:
    """Say how a call was answered."""
    log.debug(
        "%s answered %s, attempt %s, request %s",
        _shown(call),
        reply.status,
        failures + 1,
        reply.headers.get("x-request-id", "-"),
    )


def failed(call: HttpCall, error: S3EdgeError, failures: int) -> None:
    """Say why a call was not answered."""
    log.debug("%s failed, attempt %s: %s", _shown(call), failures + 1, error.code)


def _shown(call: HttpCall) -> str:
    """Return what was asked for; of a download, which may be signed in its path, only where."""
    parts = urlsplit(call.url)
    host = parts.netloc.rpartition("@")[2]
    path = "/..." if call.follows_redirects else parts.path
    return f"{call.method} {parts.scheme}://{host}{path}"
