"""From an HTTP answer to the data in its envelope, or to an error."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from s3edge.client.effects import HttpReply
from s3edge.client.errors import ERROR_OF, S3EdgeError, UnreadableAnswer
from s3edge.client.json_values import as_array, as_object
from s3edge.client.retries import RETRIED_STATUSES, retry_after_s
from s3edge.errors import Detail
from s3edge.values import RateLimit


_POLICY = re.compile(
    r'\s*"(?P<name>[^"]*)"\s*;\s*q=(?P<quota>\d{1,9})\s*;\s*w=(?P<window_s>\d{1,9})(?!\d)'
)
"""The IETF draft's ``RateLimit-Policy``, as this API writes it."""

_NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading JSON raises of bytes that are none, of text that is no UTF-8, and of endless nesting."""


def is_success(reply: HttpReply) -> bool:
    """Return whether an answer is no error."""
    return 200 <= reply.status < 300  # noqa: PLR2004 - RFC 9110, section 15


def check_plain(reply: HttpReply, place: str) -> None:
    """
    Return if an answer is not compressed, as was asked for.

    Raises:
        UnreadableAnswer: It is, and was not read.
    """
    encoding = reply.headers.get("content-encoding", "").strip().lower()
    if encoding not in {"", "identity"}:
        raise UnreadableAnswer(
            f"What {place} answered ({reply.status}) is compressed, which was not asked for.",
            status=reply.status,
            request_id=reply.headers.get("x-request-id"),
        )


def data_of(reply: HttpReply, place: str) -> Any:
    """
    Return what an answer carries: the envelope's ``data``, or the whole JSON where there is no envelope.

    Args:
        reply: The answer.
        place: Who gave it, for people.

    Raises:
        UnreadableAnswer: It is no JSON: half of an answer, or something else's.
    """
    try:
        answer = msgspec.json.decode(reply.body)
    except _NO_JSON:
        raise UnreadableAnswer(
            f"What {place} answered ({reply.status}) is cut short, or is not this API's.",
            status=reply.status,
            request_id=reply.headers.get("x-request-id"),
            # What was to be said may be said again: nothing was refused.
            retryable=True,
        ) from None
    envelope = as_object(answer)
    return envelope["data"] if envelope.keys() >= {"success", "data"} else answer


def error_of(reply: HttpReply, place: str, now: datetime) -> S3EdgeError:
    """
    Return what an answer that is no success says.

    Args:
        reply: The answer.
        place: Who gave it, for people.
        now: What a date in ``Retry-After`` is compared with.
    """
    envelope = _envelope(reply.body)
    found = as_object(envelope.get("error"))
    code = found.get("code")
    if not isinstance(code, str):
        return _unenveloped(reply, place, now)
    request_id = as_object(envelope.get("meta")).get("request_id")
    return ERROR_OF.get(code, S3EdgeError)(
        str(found.get("message", "")),
        code=code,
        status=reply.status,
        request_id=request_id or reply.headers.get("x-request-id"),
        retryable=reply.status in RETRIED_STATUSES,
        retry_after=retry_after_s(reply.headers.get("retry-after"), now),
        details=_details(found.get("details")),
        policy=policy_of(reply.headers.get("ratelimit-policy")),
    )


def policy_of(header: str | None) -> RateLimit | None:
    """Return the limit that a ``RateLimit-Policy`` header names."""
    match = _POLICY.match(header or "")
    if match is None:
        return None
    return RateLimit(match["name"], int(match["quota"]), int(match["window_s"]))


def _envelope(body: bytes) -> Mapping[str, Any]:
    try:
        return as_object(msgspec.json.decode(body))
    except _NO_JSON:
        return {}


def _unenveloped(reply: HttpReply, place: str, now: datetime) -> S3EdgeError:
    """Return the error of an answer that something before the server gave."""
    if 300 <= reply.status < 400:  # noqa: PLR2004 - RFC 9110, section 15
        message = (
            "The server redirects elsewhere, where the token does not go; set base_url to its own"
            " address."
        )
    elif reply.body:
        message = f"What answered {reply.status} at {place} is not this API."
    else:
        message = f"{place} answered {reply.status}, and said no more."
    return UnreadableAnswer(
        message,
        status=reply.status,
        request_id=reply.headers.get("x-request-id"),
        retryable=reply.status in RETRIED_STATUSES,
        retry_after=retry_after_s(reply.headers.get("retry-after"), now),
    )


def _details(found: Any) -> list[Detail]:
    return [
        Detail(str(each.get("field", "")), str(each.get("message", "")))
        for each in map(as_object, as_array(found))
    ]
