"""
One error for everything that can go wrong, with a closed set of codes.

Nothing here knows an HTTP status: ``s3edge.web`` holds the one table that turns a code into one.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from attrs import frozen


DEFAULT_RETRY_AFTER_S = 5
"""When to come back where nothing is known of how long it takes."""


class Code(StrEnum):
    """Why a request was refused or a task failed; the wire's ``error.code``."""

    AUTH_REQUIRED = "AUTH_REQUIRED"
    AUTH_INVALID = "AUTH_INVALID"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    INVALID_REQUEST = "INVALID_REQUEST"
    FILE_TOO_LARGE = "FILE_TOO_LARGE"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    INSUFFICIENT_CREDITS = "INSUFFICIENT_CREDITS"
    IDEMPOTENCY_KEY_REUSED = "IDEMPOTENCY_KEY_REUSED"
    RATE_LIMITED = "RATE_LIMITED"
    MODEL_NOT_LOADED = "MODEL_NOT_LOADED"
    INFERENCE_FAILED = "INFERENCE_FAILED"
    SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE"
    INTERNAL_ERROR = "INTERNAL_ERROR"


@frozen
class Detail:
    """
    What is wrong with one field of a request.

    Attributes:
        field: Its name as the client wrote it.
        message: What to do about it.
    """

    field: str
    message: str


class EdgeError(Exception):
    """
    A refusal or a failure that has a code.

    Attributes:
        code: One of the closed set.
        message: For people; holds no secret and nothing internal.
        retryable: Whether the same call may succeed later without a change.
        details: For ``INVALID_REQUEST``, what is wrong with which field.
        retry_after_s: When to come back, if that is known.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        retryable: bool = False,
        details: Sequence[Detail] = (),
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.retryable = retryable
        self.details = tuple(details)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        """Return the code and the message on one line."""
        return f"{self.code}: {self.message}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep every attribute when the error crosses a process boundary."""
        return (
            _restore,
            (self.code, self.message, self.retryable, self.details, self.retry_after_s),
        )


def _restore(
    code: Code,
    message: str,
    retryable: bool,  # noqa: FBT001 - positional because pickle calls it
    details: Sequence[Detail],
    retry_after_s: int | None,
) -> EdgeError:
    return EdgeError(
        code, message, retryable=retryable, details=details, retry_after_s=retry_after_s
    )


def invalid(field: str, message: str) -> EdgeError:
    """Return an ``INVALID_REQUEST`` about one field."""
    return EdgeError(Code.INVALID_REQUEST, f"{field}: {message}", details=[Detail(field, message)])


def unavailable(message: str, *, retry_after_s: int = DEFAULT_RETRY_AFTER_S) -> EdgeError:
    """Return a retryable ``SERVICE_UNAVAILABLE``: a dependency is down or too slow."""
    return EdgeError(Code.SERVICE_UNAVAILABLE, message, retryable=True, retry_after_s=retry_after_s)
