"""The HTTP application, without a framework: what every door calls."""

import logging
import re
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from http import HTTPMethod
from uuid import UUID

from attrs import frozen

from s3edge.errors import Code, EdgeError
from s3edge.gateway import Gateway
from s3edge.rules.keys import parse_id
from s3edge.values import Allowance
from s3edge.web.addresses import Network, client_address, limited_network
from s3edge.web.admission import Admission, Place
from s3edge.web.cors import CorsPolicy, is_preflight
from s3edge.web.envelope import failure, success
from s3edge.web.http import Call, ClientDisconnected, Request, Response, Route
from s3edge.web.limiting import Limiting, headers_of, refusal
from s3edge.web.routes import API_ROUTES, OPENAPI_ROUTE


REQUEST_ID: ContextVar[str] = ContextVar("s3edge_request_id", default="-")
"""The id of the request being served; log formatters show it in every line."""

_log = logging.getLogger(__name__)
_access_log = logging.getLogger("s3edge.access")

_REFUSED_TOKENS = frozenset({Code.AUTH_REQUIRED, Code.AUTH_INVALID, Code.FORBIDDEN})

_BEARER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/=-]+) *")
"""RFC 6750's credentials; the scheme's name is case-insensitive (RFC 9110, section 11.1)."""

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@frozen
class PathRoutes:
    """
    All routes of one path.

    Attributes:
        path: The path with its placeholders.
        by_method: The route of each method; ``HEAD`` is answered by ``GET``'s.
    """

    path: str
    by_method: Mapping[str, Route]

    @property
    def methods(self) -> Sequence[str]:
        """What the ``Allow`` header names."""
        extra = ["HEAD"] if "GET" in self.by_method else []
        return sorted([*self.by_method, *extra])

    def route_for(self, method: str) -> Route | None:
        """Return the route that serves a method."""
        return self.by_method.get("GET" if method == "HEAD" else method)


class WebApp:
    """
    Serves requests that a door has matched to a path.

    Args:
        gateway: The ports.
        extra_routes: What adapters serve besides the API (media, keys).
        cors: Which origins may call.
        trusted_proxies: Whose ``X-Forwarded-For`` is believed.
    """

    def __init__(
        self,
        gateway: Gateway,
        *,
        extra_routes: Iterable[Route] = (),
        cors: CorsPolicy | None = None,
        trusted_proxies: Sequence[Network] = (),
    ) -> None:
        self.gateway = gateway
        self.paths = _by_path([*API_ROUTES, OPENAPI_ROUTE, *extra_routes])
        self._cors = CorsPolicy() if cors is None else cors
        self._trusted_proxies = trusted_proxies
        self._limiting = Limiting(gateway)
        self._admission = Admission(
            gateway.options.max_requests, gateway.options.max_waits, gateway.clock
        )

    def limit_waits(self, most: int) -> None:
        """Hold no more long polls than so many: in some doors each holds a thread."""
        self._admission.limit_waits(most)

    @asynccontextmanager
    async def response_to(
        self, request: Request, path: PathRoutes | None
    ) -> AsyncIterator[Response]:
        """
        Serve a request: the response is sent within the context.

        A request counts against the bound of the process until the context ends, so that somebody who
        reads slowly what is streamed to them counts as well.

        Args:
            request: What came in, with the path's placeholders filled.
            path: The routes of its path; ``None`` when no path matches.

        Raises:
            ClientDisconnected: There is nobody to answer.
        """
        with self._admission.place() as place:
            yield await self._respond(request, path, place)

    async def _respond(self, request: Request, path: PathRoutes | None, place: Place) -> Response:
        request_id = self._request_id(request)
        token = REQUEST_ID.set(str(request_id))
        started = time.perf_counter()
        status = 0
        try:
            response = await self._answer(request, path, request_id, place)
            status = response.status
            return response.with_headers(
                [("x-request-id", str(request_id)), *self._cors.headers_for(request)]
            )
        finally:
            if _access_log.isEnabledFor(logging.INFO):
                _access_log.info(
                    "%s %s %.1f ms",
                    _loggable(request, path),
                    status or "disconnected",
                    (time.perf_counter() - started) * 1000,
                )
            REQUEST_ID.reset(token)

    async def _answer(
        self, request: Request, path: PathRoutes | None, request_id: UUID, place: Place
    ) -> Response:
        try:
            if path is None:
                return self._failure(
                    EdgeError(Code.NOT_FOUND, "There is nothing at this path."), request_id
                )
            if is_preflight(request):
                return self._cors.preflight(path.methods)
            route = path.route_for(request.method)
            if route is None:
                return self._failure(
                    EdgeError(
                        Code.METHOD_NOT_ALLOWED, f"Use one of {', '.join(path.methods)} here."
                    ),
                    request_id,
                ).with_headers([("allow", ", ".join(path.methods))])
            if not route.is_always_served:
                self.gateway.check_running()
                place.take()
            return await self._serve(Call(request, self.gateway, request_id, place), route)
        except EdgeError as error:
            return self._failure(error, request_id)
        except ClientDisconnected:
            raise
        except Exception:  # noqa: BLE001 - logged with its trace
            _log.exception("unforeseen error at %s", _loggable(request, path))
            return self._failure(
                EdgeError(
                    Code.INTERNAL_ERROR,
                    f"Something went wrong here; quote the request id {request_id}.",
                ),
                request_id,
            )

    async def _serve(self, call: Call, route: Route) -> Response:
        """Authenticate, count, and let the route's handler answer."""
        allowance: Allowance | None = None
        try:
            call, allowance, refused = await self._admitted(call, route)
            if allowance is not None and not allowance.allowed:
                raise refusal(allowance)
            if refused is not None:
                raise refused
            answer = await route.handler(call)
        except EdgeError as error:
            response = self._failure(error, call.request_id)
        else:
            response = (
                answer
                if isinstance(answer, Response)
                else success(answer, call.request_id, self.gateway.clock.now())
            )
        return response if allowance is None else response.with_headers(headers_of(allowance))

    async def _admitted(
        self, call: Call, route: Route
    ) -> tuple[Call, Allowance | None, EdgeError | None]:
        """Return the call with its user, what its limit says, and why the token was refused."""
        if route.kind is None:
            subject = route.name if route.limits_anonymous else None
            return call, await self._of_address(call.request, subject), None
        try:
            token = _bearer_token(call.request)
            user = await self.gateway.authenticator.authenticate(token)
        except EdgeError as error:
            if error.code not in _REFUSED_TOKENS:
                raise
            return call, await self._of_address(call.request, "token"), error
        # Before it is counted: what is refused here is to be sent again in a moment.
        most = self._limiting.most_in_flight(user, route.kind)
        if most is not None:
            call.place.take_for(user.user_id, most)
        allowance = await self._limiting.of_user(user, route.kind)
        return call.of(user), allowance, None

    async def _of_address(self, request: Request, subject: str | None) -> Allowance | None:
        """Count a request by its address; each subject apart, so that a probe is not starved."""
        if subject is None:
            return None
        address = limited_network(client_address(request, self._trusted_proxies))
        return await self._limiting.of_address(f"{address}:{subject}")

    def _request_id(self, request: Request) -> UUID:
        sent = request.headers.get("x-request-id")
        given = None if sent is None else parse_id(sent)
        return self.gateway.ids.new() if given is None else given

    def _failure(self, error: EdgeError, request_id: UUID) -> Response:
        return failure(error, request_id, self.gateway.clock.now())


def _loggable(request: Request, path: PathRoutes | None) -> str:
    """
    Return what was asked for, in words of our own: a client may put anything into a path, tokens too.

    Ids are shown, whatever else fills a placeholder is not, and neither is the query: it may hold a
    signature.
    """

    def fill(placeholder: re.Match[str]) -> str:
        given = parse_id(request.path_params.get(placeholder[1], ""))
        return placeholder[0] if given is None else str(given)

    method = request.method if request.method in HTTPMethod.__members__ else "(unknown method)"
    shown = "(unknown path)" if path is None else _PLACEHOLDER.sub(fill, path.path)
    return f"{method} {shown}"


def _bearer_token(request: Request) -> str:
    """Return what follows ``Bearer``."""
    credentials = request.headers.get("authorization")
    if credentials is None:
        raise EdgeError(Code.AUTH_REQUIRED, "Send 'Authorization: Bearer <access token>'.")
    match = _BEARER.fullmatch(credentials)
    if match is None:
        if credentials[:7].lower() == "bearer ":
            raise EdgeError(Code.AUTH_INVALID, "The bearer token is malformed.")
        raise EdgeError(Code.AUTH_REQUIRED, "Send 'Authorization: Bearer <access token>'.")
    return match[1]


def _by_path(routes: Iterable[Route]) -> Sequence[PathRoutes]:
    paths: dict[str, dict[str, Route]] = {}
    for route in routes:
        methods = paths.setdefault(route.path, {})
        if route.method in methods:
            message = f"two routes serve {route.method} {route.path}"
            raise ValueError(message)
        methods[route.method] = route
    return tuple(PathRoutes(path, by_method) for path, by_method in paths.items())
