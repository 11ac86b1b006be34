"""
How errors are answered: one table.

The other side of it is ``s3edge_inference.refusals``: a gateway ends the task on a 400 or a 500,
refunded, tries a 503 again, and takes one that names a time for a server that works.
"""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from attrs import frozen
from starlette.responses import Response

from s3edge.errors import Code, EdgeError


UNAUTHORIZED = "UNAUTHORIZED"
"""The contract has one more code than users ever see."""


@frozen
class Refused(Exception):  # noqa: N818 - an answer like any other
    """
    Another answer than 200.

    Attributes:
        status: Of HTTP.
        code: For programs.
        message: For people, users among them: no address, no key, at most 200 characters.
        retry_after_s: When to come back; ``None`` when it is of no use.
    """

    status: HTTPStatus
    code: str
    message: str
    retry_after_s: int | None = None

    def response(self) -> Response:
        """Return it as it is sent."""
        headers: Mapping[str, str] = (
            {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        )
        return json_response({"error": self.code, "message": self.message}, self.status, headers)


def refused(error: EdgeError) -> Refused:
    """Return how an error is answered."""
    if error.code is Code.INVALID_REQUEST:
        return Refused(HTTPStatus.BAD_REQUEST, error.code, error.message)
    if error.retryable:
        return Refused(
            HTTPStatus.SERVICE_UNAVAILABLE, error.code, error.message, error.retry_after_s or 1
        )
    return Refused(HTTPStatus.INTERNAL_SERVER_ERROR, error.code, error.message)


def wrong_key() -> Refused:
    """Return the answer to a key that is missing or not ours."""
    return Refused(HTTPStatus.UNAUTHORIZED, UNAUTHORIZED, "The API key is missing or wrong.")


def json_response(
    document: object, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a message of the API as a response."""
    return Response(
        msgspec.json.encode(document), status, dict(headers or {}), media_type="application/json"
    )
