"""Requests, responses and routes, without a framework."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable
from uuid import UUID

import msgspec
from attrs import field, frozen

from s3edge.errors import Code
from s3edge.gateway import Gateway
from s3edge.values import RequestKind, User
from s3edge.web.admission import Place


class ClientDisconnected(Exception):  # noqa: N818 - an event, not a fault
    """The client went away before its request was complete; there is nobody to answer."""


@frozen
class Request:
    """
    One HTTP request, as a door hands it over.

    Attributes:
        method: In upper case.
        path: Decoded, without the prefix that the app is mounted under.
        query: The raw query string, without ``?``.
        headers: By lower-case name; repeated ones joined by a comma.
        body: The body's chunks; raises ``ClientDisconnected`` when the client goes away.
        path_params: What the route's placeholders matched.
        peer: The address of the other end of the connection, or ``None``.
        mount_path: The prefix that the app is mounted under, without a trailing slash.
    """

    method: str
    path: str
    query: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: AsyncIterator[bytes] = field(repr=False)
    path_params: Mapping[str, str] = field(factory=dict)
    peer: str | None = None
    mount_path: str = ""


@frozen
class Response:
    """
    One HTTP response, for a door to send.

    Attributes:
        status: The status code.
        headers: Names and values, in order.
        body: The whole body, or its chunks.
    """

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes | AsyncIterator[bytes] = field(repr=False, default=b"")

    def with_headers(self, headers: Sequence[tuple[str, str]]) -> "Response":
        """Return the same response with more headers."""
        return Response(self.status, [*self.headers, *headers], self.body)


@frozen
class Reply:
    """
    What a handler answers with: the ``data`` of the envelope.

    Attributes:
        data: A message of ``s3edge.web.messages``.
        status: The status code.
        headers: Further headers.
    """

    data: msgspec.Struct
    status: int = 200
    headers: Sequence[tuple[str, str]] = ()


@frozen
class Call:
    """
    One request to one route, past authentication and limits.

    Attributes:
        request: What came in.
        gateway: The ports.
        request_id: Names the request in headers, body and logs.
        place: What it takes of the process's bound; a handler that only waits stands aside.
        verified_user: Who asks; ``None`` on routes without authentication.
    """

    request: Request
    gateway: Gateway
    request_id: UUID
    place: Place
    verified_user: User | None = None

    def of(self, user: User) -> "Call":
        """Return the same call of a user who was verified."""
        return Call(self.request, self.gateway, self.request_id, self.place, user)

    @property
    def user(self) -> User:
        """Who asks, on a route with authentication."""
        if self.verified_user is None:
            message = "this route does not authenticate; its handler must not ask for the user"
            raise RuntimeError(message)
        return self.verified_user


Handler = Callable[[Call], Awaitable[Reply | Response]]


@frozen
class Route:
    """
    One method of one path: what serves it, and what the OpenAPI document says of it.

    Attributes:
        method: In upper case.
        path: With ``{name}`` for each placeholder, or ``{name:path}`` for one that spans slashes.
        handler: Answers with a ``Reply`` (put into the envelope) or a ``Response`` (sent as it is).
        name: Identifies the operation.
        summary: One line for people.
        kind: Which rate limit counts a user's request; ``None`` for a route without authentication.
        data: The message that a success carries; ``None`` when the route is not in the document.
        status: The status of a success.
        errors: The codes that the route may answer with, besides those that every route may.
        query: The message that the query string is read as.
        body: The message that a JSON body is read as.
        body_rules: What the body's JSON Schema says besides its fields.
        form: The media types of a body that is not JSON, as OpenAPI writes them.
        also: Further statuses that carry a message of their own.
        request_headers: Name to OpenAPI's words on it, of headers with a meaning of their own.
        response_headers: Name to description, likewise.
        links: OpenAPI's links from a success to the operations that go on from it.
        limits_anonymous: Whether requests without a valid token are counted by client address.
        is_always_served: Whether it is answered even by a process that has no place left, or is not open.
    """

    method: str
    path: str
    handler: Handler
    name: str
    summary: str = ""
    kind: RequestKind | None = None
    data: type[msgspec.Struct] | None = None
    status: int = 200
    errors: Sequence[Code] = ()
    query: type[msgspec.Struct] | None = None
    body: type[msgspec.Struct] | None = None
    body_rules: Mapping[str, Any] = field(factory=dict)
    form: Mapping[str, Any] | None = None
    also: Mapping[int, type[msgspec.Struct]] = field(factory=dict)
    request_headers: Mapping[str, Mapping[str, Any]] = field(factory=dict)
    response_headers: Mapping[str, str] = field(factory=dict)
    links: Mapping[str, Mapping[str, Any]] = field(factory=dict)
    limits_anonymous: bool = True
    is_always_served: bool = False


@runtime_checkable
class ServesRoutes(Protocol):
    """An adapter that has routes of its own: a storage its media, an issuer its keys."""

    def routes(self) -> Sequence[Route]:
        """Return the routes."""
