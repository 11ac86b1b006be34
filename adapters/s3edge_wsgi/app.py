"""Converts one WSGI request and its response, and nothing else."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from http import HTTPMethod, HTTPStatus
from uuid import uuid4
from wsgiref.types import StartResponse, WSGIEnvironment

from s3edge.errors import EdgeError, invalid, unavailable
from s3edge.web.app import WebApp
from s3edge.web.envelope import failure
from s3edge.web.http import ClientDisconnected, Response
from s3edge_wsgi.environ import declared_length, path_of, request_of
from s3edge_wsgi.exchange import Exchange, Stopped
from s3edge_wsgi.process import Closed, CouldNotOpen, Process


MAX_WAITS = 2
"""How many of a process's threads may be held by long polls; waitress has four by default."""

_STOPPING = unavailable("This server is stopping; try again.")

_REFUSALS: Mapping[type[Exception], EdgeError] = {
    # Who closed their own direction only can still read.
    ClientDisconnected: invalid("body", "It ended before it was whole; send it again."),
    Closed: _STOPPING,
    Stopped: _STOPPING,
    CouldNotOpen: unavailable("This server could not start; try again later."),
}
"""What the door answers by itself, when the web application does not."""


def create_app(
    web: WebApp | Callable[[], WebApp],
    *,
    max_waits: int = MAX_WAITS,
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> "WsgiApp":
    """
    Return an application that serves alone or mounted under a prefix.

    Args:
        web: What to serve; or what builds it, called in each process that serves. The latter is for
            servers that answer requests before they fork: a gateway runs in one process only.
        max_waits: How many long polls one process holds at once. Each holds a thread of the server's, so
            half of them at the most is best; more are refused at once, with 503.
        new_event_loop: Makes the loop that a process works on; by default uvloop's, where that is there.

    Raises:
        TypeError: ``web`` is neither.
        ValueError: ``max_waits`` is negative.
    """
    if not isinstance(web, WebApp) and not callable(web):
        name = type(web).__name__  # type: ignore[unreachable] # for who has no type checker
        message = f"web is a {name}; give a WebApp, as deployment.web is, or what builds one"
        raise TypeError(message)
    if max_waits < 0:
        message = f"max_waits is {max_waits}; let some wait, or none with 0"
        raise ValueError(message)
    return WsgiApp(web, max_waits, new_event_loop)


class WsgiApp:
    """
    A WSGI application; made by ``create_app``.

    Args:
        web: What to serve, or what builds it.
        max_waits: How many long polls one process holds at once.
        new_event_loop: Makes the loop of a process.
    """

    def __init__(
        self,
        web: WebApp | Callable[[], WebApp],
        max_waits: int,
        new_event_loop: Callable[[], asyncio.AbstractEventLoop] | None,
    ) -> None:
        self._web = web
        self._max_waits = max_waits
        self._opened_in: int | None = None
        self._process = Process(self._prepared, new_event_loop)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        is_head = environ["REQUEST_METHOD"] == HTTPMethod.HEAD
        exchange: Exchange | None = None
        try:
            exchange = self._begun(environ)
            response = exchange.response()
        except tuple(_REFUSALS) as event:
            response = _refusal(_REFUSALS[type(event)])
        sent = _Sent(exchange, b"" if is_head else response.body)
        try:
            start_response(_status_line(response), _headers(response))
        except BaseException:
            # A server that refuses the head has nothing that it could close.
            sent.close()
            raise
        return sent

    def stop_waiting(self) -> None:
        """Answer all long polls now, because the process is about to stop; for signal handlers too."""
        self._process.stop_waiting()

    def close(self) -> None:
        """
        Let requests end, and drain the gateway; nothing is served afterwards.

        At exit it is done by itself.
        """
        self._process.close()

    def _begun(self, environ: WSGIEnvironment) -> Exchange:
        """Start the task of a request."""
        serving = self._process.serving()
        exchange = Exchange(
            serving.loop,
            environ["wsgi.input"],
            length=declared_length(environ),
            is_terminated=bool(environ.get("wsgi.input_terminated")),
            is_held_back="HTTP_EXPECT" in environ,
        )
        path = path_of(environ)
        routes, path_params = serving.routes.find(path)
        serving.start(exchange, request_of(environ, path, path_params, exchange.body()), routes)
        return exchange

    def _prepared(self) -> WebApp:
        """Return what this process is to serve."""
        if not isinstance(self._web, WebApp):
            web = self._web()
        elif self._opened_in in {None, os.getpid()}:
            web = self._web
            self._opened_in = os.getpid()
        else:
            message = (
                f"process {self._opened_in} served before it forked this one, and a gateway runs in"
                " one process only; give create_app a function that builds the web application"
            )
            raise RuntimeError(message)
        web.limit_waits(self._max_waits)
        return web


class _Sent:
    """
    A response's body, as the server takes it.

    Args:
        exchange: Ends when all is sent; it makes the body, unless that is whole.
        body: What to send.
    """

    def __init__(self, exchange: Exchange | None, body: bytes | AsyncIterator[bytes]) -> None:
        self._exchange = exchange
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        """Yield the chunks."""
        if isinstance(self._body, bytes):
            yield from [self._body] if self._body else []
        elif self._exchange is not None:
            yield from self._exchange.chunks()

    def close(self) -> None:
        """Let the request end: the server has taken all, or takes no more."""
        if self._exchange is not None:
            self._exchange.close()


def _status_line(response: Response) -> str:
    return f"{response.status} {HTTPStatus(response.status).phrase}"


def _headers(response: Response) -> list[tuple[str, str]]:
    headers = list(response.headers)
    # RFC 9110, section 8.6: no length where there can be no body.
    says_length = response.status == HTTPStatus.NO_CONTENT or any(
        name == "content-length" for name, _ in headers
    )
    if isinstance(response.body, bytes) and not says_length:
        headers.append(("content-length", str(len(response.body))))
    return headers


def _refusal(error: EdgeError) -> Response:
    request_id = uuid4()
    response = failure(error, request_id, datetime.now(UTC))
    return response.with_headers([("x-request-id", str(request_id))])
