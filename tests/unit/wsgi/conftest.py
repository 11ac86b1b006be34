"""A WSGI application over a deployment in memory, and a server that calls it as PEP 3333 says."""

import io
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Protocol
from uuid import uuid4
from wsgiref.util import setup_testing_defaults

import pytest
from attrs import define, frozen

from s3edge.gateway import GatewayOptions
from s3edge.testing import MemoryDeployment, memory_deployment
from s3edge.values import User
from s3edge.web.app import WebApp
from s3edge.web.http import Call, Response, Route
from s3edge_wsgi import WsgiApp, create_app


@frozen
class Answer:
    """What a server would have sent."""

    status: str
    headers: dict[str, str]
    body: bytes


@define
class Started:
    """A call of the application whose body the test takes by itself."""

    status: str = ""
    headers: Sequence[tuple[str, str]] = ()
    body: Any = None


class Server(Protocol):
    """Calls an application."""

    def start(self, method: str, path: str, source: Any = b"", **environ: Any) -> Started:
        """Return the call when the application has returned."""

    def ask(self, method: str, path: str, source: Any = b"", **environ: Any) -> Answer:
        """Return the whole answer."""


@frozen
class InProcessServer:
    """
    Calls an application in the thread that it is used in.

    Attributes:
        app: The application.
        token: Of a user with credits.
    """

    app: Any
    token: str

    def start(self, method: str, path: str, source: Any = b"", **environ: Any) -> Started:
        """Call the application; a source of bytes is one whose length is known."""
        sent: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "HTTP_AUTHORIZATION": f"Bearer {self.token}",
            "wsgi.input": io.BytesIO(source) if isinstance(source, bytes) else source,
        }
        if isinstance(source, bytes) and source:
            sent["CONTENT_LENGTH"] = str(len(source))
        sent |= environ
        setup_testing_defaults(sent)
        started = Started()

        def start_response(
            status: str, headers: list[tuple[str, str]], exc_info: Any = None
        ) -> Any:
            started.status = status
            started.headers = headers
            return lambda _: None

        started.body = self.app(sent, start_response)
        return started

    def ask(self, method: str, path: str, source: Any = b"", **environ: Any) -> Answer:
        """Call the application, and take all that it sends."""
        started = self.start(method, path, source, **environ)
        try:
            body = b"".join(started.body)
        finally:
            started.body.close()
        return Answer(started.status, dict(started.headers), body)


@define
class Endless:
    """
    A route that streams without an end.

    Attributes:
        made: How many chunks were asked of it.
        is_closed: Whether whoever took them has let go.
    """

    made: int = 0
    is_closed: bool = False

    async def handler(self, call: Call) -> Response:
        """Answer with chunks for ever."""
        return Response(200, [("content-type", "text/plain")], self._chunks())

    async def _chunks(self) -> AsyncIterator[bytes]:
        try:
            while True:
                self.made += 1
                yield b"chunk"
        finally:
            self.is_closed = True


@pytest.fixture
def endless() -> Endless:
    """Return what the route ``/endless`` does."""
    return Endless()


@pytest.fixture
def deployment() -> MemoryDeployment:
    """Return a deployment in memory where nobody works on tasks."""
    options = GatewayOptions(rate_limits=None, dispatch="elsewhere")
    return memory_deployment("http://testserver", options=options)


async def _broken(call: Call) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"first"
        message = "the disk is gone"
        raise OSError(message)

    return Response(200, [("content-type", "text/plain")], chunks())


@pytest.fixture
def web(deployment: MemoryDeployment, endless: Endless) -> WebApp:
    """Return the web application, with routes that stream."""
    routes = [
        Route("GET", "/endless", endless.handler, "endless", limits_anonymous=False),
        Route("GET", "/broken", _broken, "broken", limits_anonymous=False),
        *deployment.storage.routes(),
    ]
    return WebApp(deployment.gateway, extra_routes=routes)


@pytest.fixture
def app(web: WebApp) -> Iterator[WsgiApp]:
    """Return the door."""
    app = create_app(web, max_waits=1)
    yield app
    app.close()


@pytest.fixture
def server(app: WsgiApp, deployment: MemoryDeployment) -> Server:
    """Return a server of the door."""
    return InProcessServer(app, deployment.authenticator.issue(User(uuid4())))
