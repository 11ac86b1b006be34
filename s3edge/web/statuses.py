"""The one table that turns error codes into HTTP statuses."""

from collections.abc import Mapping
from types import MappingProxyType

from s3edge.errors import Code


STATUS_OF: Mapping[Code, int] = MappingProxyType(
    {
        Code.AUTH_REQUIRED: 401,
        Code.AUTH_INVALID: 401,
        Code.FORBIDDEN: 403,
        Code.NOT_FOUND: 404,
        Code.METHOD_NOT_ALLOWED: 405,
        Code.INVALID_REQUEST: 400,
        Code.FILE_TOO_LARGE: 413,
        Code.PAYLOAD_TOO_LARGE: 413,
        Code.INSUFFICIENT_CREDITS: 402,
        Code.IDEMPOTENCY_KEY_REUSED: 422,
        Code.RATE_LIMITED: 429,
        Code.MODEL_NOT_LOADED: 503,
        Code.INFERENCE_FAILED: 500,
        Code.SERVICE_UNAVAILABLE: 503,
        Code.INTERNAL_ERROR: 500,
    }
)
