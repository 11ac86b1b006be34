"""Writes the OpenAPI 3.1 document from the route table and the messages that serve the requests."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

import s3edge
from s3edge.errors import Code
from s3edge.web.http import Route
from s3edge.web.messages import Failure, Success
from s3edge.web.statuses import STATUS_OF


JSON_TYPE = "application/json"

_REF = "#/components/schemas/{name}"
_PLACEHOLDER = re.compile(r"\{(\w+)(?::\w+)?\}")

_COMMON = (Code.INTERNAL_ERROR,)
_WITH_AUTH = (
    Code.AUTH_REQUIRED,
    Code.AUTH_INVALID,
    Code.FORBIDDEN,
    Code.RATE_LIMITED,
    Code.SERVICE_UNAVAILABLE,
)

_REQUEST_ID = {
    "description": "The meta.request_id.",
    "schema": {"type": "string", "format": "uuid"},
}
_RATE_LIMIT = {
    name: {"description": text, "schema": {"type": "string"}}
    for name, text in (
        ("RateLimit-Policy", "The quota and its window."),
        ("RateLimit", "What is left of the quota, and in how many seconds it is renewed."),
    )
}
_RETRY_AFTER = {
    "Retry-After": {
        "description": "When to come back, in seconds.",
        "schema": {"type": "integer", "minimum": 1},
    }
}


def openapi_document(routes: Sequence[Route]) -> bytes:
    """Return the document of these routes, as JSON."""
    documented = [route for route in routes if route.data is not None]
    types = [Failure, *(_envelope(message) for message in _answers(documented))]
    types += [route.body for route in documented if route.body is not None]
    _, schemas = msgspec.json.schema_components(types, ref_template=_REF)
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "s3edge",
            "version": s3edge.__version__,
            "summary": "Segment images by a text prompt.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": _paths(documented),
        "components": {
            "schemas": {_clean(name): _plain(schema) for name, schema in schemas.items()},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "An access token from the issuer that the server trusts.",
                }
            },
        },
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2)


def _answers(routes: Iterable[Route]) -> Iterable[type[msgspec.Struct]]:
    for route in routes:
        if route.data is not None:
            yield route.data
        yield from route.also.values()


def _envelope(message: type[msgspec.Struct]) -> Any:
    # The type is made of a value, which a type checker cannot follow.
    return Success[message]  # type: ignore[valid-type]


def _paths(routes: Iterable[Route]) -> dict[str, dict[str, Any]]:
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = _PLACEHOLDER.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route)
    return paths


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": _parameters(route),
        "responses": _responses(route),
        "security": [] if route.kind is None else [{"bearer": []}],
    }
    if route.body is not None:
        schema = {**_ref(route.body.__name__), **route.body_rules}
        content: Mapping[str, Any] | None = {JSON_TYPE: {"schema": schema}}
    else:
        content = route.form
    if content is not None:
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            # An id of another form is 404 like an unknown one, so the form is not a constraint.
            "schema": {"type": "string", "minLength": 1},
            "description": "The id.",
        }
        for name in _PLACEHOLDER.findall(route.path)
    ]
    if route.query is not None:
        schema = _query_schema(route.query)
        for name, details in schema["properties"].items():
            described = dict(details)
            parameters.append(
                {
                    "name": name,
                    "in": "query",
                    "required": name in schema.get("required", ()),
                    "description": described.pop("description", name),
                    "schema": described,
                }
            )
    parameters += [
        {"name": name, "in": "header", "required": False, **details}
        for name, details in route.request_headers.items()
    ]
    return parameters


def _query_schema(message: type[msgspec.Struct]) -> dict[str, Any]:
    (_,), schemas = msgspec.json.schema_components([message], ref_template=_REF)
    inlined = {_REF.format(name=name): schema for name, schema in schemas.items()}
    schema: dict[str, Any] = schemas[message.__name__]
    schema["properties"] = {
        name: inlined.get(details.get("$ref", ""), details)
        for name, details in schema["properties"].items()
    }
    return schema


def _responses(route: Route) -> dict[str, Any]:
    headers = {"X-Request-Id": _REQUEST_ID}
    if route.kind is not None:
        headers |= _RATE_LIMIT
    own = {
        name: {"description": text, "schema": {"type": "string"}}
        for name, text in route.response_headers.items()
    }
    responses: dict[str, Any] = {}
    if route.data is not None:
        responses[str(route.status)] = _response(
            route.summary, f"Success_{route.data.__name__}_", headers | own
        )
        if route.links:
            responses[str(route.status)]["links"] = route.links
    for status, codes in sorted(_by_status(route).items()):
        retry = _RETRY_AFTER if status in (429, 503) else {}
        responses[str(status)] = _response(", ".join(codes), "Failure", headers | retry)
    for status, message in route.also.items():
        responses[str(status)] = _response(
            "Not able to serve", f"Success_{message.__name__}_", headers | _RETRY_AFTER
        )
        if not route.is_always_served:
            # The same status as that of a process that has no place left.
            schemas = [_ref(_clean(f"Success_{message.__name__}_")), _ref("Failure")]
            responses[str(status)]["content"] = {JSON_TYPE: {"schema": {"oneOf": schemas}}}
    return responses


def _by_status(route: Route) -> dict[int, list[Code]]:
    codes = [*route.errors, *_COMMON, *(_WITH_AUTH if route.kind is not None else ())]
    by_status: dict[int, list[Code]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(STATUS_OF[code], []).append(code)
    return by_status


def _response(text: str, schema: str, headers: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "description": text,
        "headers": dict(headers),
        "content": {JSON_TYPE: {"schema": _ref(_clean(schema))}},
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REF.format(name=name)}


def _clean(name: str) -> str:
    """Return a generic message's name without the underscores that stand for brackets."""
    return name.removesuffix("_").replace("Success_", "SuccessOf")


def _plain(schema: Any) -> Any:
    """Return a schema with its references cleaned alike."""
    if isinstance(schema, dict):
        return {
            key: _clean(value) if key in {"$ref", "title"} else _plain(value)
            for key, value in schema.items()
            # A title that only repeats the generic type's Python spelling helps nobody.
            if not (key == "title" and isinstance(value, str) and "[" in value)
        }
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    return schema
