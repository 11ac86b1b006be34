"""
The nouns of the domain, as frozen values.

Ids are UUIDs, times are aware datetimes in UTC, sizes are bytes, and nothing here knows where it is
stored or how it travels.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from attrs import Factory, field, frozen


Json = Any
"""A value that JSON can carry: the model's own labels and metadata pass through unread."""


class Tier(StrEnum):
    """What a user pays for; decides the rate limits."""

    FREE = "free"
    PRO = "pro"
    ENTERPRISE = "enterprise"


class TaskStatus(StrEnum):
    """Where a task stands. ``done`` and ``error`` are final."""

    PENDING = "pending"
    PROCESSING = "processing"
    DONE = "done"
    ERROR = "error"


class RequestKind(StrEnum):
    """The class of endpoint that a rate limit counts."""

    UPLOAD = "upload"
    SEGMENT = "segment"
    READ = "read"
    ANONYMOUS = "anonymous"


@frozen
class User:
    """
    Somebody whose token was verified.

    Attributes:
        user_id: The token's ``sub``.
        tier: From the claim that the operator trusts; ``free`` when it is absent.
        jwt: The token itself, passed on so that the database can apply row-level security.
        is_anonymous: Signed in without an identity (Supabase's ``signInAnonymously``).
    """

    user_id: UUID
    tier: Tier = Tier.FREE
    jwt: str = field(default="", repr=False)
    is_anonymous: bool = False


@frozen
class Profile:
    """
    What the database knows of a user.

    Attributes:
        user_id: Whose profile it is.
        credits: The balance, never below zero.
    """

    user_id: UUID
    credits: int


@frozen
class NewTask:
    """
    A segmentation that a user asked for and that is not paid yet.

    Attributes:
        id: The task's id, chosen by the caller.
        source_image_url: Where the image is, without any signature.
        text_prompt: What to segment, already trimmed and checked.
        project_id: The user's own project, or ``None``.
        idempotency_key: The client's key for this request, or ``None``.
        request_hash: SHA-256 (hex) of the canonical request; tells a repeat from a reused key.
    """

    id: UUID
    source_image_url: str
    text_prompt: str
    project_id: UUID | None = None
    idempotency_key: str | None = None
    request_hash: str | None = None


@frozen
class Task:
    """
    A segmentation that was paid for, and its result once it is ``done``.

    Attributes:
        id: The task's id, and its result's.
        user_id: Whose it is.
        project_id: The user's own project, or ``None``.
        source_image_url: Where the image is, without any signature.
        text_prompt: What to segment.
        status: Where it stands.
        cost: Credits that were taken for it.
        created_at: When it was reserved.
        updated_at: When its status last changed.
        mask_image_url: Where the mask is, without any signature; ``None`` until ``done``.
        labels: What the model said it found.
        metadata: What the model said of the run.
        error_code: Why it ended in ``error``; else ``None``.
        error_message: The same, for people; else ``None``.
        attempt: How often it was leased; the number of the latest lease.
    """

    id: UUID
    user_id: UUID
    project_id: UUID | None
    source_image_url: str
    text_prompt: str
    status: TaskStatus
    cost: int
    created_at: datetime
    updated_at: datetime
    mask_image_url: str | None = None
    labels: Sequence[Json] = ()
    metadata: Mapping[str, Json] = Factory(dict)
    error_code: str | None = None
    error_message: str | None = None
    attempt: int = 1


@frozen
class Reservation:
    """
    The answer to asking for a task.

    Attributes:
        task: The new task, or the first one of the same idempotency key.
        credits: The balance afterwards.
        replayed: Whether the task already existed, so that nothing was charged now.
    """

    task: Task
    credits: int
    replayed: bool


@frozen
class Outcome:
    """
    A finished segmentation.

    Attributes:
        mask_image_url: Where the mask is, without any signature.
        labels: What the model said it found.
        metadata: ``inference_time_ms``, ``confidence``, ``model_version`` and what else it said.
    """

    mask_image_url: str
    labels: Sequence[Json] = ()
    metadata: Mapping[str, Json] = Factory(dict)


@frozen
class Position:
    """
    A place in the list of results, newest first.

    Attributes:
        created_at: Of the last row that was read.
        id: Of the same row; breaks ties.
    """

    created_at: datetime
    id: UUID


@frozen
class ResultQuery:
    """
    Which of a user's tasks to list, newest first.

    Attributes:
        limit: How many at the most.
        offset: How many to pass over; ignored when ``after`` is given.
        after: Only tasks older than this position.
        project_id: Only tasks of this project.
        status: Only tasks in this status.
    """

    limit: int
    offset: int = 0
    after: Position | None = None
    project_id: UUID | None = None
    status: TaskStatus | None = None


@frozen
class Page:
    """
    A stretch of a user's tasks.

    Attributes:
        tasks: Newest first, each without its labels and metadata.
        has_more: Whether older ones follow.
        total: How many match in all; ``None`` for a query by position, which does not count.
    """

    tasks: Sequence[Task]
    has_more: bool
    total: int | None


@frozen
class Account:
    """
    One user's money, for the operator.

    At every quiet moment ``credits == granted - used`` and ``used == live_cost``.

    Attributes:
        user_id: Whose it is.
        credits: The balance.
        granted: All that was ever given to the user.
        used: The sum of ``credits_used`` over the usage rows.
        live_cost: The sum of the costs of the tasks that are not in ``error``.
    """

    user_id: UUID
    credits: int
    granted: int
    used: int
    live_cost: int


@frozen
class StoredObject:
    """
    An object that is wholly in storage.

    Attributes:
        key: Its name in the bucket.
        size_bytes: Its length.
        content_type: As it was stored.
    """

    key: str
    size_bytes: int
    content_type: str


@frozen
class PredictRequest:
    """
    One prompt on one image, for the inference backend.

    Attributes:
        task_id: Names the run: a repeat gets the same answer and runs nothing twice.
        user_id: Whose it is; the mask is stored under it.
        image_url: Where the backend may read the image now.
        text_prompt: What to segment.
    """

    task_id: UUID
    user_id: UUID
    image_url: str = field(repr=False)
    text_prompt: str


@frozen
class BatchPredictRequest:
    """
    Several prompts on one image.

    Attributes:
        task_id: Names the run.
        user_id: Whose it is.
        image_url: Where the backend may read the image now.
        prompts: 1 to 10 of them.
    """

    task_id: UUID
    user_id: UUID
    image_url: str = field(repr=False)
    prompts: Sequence[str]


@frozen
class Prediction:
    """
    The backend's answer to one prompt.

    Attributes:
        task_id: The request's.
        mask_url: Where the mask is.
        labels: What the model found.
        inference_time_ms: How long the model took.
        confidence: 0 to 1.
        model_version: Which model it was, when the backend says so.
        metadata: What else the model said, boxes and scores for example; kept in the result's metadata.
    """

    task_id: UUID
    mask_url: str = field(repr=False)
    labels: Sequence[Json]
    inference_time_ms: float
    confidence: float
    model_version: str | None = None
    metadata: Mapping[str, Json] = Factory(dict)


@frozen
class BatchPrediction:
    """
    The backend's answers to several prompts, in their order.

    Attributes:
        task_id: The request's.
        results: One a prompt.
        total_inference_time_ms: For all of them together.
    """

    task_id: UUID
    results: Sequence[Prediction]
    total_inference_time_ms: float


@frozen
class ModelInfo:
    """
    What the backend says of its model.

    Attributes:
        model_name: Its name.
        model_version: Its version.
        parameters: How many, 0 for a model that has none.
        weights_size_gb: Size of the weights.
        device: ``cpu``, ``cuda:0``, ...
        dtype: Of the weights.
    """

    model_name: str
    model_version: str
    parameters: int
    weights_size_gb: float
    device: str
    dtype: str


@frozen
class RateLimit:
    """
    A quota of requests within a window of time.

    Attributes:
        name: Of the policy, as the ``RateLimit-Policy`` header shows it.
        quota: How many requests.
        window_s: In how many seconds.
    """

    name: str
    quota: int
    window_s: int


@frozen
class Allowance:
    """
    What a rate limit said to one request.

    Attributes:
        allowed: Whether the request may go on.
        limit: The limit that was asked.
        remaining: Requests left in the window.
        reset_s: Seconds until some quota returns.
    """

    allowed: bool
    limit: RateLimit
    remaining: int
    reset_s: int
