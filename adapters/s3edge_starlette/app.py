"""From a route table to a Starlette application."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route, Router

from s3edge.web.app import WebApp
from s3edge_starlette.endpoint import Endpoint


def create_routes(web: WebApp) -> Sequence[BaseRoute]:
    """Return a native route for each path that the web application serves."""
    return [
        # An endpoint that is an ASGI application takes every method: ours answers 405 in the envelope.
        Route(path.path, Endpoint(web, path), name=next(iter(path.by_method.values())).name)
        for path in web.paths
    ]


def create_app(web: WebApp, *, runs_gateway: bool = True) -> Starlette:
    """
    Return an application that serves alone or mounted under a prefix.

    Args:
        web: What to serve.
        runs_gateway: Whether the lifespan starts and drains the gateway. Servers do not run the
            lifespan of a mounted application: there the host holds ``web.gateway.running()`` open.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001 - Starlette's signature
        async with web.gateway.running():
            yield

    app = Starlette(lifespan=lifespan if runs_gateway else None)
    app.router = Router(
        create_routes(web),
        redirect_slashes=False,
        default=Endpoint(web, None),
        lifespan=lifespan if runs_gateway else None,
    )
    return app
