"""Runs the Starlette door on uvicorn."""

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from uvicorn.supervisors import Multiprocess

from s3edge.cli.http_protocol import BoundedHttpProtocol
from s3edge.cli.options import Failed, export, settings_of
from s3edge.config import Deployment, build, read_environment
from s3edge.gateway import Gateway
from s3edge_starlette import create_app


WORKER_FACTORY = "s3edge.cli.server:worker_app"
PUBLIC_URL = "S3EDGE_PUBLIC_URL"

SHUTDOWN_TIMEOUT_S = 10
"""How long open requests may take to end on a stop."""

KEEP_ALIVE_S = 65
"""Longer than a load balancer's usual minute, so that it is not the server who hangs up first."""

BACKLOG = 2048

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


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
    listener.set_inheritable(True)
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the address under which a listening socket is reached from this machine."""
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def app_of(deployment: Deployment) -> Starlette:
    """Return the application of a deployment."""
    app = create_app(deployment.web)
    serve = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        with _no_waiting_on_stop(deployment.gateway):
            async with serve(app):
                yield

    app.router.lifespan_context = lifespan
    return app


def worker_app() -> Starlette:
    """Return the application of one of several worker processes, from the environment."""
    settings = settings_of(read_environment())
    return app_of(build(settings, bound_url=settings.public_url or ""))


def run(app: Starlette, listener: socket.socket) -> None:
    """Serve in this process until a signal asks to stop; then exit with status 0."""
    # uvicorn raises the signal again when it has stopped; that a stop worked is no failure.
    for number in STOP_SIGNALS:
        signal.signal(number, _exit_well)
    server = uvicorn.Server(_config(app))
    server.run([listener])
    if not server.started:
        raise Failed("the server could not start; see the log")


def run_workers(environ: Mapping[str, str], listener: socket.socket, workers: int) -> None:
    """Serve in several processes that share one listening socket."""
    export({**environ, PUBLIC_URL: environ.get(PUBLIC_URL) or url_of(listener)})
    config = _config(WORKER_FACTORY, workers=workers)
    Multiprocess(config, [listener]).run()


@contextmanager
def running_in_thread(app: Starlette, listener: socket.socket) -> Iterator[None]:
    """Serve in a thread of this process while the context is open."""
    server = uvicorn.Server(_config(app))
    thread = threading.Thread(target=server.run, args=([listener],), name="s3edge-server")
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def _config(app: Starlette | str, workers: int | None = None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        workers=workers,
        log_config=None,
        access_log=False,
        http=BoundedHttpProtocol,
        # Whose address is believed is decided by S3EDGE_TRUSTED_PROXIES.
        proxy_headers=False,
        server_header=False,
        lifespan="on",
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
    )


@contextmanager
def _no_waiting_on_stop(gateway: Gateway) -> Iterator[None]:
    """
    Answer long polls as soon as a signal asks to stop.

    A server waits for open requests before it ends the application's lifespan, so the application
    would hear of the stop only when the last long poll has run out.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    servers_own = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def stop(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(gateway.stop_waiting)
        handler = servers_own[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number in STOP_SIGNALS:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in servers_own.items():
            signal.signal(number, handler)


def _exit_well(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's signature
    sys.exit(0)
