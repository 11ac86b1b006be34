"""
What the API answers, as frozen values.

A server may be newer than its client: fields that this version does not know are kept in ``extra``, and a
status is a plain string that compares equal to ``TaskStatus``, so an unknown one breaks nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

import attrs
import msgspec
from attrs import field, frozen

from s3edge.client.errors import UnreadableAnswer
from s3edge.client.json_values import as_array, as_object
from s3edge.values import RateLimit, TaskStatus


T = TypeVar("T")
R = TypeVar("R")

ENDED = frozenset({TaskStatus.DONE.value, TaskStatus.ERROR.value})
"""The statuses that do not change any more."""


def _extra() -> Any:
    return field(factory=dict[str, Any], eq=False, kw_only=True)


@frozen
class UploadedImage:
    """
    An image that is in storage.

    Attributes:
        image_id: Names it in ``segment``.
        image_url: Where it can be read for a while; signed.
        size_bytes: Its length.
        content_type: Its media type.
        width: In pixels; ``None`` from a server that does not say.
        height: Likewise.
        extra: Fields that this version does not know.
        idempotency_key: Which the upload was sent with.
    """

    image_id: UUID
    image_url: str = field(repr=False)
    size_bytes: int
    content_type: str
    width: int | None = None
    height: int | None = None
    extra: Mapping[str, Any] = _extra()
    idempotency_key: str | None = field(default=None, eq=False, kw_only=True)


@frozen
class TaskState:
    """
    How a task stands.

    Attributes:
        task_id: Whose state it is.
        status: ``pending``, ``processing``, ``done``, ``error``, or one that this version does not know.
        created_at: When it was accepted.
        updated_at: When its status last changed.
        result_id: Of its result, once it is ``done``.
        error_code: Why it ended in ``error``.
        error_message: The same, for people.
        extra: Fields that this version does not know.
    """

    task_id: UUID
    status: str
    created_at: datetime | None = None
    updated_at: datetime | None = None
    result_id: UUID | None = None
    error_code: str | None = None
    error_message: str | None = None
    extra: Mapping[str, Any] = _extra()

    @property
    def has_ended(self) -> bool:
        """Whether the status is final."""
        return self.status in ENDED


@frozen
class ResultSummary:
    """
    A result, as lists show it.

    Attributes:
        id: The task's id, too.
        source_image_url: Where the image can be read for a while; signed.
        mask_image_url: Where the mask can be read for a while; signed; ``None`` until ``done``.
        text_prompt: What was to be segmented.
        status: As in ``TaskState``.
        created_at: When it was accepted.
        extra: Fields that this version does not know.
    """

    id: UUID
    source_image_url: str = field(repr=False)
    mask_image_url: str | None = field(repr=False)
    text_prompt: str
    status: str
    created_at: datetime
    extra: Mapping[str, Any] = _extra()


@frozen
class ResultDetails(ResultSummary):
    """
    A result, whole.

    Attributes:
        project_id: The project that it belongs to, or ``None``.
        labels: What the model said it found.
        metadata: ``inference_time_ms``, ``confidence``, ``model_version`` and what else the model said.
        updated_at: When its status last changed.
    """

    project_id: UUID | None = field(kw_only=True)
    labels: Sequence[Any] = field(kw_only=True)
    metadata: Mapping[str, Any] = field(kw_only=True)
    updated_at: datetime = field(kw_only=True)


@frozen
class Page(Generic[R]):
    """
    A stretch of a user's results, newest first.

    Attributes:
        results: The results.
        total: How many there are in all.
        next_cursor: Where the next page begins; ``None`` on the last.
    """

    results: Sequence[R]
    total: int
    next_cursor: str | None = field(default=None, repr=False)


@frozen
class Account:
    """
    What the user has and may do.

    Attributes:
        user_id: Who it is.
        tier: What the user pays for.
        credits: The balance.
        rate_limits: By class of endpoint; empty when there are none.
        extra: Fields that this version does not know.
    """

    user_id: UUID
    tier: str
    credits: int
    rate_limits: Mapping[str, RateLimit] = field(factory=dict[str, RateLimit])
    extra: Mapping[str, Any] = _extra()


@frozen
class Health:
    """
    The server's process is up.

    Attributes:
        status: ``ok``.
        timestamp: The server's time.
        version: The server's version, if it says.
        extra: Fields that this version does not know.
    """

    status: str
    timestamp: datetime
    version: str | None = None
    extra: Mapping[str, Any] = _extra()


@frozen
class RawResponse(Generic[T]):
    """
    An answer with what HTTP said around it.

    Attributes:
        status: The status code.
        headers: By lower-case name.
        parsed: What the call without ``with_raw_response`` returns.
        body: The whole body.
        idempotency_key: Which the call was sent with.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    parsed: T
    body: bytes = field(repr=False, default=b"")
    idempotency_key: str | None = None

    @property
    def request_id(self) -> str | None:
        """What names the request in the server's log."""
        return self.headers.get("x-request-id")

    @property
    def replayed(self) -> bool:
        """Whether the answer repeats an earlier one of the same idempotency key."""
        return self.headers.get("idempotent-replayed") == "true"

    def with_parsed(self, make: Callable[[T], R]) -> "RawResponse[R]":
        """Return the same answer, its content made into something else."""
        try:
            made = make(self.parsed)
        except UnreadableAnswer as error:
            error.status, error.request_id = self.status, self.request_id
            error.idempotency_key = self.idempotency_key
            raise
        return RawResponse(self.status, self.headers, made, self.body, self.idempotency_key)


def decode(kind: type[T], data: object) -> T:
    """
    Return an answer's data as a model.

    Raises:
        UnreadableAnswer: A field is missing, or is something else than it should be.
    """
    # `attrs.fields` asks for a class of attrs, which a type variable cannot say.
    names = {each.name for each in attrs.fields(kind)} - {"extra"}  # type: ignore[arg-type]
    sent = as_object(data)
    known = {name: value for name, value in sent.items() if name in names}
    known["extra"] = {name: value for name, value in sent.items() if name not in names}
    try:
        return msgspec.convert(known, kind)
    except msgspec.ValidationError as error:
        raise UnreadableAnswer(f"The server sent no {kind.__name__}: {error}.") from None


def decode_account(data: object) -> Account:
    """Return the data of an account; likewise."""
    sent = as_object(data)
    limits = {
        name: {"name": name, "quota": limit.get("limit"), "window_s": limit.get("window_s")}
        for name, limit in as_object(sent.get("rate_limits")).items()
    }
    return decode(Account, {**sent, "rate_limits": limits})


def decode_page(data: object) -> Page[ResultSummary]:
    """Return the data of a page of results; likewise."""
    sent = as_object(data)
    if "results" not in sent:
        raise UnreadableAnswer("The server sent no list of results.")
    results = [decode(ResultSummary, item) for item in as_array(sent["results"])]
    cursor = sent.get("next_cursor")
    if not isinstance(cursor, str | None):
        raise UnreadableAnswer("The server sent a cursor that is no text.")
    return Page(results, sent.get("total", 0), cursor)
