"""The route table: what is served where, by whom, and what may go wrong."""

import functools

from s3edge.errors import Code
from s3edge.rules.images import CONTENT_TYPES, MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS
from s3edge.values import RequestKind
from s3edge.web import handlers, messages
from s3edge.web.http import Call, Response, Route
from s3edge.web.openapi import openapi_document
from s3edge.web.parsing import IDEMPOTENCY_KEY_PATTERN


UPLOAD_FORM = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {
                "file": {
                    "type": "string",
                    "contentMediaType": "application/octet-stream",
                    "description": f"An image of at most {MAX_IMAGE_BYTES:,} bytes"
                    f" and {MAX_IMAGE_PIXELS // 1_000_000} megapixels.",
                },
                "project_id": {"type": "string", "format": "uuid"},
            },
            "required": ["file"],
        },
        "encoding": {"file": {"contentType": ", ".join(CONTENT_TYPES)}},
    }
}

EXACTLY_ONE_IMAGE = {
    "oneOf": [
        {
            "required": ["image_url"],
            "properties": {"image_url": {"type": "string"}, "image_id": {"type": "null"}},
        },
        {
            "required": ["image_id"],
            "properties": {"image_id": {"type": "string"}, "image_url": {"type": "null"}},
        },
    ]
}

LINKS_OF_UPLOAD = {
    "Segment": {
        "operationId": "segment",
        "requestBody": {"image_id": "$response.body#/data/image_id", "text_prompt": "red"},
    }
}

LINKS_OF_SEGMENT = {
    name: {"operationId": operation, "parameters": {"id": "$response.body#/data/task_id"}}
    for name, operation in (("Task", "task"), ("Result", "result"))
}

API_ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/health",
        handlers.health,
        "health",
        summary="Say that the process is up, without asking any dependency",
        data=messages.Health,
        # Load balancers ask all the time, from one address.
        limits_anonymous=False,
        # And who is busy is not dead.
        is_always_served=True,
    ),
    Route(
        "GET",
        "/health/ready",
        handlers.ready,
        "ready",
        summary="Say whether the dependencies work",
        data=messages.Readiness,
        also={503: messages.Readiness},
        errors=(Code.RATE_LIMITED,),
    ),
    Route(
        "POST",
        "/api/v1/upload",
        handlers.upload,
        "upload",
        summary="Upload an image",
        kind=RequestKind.UPLOAD,
        data=messages.Upload,
        errors=(Code.INVALID_REQUEST, Code.FILE_TOO_LARGE, Code.SERVICE_UNAVAILABLE),
        form=UPLOAD_FORM,
        links=LINKS_OF_UPLOAD,
    ),
    Route(
        "POST",
        "/api/v1/segment",
        handlers.segment,
        "segment",
        summary="Segment an uploaded image by a text prompt",
        kind=RequestKind.SEGMENT,
        data=messages.Accepted,
        status=202,
        errors=(
            Code.INVALID_REQUEST,
            Code.INSUFFICIENT_CREDITS,
            Code.NOT_FOUND,
            Code.PAYLOAD_TOO_LARGE,
            Code.IDEMPOTENCY_KEY_REUSED,
            Code.SERVICE_UNAVAILABLE,
        ),
        body=messages.SegmentRequest,
        body_rules=EXACTLY_ONE_IMAGE,
        links=LINKS_OF_SEGMENT,
        request_headers={
            "Idempotency-Key": {
                "schema": {"type": "string", "pattern": IDEMPOTENCY_KEY_PATTERN},
                "description": "A repeat with the same body returns the first answer and charges"
                " nothing.",
            }
        },
        response_headers={
            "Location": "The task.",
            "Idempotent-Replayed": "true when this repeats the first answer to the same key.",
        },
    ),
    Route(
        "GET",
        handlers.TASK_PATH,
        handlers.task,
        "task",
        summary="Read the state of a task",
        kind=RequestKind.READ,
        data=messages.TaskState,
        errors=(Code.INVALID_REQUEST, Code.NOT_FOUND, Code.SERVICE_UNAVAILABLE),
        query=messages.TaskQuery,
    ),
    Route(
        "GET",
        "/api/v1/results",
        handlers.results,
        "results",
        summary="List results, newest first",
        kind=RequestKind.READ,
        data=messages.Results,
        errors=(Code.INVALID_REQUEST, Code.SERVICE_UNAVAILABLE),
        query=messages.ResultsQuery,
    ),
    Route(
        "GET",
        "/api/v1/results/{id}",
        handlers.result,
        "result",
        summary="Read one result",
        kind=RequestKind.READ,
        data=messages.Result,
        errors=(Code.NOT_FOUND, Code.SERVICE_UNAVAILABLE),
    ),
    Route(
        "GET",
        "/api/v1/me",
        handlers.me,
        "me",
        summary="Read your tier, credits and limits",
        kind=RequestKind.READ,
        data=messages.Account,
        errors=(Code.SERVICE_UNAVAILABLE,),
    ),
)


async def openapi(call: Call) -> Response:  # noqa: ARG001 - a handler's signature
    """Return the OpenAPI document: plain JSON, without the envelope."""
    return Response(
        200,
        [("content-type", "application/json; charset=utf-8"), ("cache-control", "max-age=300")],
        document(),
    )


@functools.cache
def document() -> bytes:
    """Return the OpenAPI document of the public API."""
    return openapi_document(API_ROUTES)


OPENAPI_ROUTE = Route(
    "GET", "/openapi.json", openapi, "openapi", summary="This document", limits_anonymous=False
)
