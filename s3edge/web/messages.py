"""
Every message of the public API, as one type each.

The same types decode requests, encode responses and make the OpenAPI document. A field that is left
out when it does not apply defaults to ``UNSET``; one that may be null says ``| None``.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType

from s3edge.errors import Code
from s3edge.rules.paging import CURSOR_PATTERN, DEFAULT_LIMIT, MAX_LIMIT, MAX_PAGE
from s3edge.rules.prompts import MAX_PROMPT_CHARACTERS, PROMPT_PATTERN
from s3edge.usecases.read_task import MAX_WAIT_S
from s3edge.usecases.request_segmentation import MAX_URL_CHARACTERS
from s3edge.values import TaskStatus, Tier


T = TypeVar("T")


class FieldError(Struct, frozen=True):
    """What is wrong with one field of the request."""

    field: str
    message: str


class ErrorBody(Struct, frozen=True):
    """Why a request was refused."""

    code: Code
    message: str
    details: Sequence[FieldError] | UnsetType = UNSET


class ResponseMeta(Struct, frozen=True):
    """Names the request."""

    request_id: UUID
    timestamp: datetime


class Success(Struct, Generic[T], frozen=True, kw_only=True):
    """The envelope of every answer that is not an error."""

    success: Literal[True]
    data: T
    error: None
    meta: ResponseMeta


class Failure(Struct, frozen=True, kw_only=True):
    """The envelope of every error."""

    success: Literal[False]
    data: None
    error: ErrorBody
    meta: ResponseMeta


class Health(Struct, frozen=True):
    """The process is up."""

    status: Literal["ok"]
    timestamp: datetime
    version: str


class DependencyHealth(Struct, frozen=True):
    """How one dependency is."""

    ok: bool
    latency_ms: float
    message: str | UnsetType = UNSET


class DependencyChecks(Struct, frozen=True):
    """How every dependency is."""

    database: DependencyHealth
    storage: DependencyHealth
    backend: DependencyHealth
    auth: DependencyHealth


class Readiness(Struct, frozen=True):
    """Whether the service can do its work."""

    status: Literal["ok", "degraded", "unavailable"]
    checks: DependencyChecks


class Upload(Struct, frozen=True):
    """An image that is in storage."""

    image_id: UUID
    image_url: str
    size_bytes: int
    content_type: str
    width: int
    height: int


class SegmentRequest(Struct, frozen=True):
    """What to segment; exactly one of image_url and image_id is given."""

    text_prompt: Annotated[
        str,
        Meta(
            extra_json_schema={"pattern": PROMPT_PATTERN},
            description=f"1 to {MAX_PROMPT_CHARACTERS} characters after trimming, no control characters.",
        ),
    ]
    image_url: (
        Annotated[
            str,
            Meta(
                max_length=MAX_URL_CHARACTERS,
                description="The image_url of one of your own uploads.",
            ),
        ]
        | UnsetType
        | None
    ) = UNSET
    image_id: (
        Annotated[UUID, Meta(description="The image_id of one of your own uploads.")]
        | UnsetType
        | None
    ) = UNSET
    project_id: (
        Annotated[UUID, Meta(description="Names the project that the result belongs to.")]
        | UnsetType
        | None
    ) = UNSET


class Accepted(Struct, frozen=True):
    """A segmentation that was paid for and will be done."""

    task_id: UUID
    status: TaskStatus


class TaskQuery(Struct, frozen=True):
    """How to read a task."""

    wait: Annotated[
        float,
        Meta(
            ge=0,
            le=MAX_WAIT_S,
            description="Hold the answer until the task ends, for this many seconds at most.",
        ),
    ] = 0.0


class TaskState(Struct, frozen=True):
    """How a task stands."""

    task_id: UUID
    status: TaskStatus
    created_at: datetime
    updated_at: datetime
    result_id: UUID | UnsetType = UNSET
    error_code: Code | UnsetType = UNSET
    error_message: str | UnsetType = UNSET


class ResultsQuery(Struct, frozen=True):
    """Which results to list."""

    page: Annotated[int, Meta(ge=1, le=MAX_PAGE, description="From 1; ignored with a cursor.")] = 1
    limit: Annotated[
        int, Meta(ge=1, description=f"More than {MAX_LIMIT} counts as {MAX_LIMIT}.")
    ] = DEFAULT_LIMIT
    project_id: UUID | UnsetType = UNSET
    status: TaskStatus | UnsetType = UNSET
    cursor: (
        Annotated[
            str,
            Meta(
                extra_json_schema={"pattern": CURSOR_PATTERN},
                description="The next_cursor of an earlier answer.",
            ),
        ]
        | UnsetType
    ) = UNSET


class ResultSummary(Struct, frozen=True):
    """One result, in a list."""

    id: UUID
    source_image_url: str
    mask_image_url: str | None
    text_prompt: str
    status: TaskStatus
    created_at: datetime


class Results(Struct, frozen=True):
    """A page of results, newest first."""

    results: Sequence[ResultSummary]
    total: int
    page: int
    limit: int
    next_cursor: str | UnsetType = UNSET


class Result(Struct, frozen=True):
    """One result, whole."""

    id: UUID
    project_id: UUID | None
    source_image_url: str
    mask_image_url: str | None
    text_prompt: str
    labels: Sequence[Any]
    metadata: Mapping[str, Any]
    status: TaskStatus
    created_at: datetime
    updated_at: datetime


class Limit(Struct, frozen=True):
    """A quota of requests within a window of seconds."""

    limit: int
    window_s: int


class Account(Struct, frozen=True):
    """What the user has and may do; rate_limits is empty when limits are off."""

    user_id: UUID
    tier: Tier
    credits: int
    rate_limits: Mapping[str, Limit]
