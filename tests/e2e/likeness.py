"""What is never alike in two runs, and so is no difference between doors."""

import re
from collections.abc import Iterable, Sequence


OF_THE_SERVER = {"connection", "date", "keep-alive", "server", "transfer-encoding", "via"}
"""Headers that are the server's own."""

_UNLIKE = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "(id)"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)"), "(time)"),
    (re.compile(r"(http://)?127\.0\.0\.1:\d+"), "(address)"),
    (re.compile(r"expires=\d+&signature=[\w-]+"), "(signature)"),
    (re.compile(r"max-age=\d+"), "(age)"),
    (re.compile(r'"(latency_ms|inference_time_ms)":[\d.]+'), "(took)"),
    (re.compile(r"Bearer eyJ[\w.-]+"), "(token)"),
    (re.compile(r"(?<=boundary=)[0-9a-f]{32}|(?<=--)[0-9a-f]{32}"), "(boundary)"),
    (re.compile(r'((?<=[?&]cursor=)|(?<="next_cursor":"))[\w-]+'), "(cursor)"),
)

Headers = Sequence[tuple[str, str]]


def likened(text: str) -> str:
    """Return a text with names in the place of ids, times, addresses and the like."""
    for pattern, name in _UNLIKE:
        text = pattern.sub(name, text)
    return text


def likened_bytes(body: bytes) -> bytes:
    """Return a body likewise; it may be anything."""
    return likened(body.decode("latin-1")).encode("latin-1")


def likened_headers(headers: Iterable[tuple[str, str]]) -> Headers:
    """
    Return headers likewise, in order, their names in lower case, without those of the server.

    How long a body is depends on the times in it, so lengths are left out as well.
    """
    return sorted(
        (name.lower(), "(n)" if name.lower() == "content-length" else likened(value))
        for name, value in headers
        if name.lower() not in OF_THE_SERVER
    )
