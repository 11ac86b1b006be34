"""Runs the Starlette door on uvicorn."""

import socket
import threading
from asyncio import AbstractEventLoop
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from s3edge.cli.connections import ConnectionBound
from s3edge.cli.open_files import most_connections
from s3edge.cli.options import Failed, export, settings_of
from s3edge.cli.stopping import (
    OPEN_REQUESTS_S,
    DrainingHttpProtocol,
    called_on_stop,
    exit_well_on_signals,
    stop_with_supervisor,
)
from s3edge.config import Deployment, Settings, build, read_environment
from s3edge.config.settings import CLIENT_TIMEOUT_S
from s3edge_starlette import create_app


WORKER_FACTORY = "s3edge.cli.server:worker_app"
PUBLIC_URL = "S3EDGE_PUBLIC_URL"

KEEP_ALIVE_S = 65
"""Longer than a load balancer's usual minute, so that it is not the server who hangs up first."""

BACKLOG = 2048

WORKER_SILENCE_S = 30
"""
How long a worker process may be silent before it is killed and replaced.

uvicorn asks from the moment that it begins one; its own 5 seconds are less than a start takes on a busy
machine, and who kills a slow start begins the next one on a machine that is busier still.
"""

COULD_NOT_START = "the server could not start; see the log"


def bind(host: str, port: int) -> socket.socket:
    """
    Return a listening socket: a client that comes before the server is up only waits.

    Raises:
        Failed: The address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        message = (
            f"cannot listen on {host} port {port}: {error.strerror};"
            " choose another --port or --host"
        )
        raise Failed(message) from None
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the address under which a listening socket is reached from this machine."""
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def app_of(deployment: Deployment) -> Starlette:
    """Return the application of a deployment."""
    return stopping(create_app(deployment.web), deployment.gateway.stop_waiting)


def stopping(app: Starlette, on_stop: Callable[[], None]) -> Starlette:
    """Return an application that is told of a stop while its last requests run."""
    serve = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        with called_on_stop(on_stop):
            async with serve(app):
                yield

    app.router.lifespan_context = lifespan
    return app


def worker_app() -> Starlette:
    """Return the application of one of several worker processes, from the environment."""
    stop_with_supervisor()
    settings = settings_of(read_environment())
    return app_of(build(settings, bound_url=settings.public_url or ""))


def run(deployment: Deployment, listener: socket.socket) -> None:
    """Serve in this process until a signal asks to stop; then exit with status 0."""
    server = server_of(app_of(deployment), listener, deployment.settings.client_timeout_s)
    server.run([listener])
    if not server.started:
        raise Failed(COULD_NOT_START)


def server_of(
    app: Starlette,
    listener: socket.socket,
    client_timeout_s: float,
    open_requests_s: int = OPEN_REQUESTS_S,
) -> uvicorn.Server:
    """
    Return a server of one application, not started.

    Args:
        app: What it serves.
        listener: Where.
        client_timeout_s: After how long a client that neither sends nor reads is cut.
        open_requests_s: How long open requests may take to end on a stop.
    """
    config = _config(app, listener, client_timeout_s)
    config.timeout_graceful_shutdown = open_requests_s
    return uvicorn.Server(config)


def run_workers(
    environ: Mapping[str, str], settings: Settings, listener: socket.socket, workers: int
) -> None:
    """Serve in several processes that share one listening socket, until a signal asks to stop."""
    export({**environ, PUBLIC_URL: environ.get(PUBLIC_URL) or url_of(listener)})
    supervisor = _Supervisor(
        _config(WORKER_FACTORY, listener, settings.client_timeout_s, workers), [listener]
    )
    supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise Failed(COULD_NOT_START)


@contextmanager
def running_in_thread(app: Starlette, listener: socket.socket) -> Iterator[None]:
    """Serve in a thread of this process while the context is open."""
    server = uvicorn.Server(_config(app, listener))
    thread = threading.Thread(target=server.run, args=([listener],), name="s3edge-server")
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


class _Config(uvicorn.Config):
    """uvicorn's, for processes that end with status 0 when they were asked to stop."""

    def __init__(self, app: Starlette | str, listener: socket.socket, **options: Any) -> None:
        super().__init__(app, **options)
        self._listener = listener

    def get_loop_factory(self) -> Callable[[], AbstractEventLoop] | None:
        """Prepare the process that serves: it asks for its loop last before it takes the signals."""
        if threading.current_thread() is threading.main_thread():
            exit_well_on_signals()
        # Processes that this one starts outlive its listening, and would keep the socket open meanwhile:
        # clients would connect, and be reset at the end. Workers get the socket inheritable.
        self._listener.set_inheritable(False)
        return super().get_loop_factory()


class _Supervisor(Multiprocess):
    """uvicorn's, which lets go of the listening socket on a stop."""

    def terminate_all(self) -> None:
        """Ask the workers to stop; without them the kernel would take connections for nobody."""
        for listener in self.sockets:
            listener.close()
        super().terminate_all()


def _config(
    app: Starlette | str,
    listener: socket.socket,
    client_timeout_s: float = CLIENT_TIMEOUT_S,
    workers: int | None = None,
) -> uvicorn.Config:
    # A partial of a class makes instances as the class does, and can be sent to worker processes.
    protocol: Any = partial(
        DrainingHttpProtocol,
        client_timeout_s=client_timeout_s,
        bound=ConnectionBound(most_connections()),
    )
    return _Config(
        app,
        listener,
        factory=isinstance(app, str),
        workers=workers,
        log_config=None,
        access_log=False,
        http=protocol,
        ws="none",
        # Whose address is believed is decided by S3EDGE_TRUSTED_PROXIES.
        proxy_headers=False,
        server_header=False,
        lifespan="on",
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=OPEN_REQUESTS_S,
        timeout_worker_healthcheck=WORKER_SILENCE_S,
    )
