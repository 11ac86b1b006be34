"""Every call of the API, written once: ``Client`` and ``AsyncClient`` run these, and add nothing."""

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack
from typing import Any
from uuid import UUID

import msgspec
from attrs import evolve

from s3edge.client.effects import Flow, ask, sleep
from s3edge.client.errors import (
    InvalidRequest,
    MaskNotReady,
    NotFound,
    S3EdgeError,
    TaskFailed,
    TimedOut,
    UnreadableAnswer,
    WaitTimeout,
)
from s3edge.client.exchange import Request, exchange
from s3edge.client.handles import TaskHandle
from s3edge.client.models import (
    Account,
    Health,
    Page,
    RawResponse,
    ResultDetails,
    ResultSummary,
    TaskState,
    UploadedImage,
    decode,
    decode_account,
    decode_page,
)
from s3edge.client.multipart import MultipartBody, Progress
from s3edge.client.references import ImageReference, reference_of
from s3edge.client.sendable import check_sendable
from s3edge.client.session import Session
from s3edge.client.sources import ImageSource, content_of
from s3edge.errors import Detail
from s3edge.values import TaskStatus


WAIT_S = 900.0
"""How long to wait for a task by default: the server ends it by then, one way or the other."""

POLL_S = 20.0
"""How long one long poll asks the server to hold its answer; the API takes 30 at the most."""

LAST_ANSWER_S = 5.0
"""How long the last poll may take beyond the time to wait: it is answered when that is up."""

PAUSE_BETWEEN_POLLS_S = 1.0
"""After an answer that came sooner than it was asked for: a server that stops lets go of its polls."""

MAX_MASK_BYTES = 64 * 1024 * 1024
"""A mask of 50 megapixels, not compressed, fits."""

JSON_HEADERS = {"content-type": "application/json"}

OnUpdate = Callable[[TaskState], object]
"""Told each change of a task's state; what it returns is awaited if need be."""

_NOT_THERE = frozenset({400, 401, 403, 404, 410})
"""What storages say to a URL whose signature has expired."""


def upload(
    session: Session,
    source: ImageSource,
    *,
    project_id: UUID | str | None,
    on_progress: Progress | None,
    idempotency_key: str | None,
) -> Flow[RawResponse[UploadedImage]]:
    """Stream an image to storage."""
    key = idempotency_key or session.surroundings.new_key()
    with ExitStack() as resources:
        fields = {} if project_id is None else {"project_id": str(project_id)}
        try:
            check_sendable(fields)
            content = yield from content_of(source, resources)
        except S3EdgeError as error:
            error.idempotency_key = key
            raise
        body = MultipartBody(content, fields, on_progress)
        request = Request(
            "POST",
            "/api/v1/upload",
            headers={"content-type": body.content_type},
            body=body,
            idempotency_key=key,
        )
        response = yield from exchange(session, request)
    return response.with_parsed(
        lambda data: evolve(decode(UploadedImage, data), idempotency_key=key)
    )


def segment(
    session: Session,
    image: ImageReference,
    text_prompt: str,
    *,
    project_id: UUID | str | None,
    idempotency_key: str | None,
) -> Flow[RawResponse[TaskState]]:
    """Ask for a segmentation."""
    key = idempotency_key or session.surroundings.new_key()
    try:
        body = {**reference_of(image), "text_prompt": text_prompt}
        if project_id is not None:
            body["project_id"] = str(project_id)
        check_sendable(body)
    except S3EdgeError as error:
        error.idempotency_key = key
        raise
    request = Request(
        "POST",
        "/api/v1/segment",
        headers=JSON_HEADERS,
        body=msgspec.json.encode(body),
        idempotency_key=key,
    )
    response = yield from exchange(session, request)
    return response.with_parsed(lambda data: decode(TaskState, data))


def read_task(
    session: Session,
    task_id: UUID,
    *,
    wait_s: float | None = None,
    deadline: float | None = None,
) -> Flow[RawResponse[TaskState]]:
    """Read the state of a task, at once or when it has ended."""
    request = Request(
        "GET",
        f"/api/v1/tasks/{task_id}",
        query={"wait": None if wait_s is None else f"{wait_s:.3f}"},
        deadline=deadline,
    )
    response = yield from exchange(session, request)
    state = response.with_parsed(lambda data: decode(TaskState, data))
    _check_answers(task_id, state.parsed.task_id)
    return state


def wait(
    session: Session, task: TaskHandle, *, timeout: float, on_update: OnUpdate | None
) -> Flow[ResultDetails]:
    """
    Wait for a task's end with long polls, and read its result.

    Raises:
        TaskFailed: The task ended in an error.
        WaitTimeout: It did not end in time.
    """
    monotonic = session.surroundings.monotonic
    deadline = monotonic() + timeout
    shown: TaskState | None = None
    while True:
        asked_at = monotonic()
        poll_s = max(0.0, min(POLL_S, session.timeout.read / 2, deadline - asked_at))
        try:
            state = (
                yield from read_task(
                    session, task.id, wait_s=poll_s, deadline=deadline + LAST_ANSWER_S
                )
            ).parsed
        except TimedOut as error:
            if monotonic() < deadline:
                raise
            raise WaitTimeout(_still(task, timeout), task=task) from error
        task.state = state
        if on_update is not None and state != shown:
            shown = state
            yield from _tell(on_update, state)
        if state.status == TaskStatus.DONE:
            return (yield from read_result(session, task.id)).parsed
        if state.status == TaskStatus.ERROR:
            message = state.error_message or "The segmentation failed."
            raise TaskFailed(message, task=task, code=state.error_code)
        left_s = deadline - monotonic()
        if left_s <= 0:
            raise WaitTimeout(_still(task, timeout), task=task)
        if monotonic() - asked_at < poll_s / 2:
            yield from sleep(min(PAUSE_BETWEEN_POLLS_S, left_s))


def read_result(session: Session, result_id: UUID) -> Flow[RawResponse[ResultDetails]]:
    """Read one result, whole."""
    response = yield from exchange(session, Request("GET", f"/api/v1/results/{result_id}"))
    result = response.with_parsed(lambda data: decode(ResultDetails, data))
    _check_answers(result_id, result.parsed.id)
    return result


def list_results(
    session: Session,
    *,
    project_id: UUID | str | None,
    status: str | None,
    limit: int | None,
    cursor: str | None,
) -> Flow[RawResponse[Page[ResultSummary]]]:
    """Read one page of results."""
    query = {"project_id": project_id, "status": status, "limit": limit, "cursor": cursor}
    response = yield from exchange(session, Request("GET", "/api/v1/results", query=query))
    return response.with_parsed(decode_page)


def download_mask(session: Session, result_id: UUID, url: str | None) -> Flow[bytes]:
    """
    Download a mask; when its URL has expired, read the result again for a fresh one.

    Raises:
        MaskNotReady: The result is not done.
    """
    fresh = url is None
    while True:
        if url is None:
            url = (yield from read_result(session, result_id)).parsed.mask_image_url
            if url is None:
                raise MaskNotReady("The result is not done, so it has no mask yet.")
        request = Request("GET", url, needs_token=False, is_json=False, max_bytes=MAX_MASK_BYTES)
        try:
            png: bytes = (yield from exchange(session, request)).parsed
        except S3EdgeError as error:
            if fresh or error.status not in _NOT_THERE:
                raise
            url, fresh = None, True
        else:
            return png


def me(session: Session) -> Flow[RawResponse[Account]]:
    """Read the user's balance and limits."""
    response = yield from exchange(session, Request("GET", "/api/v1/me"))
    return response.with_parsed(decode_account)


def health(session: Session) -> Flow[RawResponse[Health]]:
    """Ask whether the server is up."""
    response = yield from exchange(session, Request("GET", "/health", needs_token=False))
    return response.with_parsed(lambda data: decode(Health, data))


def request(
    session: Session,
    method: str,
    target: str,
    *,
    query: Mapping[str, object] | None,
    json: Any,
    headers: Mapping[str, str] | None,
    idempotency_key: str | None,
) -> Flow[RawResponse[Any]]:
    """Send any request to the server."""
    body: bytes | None = None
    content_headers: Mapping[str, str] = {}
    if json is not None:
        try:
            body, content_headers = msgspec.json.encode(json), JSON_HEADERS
        except UnicodeEncodeError:
            message = "json cannot be sent: it has half of a surrogate pair, which is no character"
            raise InvalidRequest(message, details=[Detail("json", message)]) from None
    return (
        yield from exchange(
            session,
            Request(
                method.upper(),
                target,
                query=query or {},
                headers={**content_headers, **(headers or {})},
                body=body,
                idempotency_key=idempotency_key,
                needs_token=False,
            ),
        )
    )


def _check_answers(asked: UUID, answered: UUID) -> None:
    """Refuse an answer to another question: something on the way has mixed them up."""
    if answered != asked:
        raise UnreadableAnswer(f"{asked} was asked for, and something answered with {answered}.")


def _tell(on_update: OnUpdate, state: TaskState) -> Generator[Any, Any, None]:
    yield from ask(lambda: on_update(state))


def as_id(value: UUID | str) -> UUID:
    """
    Return an id.

    Raises:
        NotFound: It is no UUID, and so names nothing.
    """
    if isinstance(value, UUID):
        return value
    try:
        return UUID(value)
    except ValueError:
        raise NotFound("There is nothing with this id: it is not a UUID.") from None


def _still(task: TaskHandle, timeout: float) -> str:
    status = "not known" if task.state is None else task.state.status
    return f"Task {task.id} has not ended after {timeout:g} s; its status is {status}."
