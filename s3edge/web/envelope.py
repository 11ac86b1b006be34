"""Puts every answer into the one envelope."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from s3edge.errors import DEFAULT_RETRY_AFTER_S, Code, EdgeError
from s3edge.web.http import Reply, Response
from s3edge.web.messages import ErrorBody, Failure, FieldError, ResponseMeta, Success
from s3edge.web.statuses import STATUS_OF


JSON_HEADERS = (
    ("content-type", "application/json; charset=utf-8"),
    # Answers are one user's own, and a status is true for a moment only.
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
)

_encoder = msgspec.json.Encoder()

_CHALLENGES = {
    # RFC 6750, section 3: no error code when the request had no credentials at all.
    Code.AUTH_REQUIRED: "Bearer",
    Code.AUTH_INVALID: 'Bearer error="invalid_token"',
}


def success(reply: Reply, request_id: UUID, now: datetime) -> Response:
    """Return the response of a handler that answered."""
    body = Success(success=True, data=reply.data, error=None, meta=ResponseMeta(request_id, now))
    return Response(reply.status, [*JSON_HEADERS, *reply.headers], _encoder.encode(body))


def failure(error: EdgeError, request_id: UUID, now: datetime) -> Response:
    """Return the response of a request that was refused or failed."""
    details = [FieldError(detail.field, detail.message) for detail in error.details]
    body = Failure(
        success=False,
        data=None,
        error=ErrorBody(error.code, error.message, details or msgspec.UNSET),
        meta=ResponseMeta(request_id, now),
    )
    return Response(
        STATUS_OF[error.code], [*JSON_HEADERS, *_headers_of(error)], _encoder.encode(body)
    )


def _headers_of(error: EdgeError) -> Sequence[tuple[str, str]]:
    headers = []
    challenge = _CHALLENGES.get(error.code)
    if challenge is not None:
        headers.append(("www-authenticate", challenge))
    if error.retry_after_s is not None:
        headers.append(("retry-after", str(error.retry_after_s)))
    elif STATUS_OF[error.code] in (429, 503):
        headers.append(("retry-after", str(DEFAULT_RETRY_AFTER_S)))
    return headers
