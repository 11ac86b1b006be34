"""One event loop a process: started by who serves first, forgotten by children, drained in the end."""

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from threading import Event
from typing import Any, Self, TypeVarTuple

import anyio
import pytest
from attrs import define, evolve, field

from s3edge.gateway import GatewayOptions
from s3edge.memory import MemoryDatabase
from s3edge.testing import MemoryDeployment, memory_deployment
from s3edge.web.app import WebApp
from s3edge.web.http import Call, Response, Route
from s3edge_wsgi import WsgiApp, create_app
from s3edge_wsgi.exchange import Stopped
from s3edge_wsgi.serving import OPEN_REQUESTS_S


WITHIN_S = 60

Ts = TypeVarTuple("Ts")

PREPARED = """
import os, sys
from wsgiref.util import setup_testing_defaults

from s3edge.gateway import Gateway
from s3edge.memory import MemoryRateLimiter
from s3edge.testing import memory_deployment
from s3edge.web.app import WebApp
from s3edge_wsgi import create_app


class Limiter(MemoryRateLimiter):
    async def __aenter__(self):
        print("opened", role, flush=True)
        return self

    async def __aexit__(self, *error):
        print("closed", role, flush=True)


def build():
    deployment = memory_deployment("http://x")
    gateway = deployment.gateway
    return WebApp(
        Gateway(
            authenticator=gateway.authenticator,
            storage=gateway.storage,
            database=gateway.database,
            backend=gateway.backend,
            rate_limiter=Limiter(gateway.clock),
            options=gateway.options,
        )
    )


def serve(app):
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/health"}
    setup_testing_defaults(environ)
    body = app(environ, lambda status, headers: print(role, status, flush=True))
    list(body)
    body.close()


role = "parent"
"""

FORKS = """
serve(app)
if os.fork():
    _, status = os.wait()
    assert status == 0
    serve(app)
else:
    role = "child"
    serve(app)
"""


FORKS_WHILE_IT_OPENS = """
import threading

reached, go_on = threading.Event(), threading.Event()

def build_slowly():
    if role == "parent":
        reached.set()
        go_on.wait()
    return build()

app = create_app(build_slowly)
first = threading.Thread(target=serve, args=(app,))
first.start()
reached.wait()
if os.fork():
    _, status = os.wait()
    assert status == 0
    go_on.set()
    first.join()
else:
    role = "child"
    serve(app)
    sys.stdout.flush()
"""


def output_of(script: str) -> list[str]:
    """Return the lines that a script prints; it must end by itself, with status 0."""
    ended = subprocess.run(
        [sys.executable, "-c", PREPARED + script],
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_a_process_that_ends_drains_the_gateway() -> None:
    """Nobody calls ``close``; at exit the gateway is closed, as it was opened by the first request."""
    assert output_of("app = create_app(build())\nprint('made')\nserve(app)") == [
        "made",
        "opened parent",
        "parent 200 OK",
        "closed parent",
    ]


def test_what_was_never_served_is_never_opened() -> None:
    """A master that only loads the application has nothing to drain."""
    assert output_of("app = create_app(build())") == []


def test_a_child_has_a_loop_of_its_own() -> None:
    """A process that was forked from one that serves serves as well, and so does its parent still."""
    assert output_of("app = create_app(build)" + FORKS) == [
        "opened parent",
        "parent 200 OK",
        "opened child",
        "child 200 OK",
        "closed child",
        "parent 200 OK",
        "closed parent",
    ]


def test_a_gateway_is_not_opened_in_two_processes() -> None:
    """A child of a process that served it refuses, instead of waiting for a loop that is not there."""
    assert output_of("app = create_app(build())" + FORKS) == [
        "opened parent",
        "parent 200 OK",
        "child 503 Service Unavailable",
        "parent 200 OK",
        "closed parent",
    ]


def test_a_child_does_not_wait_for_its_parents_first_request() -> None:
    """Forked while another thread opened the gateway, it opens its own: that thread is not in it."""
    assert output_of(FORKS_WHILE_IT_OPENS) == [
        "opened child",
        "child 200 OK",
        "closed child",
        "opened parent",
        "parent 200 OK",
        "closed parent",
    ]


def test_many_first_requests_open_it_once(deployment: MemoryDeployment, server: Any) -> None:
    """All threads wait for the one that opens."""
    built: list[WebApp] = []

    def build() -> WebApp:
        built.append(deployment.web)
        return deployment.web

    app = create_app(build)
    with ThreadPoolExecutor(16) as threads:
        asked = evolve(server, app=app)
        answers = list(threads.map(lambda _: asked.ask("GET", "/health"), range(64)))
    app.close()
    assert {answer.status for answer in answers} == {"200 OK"}
    assert len(built) == 1


class Reluctant(MemoryDatabase):
    """A database that opens at the second try."""

    tries = 0

    async def __aenter__(self) -> Self:
        """Fail once."""
        self.tries += 1
        if self.tries == 1:
            message = "the disk is full"
            raise OSError(message)
        return self

    async def __aexit__(self, *error: object) -> None:
        """Close."""


def test_a_gateway_that_does_not_open_is_tried_again(
    server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The request is answered in the envelope, the reason is in the log, and the next one opens it."""
    gateway = memory_deployment("http://testserver").gateway
    reluctant = evolve(gateway, database=Reluctant(gateway.clock))
    app = create_app(WebApp(reluctant))
    asked = evolve(server, app=app)
    with caplog.at_level(logging.ERROR):
        refused = asked.ask("GET", "/health")
    assert refused.status == "503 Service Unavailable"
    assert b"SERVICE_UNAVAILABLE" in refused.body
    assert "the disk is full" in caplog.text
    assert asked.ask("GET", "/health").status == "200 OK"
    app.close()


def test_after_the_end_requests_are_refused(server: Any) -> None:
    """In the envelope, with a time to come back; and closing twice is no fault."""
    assert server.ask("GET", "/health").status == "200 OK"
    server.app.close()
    server.app.close()
    refused = server.ask("GET", "/health")
    assert refused.status == "503 Service Unavailable"
    assert int(refused.headers["retry-after"]) > 0


@define
class LateEnviron(dict[str, Any]):
    """
    What describes a request whose thread loses its turn while the door reads it.

    Attributes:
        read: Set when it does.
        may_go_on: Set when it has its turn again.
    """

    read: Event = field(factory=Event)
    may_go_on: Event = field(factory=Event)

    def get(self, key: str, default: Any = None) -> Any:
        """Return what it says; wait before it says which path is meant."""
        if key == "PATH_INFO":
            self.read.set()
            assert self.may_go_on.wait(WITHIN_S)
        return super().get(key, default)


class LateLoop(asyncio.SelectorEventLoop):
    """An event loop whose thread loses its turn before it closes it."""

    def __init__(self) -> None:
        self.is_closing = Event()
        self.may_close = Event()
        self.was_called = Event()
        super().__init__()

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Take a call, and say so when it comes late."""
        handle = super().call_soon_threadsafe(callback, *args, context=context)
        if self.is_closing.is_set():
            self.was_called.set()
        return handle

    def close(self) -> None:
        """Close it, when it may."""
        self.is_closing.set()
        assert self.may_close.wait(WITHIN_S)
        super().close()


@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "closing"])
def test_a_request_that_meets_the_end_is_refused(
    server: Any, web: WebApp, *, is_closed: bool
) -> None:
    """However late the loop took it, or took it not, its thread hears of it."""
    loop = LateLoop()
    app = create_app(web, new_event_loop=lambda: loop)
    environ = LateEnviron()

    def late(sent: dict[str, Any], start_response: Any) -> Any:
        environ.update(sent)
        return app(environ, start_response)

    assert evolve(server, app=app).ask("GET", "/health").status == "200 OK"
    with ThreadPoolExecutor(2) as threads:
        asked = threads.submit(evolve(server, app=late).ask, "GET", "/health")
        assert environ.read.wait(WITHIN_S)
        closing = threads.submit(app.close)
        assert loop.is_closing.wait(WITHIN_S)
        if is_closed:
            loop.may_close.set()
            closing.result(timeout=WITHIN_S)
        environ.may_go_on.set()
        if not is_closed:
            assert loop.was_called.wait(WITHIN_S)
        loop.may_close.set()
        closing.result(timeout=WITHIN_S)
        assert asked.result(timeout=WITHIN_S).status == "503 Service Unavailable"


class Odd(BaseException):
    """No ordinary error."""


@define
class Waiting:
    """
    A route that raises when it may.

    Attributes:
        error: What it raises.
        has_begun: Set when it waits.
        may_end: What it waits for.
    """

    error: BaseException
    has_begun: Event = field(factory=Event)
    may_end: anyio.Event | None = None

    async def handler(self, call: Call) -> Response:
        """Wait, and raise."""
        self.may_end = anyio.Event()
        self.has_begun.set()
        await self.may_end.wait()
        raise self.error

    def end(self) -> None:
        """Let it raise; on the loop."""
        assert self.may_end is not None
        self.may_end.set()

    def door(self) -> WsgiApp:
        """Return a door with the route."""

        def build() -> WebApp:
            options = GatewayOptions(rate_limits=None, dispatch="elsewhere")
            gateway = memory_deployment("http://testserver", options=options).gateway
            route = Route("GET", "/raise", self.handler, "raise", limits_anonymous=False)
            return WebApp(gateway, extra_routes=[route])

        return create_app(build, new_event_loop=asyncio.new_event_loop)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=["exit", "interrupt"])
def test_a_loop_that_is_ended_from_within_takes_no_thread_along(
    server: Any, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    """Everybody is answered, who came in the last moment too; the next request begins a new one."""
    waiting = Waiting(error)
    app = waiting.door()
    asked = evolve(server, app=app)
    with ThreadPoolExecutor(2) as threads:
        exiting = threads.submit(asked.ask, "GET", "/raise")
        assert waiting.has_begun.wait(WITHIN_S)
        serving = app._process.serving()
        start = serving._start

        def start_in_the_last_moment(*arguments: Any) -> None:
            waiting.end()
            start(*arguments)

        serving._start = start_in_the_last_moment  # type: ignore[method-assign, assignment]
        late = threads.submit(asked.ask, "GET", "/raise")
        for one in (exiting, late):
            assert one.result(timeout=WITHIN_S).status == "503 Service Unavailable"
    with caplog.at_level(logging.ERROR):
        assert asked.ask("GET", "/health").status == "200 OK"
    assert "ended from within" in caplog.text
    app.close()


def test_a_request_that_ends_in_no_ordinary_error_ends_alone(server: Any) -> None:
    """The server hears of it, as of any error that the application does not answer."""
    waiting = Waiting(Odd())
    app = waiting.door()
    asked = evolve(server, app=app)
    with ThreadPoolExecutor(1) as threads:
        failing = threads.submit(asked.ask, "GET", "/raise")
        assert waiting.has_begun.wait(WITHIN_S)
        app._process.serving().loop.call_soon_threadsafe(waiting.end)
        with pytest.raises(RuntimeError, match="no ordinary error") as raised:
            failing.result(timeout=WITHIN_S)
    assert isinstance(raised.value.__cause__, Odd)
    assert asked.ask("GET", "/health").status == "200 OK"
    app.close()


def test_a_request_that_is_being_served_is_waited_for(server: Any) -> None:
    """Closing from one thread, while another one sends what it was given, drops nothing."""
    started = server.start("GET", "/health")
    with ThreadPoolExecutor(1) as threads:
        closing = threads.submit(server.app.close)
        assert not closing.done()
        assert b'"ok"' in b"".join(started.body)
        started.body.close()
        closing.result(timeout=WITHIN_S)


def test_a_stream_that_nobody_takes_does_not_hold_the_end(server: Any, endless: Any) -> None:
    """It has its time, as any request; whoever takes it on afterwards hears that it is not whole."""
    started = server.start("GET", "/endless")
    taken = iter(started.body)
    assert next(taken) == b"chunk"
    closing_at = time.monotonic()
    server.app.close()
    assert time.monotonic() - closing_at >= OPEN_REQUESTS_S
    assert endless.is_closed
    with pytest.raises(Stopped):
        list(taken)
