"""Converts one ASGI request and its response, and nothing else."""

from collections.abc import AsyncIterator

from starlette.types import Message, Receive, Scope, Send

from s3edge.web.app import PathRoutes, WebApp
from s3edge.web.http import ClientDisconnected, Request, Response


NO_CONTENT = 204


class Endpoint:
    """
    An ASGI application for one path.

    Args:
        web: Answers the requests.
        path: The routes of the path; ``None`` answers that there is no such path.
    """

    def __init__(self, web: WebApp, path: PathRoutes | None) -> None:
        self._web = web
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await _refuse_websocket(scope, send)
            return
        try:
            async with self._web.response_to(_request(scope, receive), self._path) as response:
                await _send(response, send, head=scope["method"] == "HEAD")
        except ClientDisconnected:
            return


def _request(scope: Scope, receive: Receive) -> Request:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    mount_path = scope.get("root_path", "").rstrip("/")
    client = scope.get("client")
    return Request(
        method=scope["method"],
        path=scope["path"].removeprefix(mount_path),
        query=scope["query_string"].decode("latin-1"),
        headers=headers,
        body=_body(receive),
        path_params=scope.get("path_params", {}),
        peer=client[0] if client else None,
        mount_path=mount_path,
    )


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        chunk = message.get("body", b"")
        if chunk:
            yield chunk
        if not message.get("more_body", False):
            return


async def _send(response: Response, send: Send, *, head: bool) -> None:
    body = response.body
    headers = [
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers
    ]
    # RFC 9110, section 8.6: no length where there can be no body.
    says_length = response.status == NO_CONTENT or any(
        name == b"content-length" for name, _ in headers
    )
    if isinstance(body, bytes) and not says_length:
        headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if isinstance(body, bytes):
        await send({"type": "http.response.body", "body": b"" if head else body})
        return
    async for chunk in body:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _refuse_websocket(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000})
