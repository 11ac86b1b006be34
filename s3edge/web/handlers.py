"""One function a route: from a request's parts to a use case, and from its value to a message."""

from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import quote
from uuid import UUID

from msgspec import UNSET, UnsetType

import s3edge
from s3edge.errors import DEFAULT_RETRY_AFTER_S, Code, EdgeError
from s3edge.rules.keys import parse_id
from s3edge.rules.paging import MAX_LIMIT, decode_cursor, encode_cursor
from s3edge.usecases.check_health import CheckResult, check_health
from s3edge.usecases.list_results import list_results
from s3edge.usecases.read_account import read_account
from s3edge.usecases.read_result import read_result
from s3edge.usecases.read_task import read_task
from s3edge.usecases.request_segmentation import SegmentationRequest, request_segmentation
from s3edge.usecases.upload_image import upload_image
from s3edge.values import Task, TaskStatus
from s3edge.web import messages
from s3edge.web.http import Call, Reply, Response
from s3edge.web.multipart import UploadForm
from s3edge.web.parsing import read_idempotency_key, read_json, read_query


TASK_PATH = "/api/v1/tasks/{id}"

T = TypeVar("T")


async def health(call: Call) -> Reply:
    """Say that the process is up, without asking any dependency."""
    return Reply(messages.Health("ok", call.gateway.clock.now(), s3edge.__version__))


async def ready(call: Call) -> Reply | Response:
    """Say whether the dependencies work."""
    gateway = call.gateway
    checks = await check_health(
        {
            "database": gateway.database,
            "storage": gateway.storage,
            "backend": gateway.backend,
            "auth": gateway.authenticator,
        }
    )
    serves = checks["database"].ok and checks["storage"].ok
    whole = all(check.ok for check in checks.values())
    return Reply(
        messages.Readiness(
            "ok" if whole else "degraded" if serves else "unavailable",
            messages.DependencyChecks(**_dependency_health(checks)),
        ),
        status=200 if serves else 503,
        headers=() if serves else [("retry-after", str(DEFAULT_RETRY_AFTER_S))],
    )


async def upload(call: Call) -> Reply:
    """Take an image."""
    async with UploadForm(call.request) as form:
        image = await upload_image(
            call.user,
            form.chunks(),
            form.content_type,
            storage=call.gateway.storage,
            ids=call.gateway.ids,
        )
    return Reply(
        messages.Upload(
            image_id=image.image_id,
            image_url=image.image_url,
            size_bytes=image.size_bytes,
            content_type=image.content_type,
            width=image.width,
            height=image.height,
        )
    )


async def segment(call: Call) -> Reply:
    """Take a credit and a task, and let it be dispatched after the answer."""
    gateway = call.gateway
    gateway.check_backlog()
    key = read_idempotency_key(call.request)
    body = await read_json(call.request, messages.SegmentRequest)
    reservation = await request_segmentation(
        call.user,
        SegmentationRequest(
            text_prompt=body.text_prompt,
            image_url=_given(body.image_url),
            image_id=_given(body.image_id),
            project_id=_given(body.project_id),
            idempotency_key=key,
        ),
        database=gateway.database,
        storage=gateway.storage,
        ids=gateway.ids,
        disown=gateway.disown,
        image_hosts=gateway.options.image_hosts,
    )
    task = reservation.task
    headers = [("location", quote(call.request.mount_path) + TASK_PATH.format(id=task.id))]
    if reservation.replayed:
        headers.append(("idempotent-replayed", "true"))
    else:
        gateway.submit(task)
    # A replay repeats the first answer, whatever became of the task since.
    return Reply(messages.Accepted(task.id, TaskStatus.PENDING), status=202, headers=headers)


async def task(call: Call) -> Reply:
    """Say how a task stands, at once or when it has ended."""
    query = read_query(call.request, messages.TaskQuery)
    found = await read_task(
        call.user,
        _id_in_path(call),
        database=call.gateway.database,
        watch=call.gateway.signals.watch,
        waiting=call.place.stand_aside,
        wait_s=query.wait,
        look_every_s=call.gateway.signals.look_every_s,
    )
    return Reply(
        messages.TaskState(
            task_id=found.id,
            status=found.status,
            created_at=found.created_at,
            updated_at=found.updated_at,
            result_id=found.id if found.status is TaskStatus.DONE else UNSET,
            error_code=_failed(found, _code_of(found)),
            error_message=_failed(found, found.error_message or "The segmentation failed."),
        )
    )


async def results(call: Call) -> Reply:
    """List the user's results."""
    query = read_query(call.request, messages.ResultsQuery)
    limit = min(query.limit, MAX_LIMIT)
    cursor = _given(query.cursor)
    found = await list_results(
        call.user,
        database=call.gateway.database,
        storage=call.gateway.storage,
        limit=limit,
        page=query.page,
        cursor=None if cursor is None else decode_cursor(cursor),
        project_id=_given(query.project_id),
        status=_given(query.status),
    )
    return Reply(
        messages.Results(
            results=[
                messages.ResultSummary(
                    id=item.id,
                    source_image_url=item.source_image_url,
                    mask_image_url=item.mask_image_url,
                    text_prompt=item.text_prompt,
                    status=item.status,
                    created_at=item.created_at,
                )
                for item in found.tasks
            ],
            total=found.total,
            page=found.page,
            limit=limit,
            next_cursor=UNSET if found.next is None else encode_cursor(found.next),
        )
    )


async def result(call: Call) -> Reply:
    """Return one result, whole."""
    found = await read_result(
        call.user,
        _id_in_path(call),
        database=call.gateway.database,
        storage=call.gateway.storage,
    )
    return Reply(
        messages.Result(
            id=found.id,
            project_id=found.project_id,
            source_image_url=found.source_image_url,
            mask_image_url=found.mask_image_url,
            text_prompt=found.text_prompt,
            labels=found.labels,
            metadata=found.metadata,
            status=found.status,
            created_at=found.created_at,
            updated_at=found.updated_at,
        )
    )


async def me(call: Call) -> Reply:
    """Return what the user has and may do."""
    summary = await read_account(
        call.user,
        database=call.gateway.database,
        rate_limits=call.gateway.options.rate_limits,
    )
    return Reply(
        messages.Account(
            user_id=call.user.user_id,
            tier=summary.tier,
            credits=summary.credits,
            rate_limits={
                kind.value: messages.Limit(limit.quota, limit.window_s)
                for kind, limit in summary.rate_limits.items()
            },
        )
    )


def _id_in_path(call: Call) -> UUID:
    """Return the id that the path names; what is no UUID names nothing."""
    parsed = parse_id(call.request.path_params["id"])
    if parsed is None:
        raise EdgeError(Code.NOT_FOUND, "There is nothing with this id.")
    return parsed


def _given(value: T | UnsetType | None) -> T | None:
    return None if isinstance(value, UnsetType) else value


def _failed(found: Task, value: T) -> T | UnsetType:
    return value if found.status is TaskStatus.ERROR else UNSET


def _code_of(found: Task) -> Code:
    code = found.error_code
    return Code(code) if code is not None and code in set(Code) else Code.INFERENCE_FAILED


def _dependency_health(
    checks: Mapping[str, CheckResult],
) -> dict[str, messages.DependencyHealth]:
    return {
        name: messages.DependencyHealth(
            check.ok, check.latency_ms, UNSET if check.message is None else check.message
        )
        for name, check in checks.items()
    }
