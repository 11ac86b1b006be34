"""
What a call can raise: one base class, and a class for each code of the API.

A code that this version does not know raises the base class itself. All of them pickle, so they cross
process boundaries whole.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from s3edge.errors import Detail
from s3edge.values import RateLimit


if TYPE_CHECKING:
    from s3edge.client.handles import TaskHandle


class S3EdgeError(Exception):
    """
    A call failed.

    Attributes:
        message: For people; holds no secret.
        code: The API's code, or one of the client's own (``CONNECTION_FAILED``, ``TIMED_OUT``, ...).
        status: Of the HTTP answer; ``None`` when there was none.
        request_id: Names the request in the server's log, if it answered.
        retryable: Whether the same call may succeed later without a change.
        retry_after: In how many seconds, if the server said so.
        idempotency_key: Of the call; give it again to repeat the call without being charged twice.
        details: For ``INVALID_REQUEST``, what is wrong with which field.
        policy: For ``RATE_LIMITED``, the limit that was hit, if the server said so.
    """

    default_code = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        retryable: bool = False,
        retry_after: float | None = None,
        details: Sequence[Detail] = (),
        policy: RateLimit | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.status = status
        self.request_id = request_id
        self.retryable = retryable
        self.retry_after = retry_after
        self.details = tuple(details)
        self.policy = policy
        self.idempotency_key: str | None = None

    def __str__(self) -> str:
        """Return the message, the code, and what to quote to an operator."""
        named = "" if self.request_id is None else f", request {self.request_id}"
        return f"{self.message} ({self.code}{named})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep every attribute when the error crosses a process boundary."""
        return _restore, (type(self), self.args, dict(self.__dict__))


def _restore(
    kind: type[S3EdgeError], args: tuple[Any, ...], attributes: Mapping[str, Any]
) -> S3EdgeError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


class ConfigurationError(S3EdgeError):
    """The client cannot be used as it was set up; the message says what to change."""

    default_code = "CONFIGURATION"


class ConnectionFailed(S3EdgeError):
    """There was no answer, or only a part of one; whether the server acted is not known."""

    default_code = "CONNECTION_FAILED"


class TimedOut(S3EdgeError):
    """The answer did not come in time; whether the server acted is not known."""

    default_code = "TIMED_OUT"


class UnreadableAnswer(S3EdgeError):
    """Something answered that is not this API: a proxy's page, most likely."""

    default_code = "UNREADABLE_ANSWER"


class MaskNotReady(S3EdgeError):
    """The result has no mask: it is not done."""

    default_code = "MASK_NOT_READY"


class AuthRequired(S3EdgeError):
    """The call needs an access token."""

    default_code = "AUTH_REQUIRED"


class AuthInvalid(S3EdgeError):
    """The access token is expired, or was never good."""

    default_code = "AUTH_INVALID"


class Forbidden(S3EdgeError):
    """The token is good, and does not give this right."""

    default_code = "FORBIDDEN"


class NotFound(S3EdgeError):
    """There is no such thing, or it is somebody else's."""

    default_code = "NOT_FOUND"


class MethodNotAllowed(S3EdgeError):
    """The path is there, and does not take this method."""

    default_code = "METHOD_NOT_ALLOWED"


class InvalidRequest(S3EdgeError):
    """Something in the request is wrong; ``details`` says what."""

    default_code = "INVALID_REQUEST"


class FileTooLarge(S3EdgeError):
    """The image is larger than 10 MiB."""

    default_code = "FILE_TOO_LARGE"


class PayloadTooLarge(S3EdgeError):
    """The JSON body is too large."""

    default_code = "PAYLOAD_TOO_LARGE"


class InsufficientCredits(S3EdgeError):
    """The balance does not cover the segmentation; nothing was charged."""

    default_code = "INSUFFICIENT_CREDITS"


class IdempotencyKeyReused(S3EdgeError):
    """The idempotency key was used for another request before."""

    default_code = "IDEMPOTENCY_KEY_REUSED"


class RateLimited(S3EdgeError):
    """Too many requests; ``retry_after`` says when to come back, ``policy`` which limit it was."""

    default_code = "RATE_LIMITED"


class ModelNotLoaded(S3EdgeError):
    """The model is not up yet."""

    default_code = "MODEL_NOT_LOADED"


class InferenceFailed(S3EdgeError):
    """The model failed."""

    default_code = "INFERENCE_FAILED"


class ServiceUnavailable(S3EdgeError):
    """The service, or something that it needs, is down or too busy; nothing was charged."""

    default_code = "SERVICE_UNAVAILABLE"


class InternalError(S3EdgeError):
    """Something unforeseen happened in the server; quote ``request_id`` to its operator."""

    default_code = "INTERNAL_ERROR"


class TaskError(S3EdgeError):
    """
    Waiting for a task did not give a result.

    Attributes:
        task: The handle that was waited on, with the state it was last seen in.
    """

    may_change = False

    def __init__(self, message: str, *, task: "TaskHandle", code: str | None = None) -> None:
        super().__init__(message, code=code, retryable=self.may_change)
        self.task = task
        self.idempotency_key = task.idempotency_key


class TaskFailed(TaskError):
    """The segmentation ended in an error, and its credit was given back; ``code`` says why."""

    default_code = "TASK_FAILED"


class WaitTimeout(TaskError):
    """The task had not ended in time. It goes on: wait again, or look later."""

    default_code = "WAIT_TIMEOUT"
    may_change = True


ERROR_OF: Mapping[str, type[S3EdgeError]] = {
    kind.default_code: kind
    for kind in (
        AuthRequired,
        AuthInvalid,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        InvalidRequest,
        FileTooLarge,
        PayloadTooLarge,
        InsufficientCredits,
        IdempotencyKeyReused,
        RateLimited,
        ModelNotLoaded,
        InferenceFailed,
        ServiceUnavailable,
        InternalError,
    )
}
"""The class of each code of the API."""
