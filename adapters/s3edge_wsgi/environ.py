"""
Reads the environ of one WSGI request.

Names and native strings: PEP 3333. What is not ASCII comes as latin-1 and is UTF-8 in truth.
"""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from wsgiref.types import WSGIEnvironment

from s3edge.web.app import PathRoutes
from s3edge.web.http import Request


_LENGTH = re.compile(r"[0-9]{1,18}")

_WITHOUT_PREFIX = frozenset({"CONTENT_TYPE", "CONTENT_LENGTH"})


class RouteTable:
    """
    Finds the path that a request means.

    Args:
        paths: Every path that is served.
    """

    def __init__(self, paths: Sequence[PathRoutes]) -> None:
        self._fixed = {path.path: path for path in paths if "{" not in path.path}
        self._patterns = [(_pattern(path.path), path) for path in paths if "{" in path.path]

    def find(self, path: str) -> tuple[PathRoutes | None, Mapping[str, str]]:
        """Return the routes of a path and what its placeholders matched; ``None`` for no such path."""
        fixed = self._fixed.get(path)
        if fixed is not None:
            return fixed, {}
        for pattern, routes in self._patterns:
            match = pattern.fullmatch(path)
            if match is not None:
                return routes, match.groupdict()
        return None, {}


def path_of(environ: WSGIEnvironment) -> str:
    """Return the path below the mount."""
    return _decoded(environ.get("PATH_INFO", ""))


def request_of(
    environ: WSGIEnvironment,
    path: str,
    path_params: Mapping[str, str],
    body: AsyncIterator[bytes],
) -> Request:
    """Return the request that an environ describes."""
    return Request(
        method=environ["REQUEST_METHOD"],
        path=path,
        query=environ.get("QUERY_STRING", ""),
        headers=_headers(environ),
        body=body,
        path_params=path_params,
        peer=environ.get("REMOTE_ADDR") or None,
        mount_path=_decoded(environ.get("SCRIPT_NAME", "")).rstrip("/"),
    )


def declared_length(environ: WSGIEnvironment) -> int | None:
    """Return how many bytes the body is to have; ``None`` when nobody says, or not in numbers."""
    length = environ.get("CONTENT_LENGTH", "")
    return int(length) if _LENGTH.fullmatch(length) else None


def _headers(environ: WSGIEnvironment) -> Mapping[str, str]:
    """Return the headers by lower-case name; the server has joined repeated ones by a comma."""
    headers = {
        name[5:].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    for name in _WITHOUT_PREFIX:
        # The server may say that there was none by an empty text.
        if environ.get(name):
            headers[name.replace("_", "-").lower()] = environ[name]
    return headers


def _decoded(native: str) -> str:
    return native.encode("latin-1").decode("utf-8", "replace")


def _pattern(path: str) -> re.Pattern[str]:
    """Return what a path with placeholders matches."""
    pieces = re.split(r"\{(\w+)(:path)?\}", path)
    # Text, then name and ``:path`` or ``None`` of a placeholder, and so on.
    pattern = re.escape(pieces[0])
    for name, spans, text in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        pattern += rf"(?P<{name}>{'.*' if spans else '[^/]+'})" + re.escape(text)
    return re.compile(pattern, re.DOTALL)
