"""The stand-in as a Starlette application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from s3edge.testing.standins.supabase.connections import Connections
from s3edge.testing.standins.supabase.control import Control
from s3edge.testing.standins.supabase.gateway import identify
from s3edge.testing.standins.supabase.refusals import GatewayRefusal, Refusal, not_done
from s3edge.testing.standins.supabase.rest import Rest
from s3edge.testing.standins.supabase.state import State
from s3edge.testing.standins.supabase.tokens import issued_in_future


REST = "/rest/v1"
METHODS = ["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"]

JWKS_HEADERS = {"Cache-Control": "public, max-age=600"}


def create_app(state: State, database_url: str) -> Starlette:
    """
    Return the application.

    Args:
        state: The project that it serves.
        database_url: Its database, as ``authenticator``.
    """
    connections = Connections(database_url)
    rest = Rest(connections)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with connections:
            yield

    async def show_jwks(request: Request) -> Response:
        _count(state, request)
        return JSONResponse(dict(state.project.keys.jwks()), headers=JWKS_HEADERS)

    async def use_rest(request: Request) -> Response:
        _count(state, request)
        caller = identify(state.project, dict(request.headers), request.query_params.get("apikey"))
        if state.issued_in_future > 0:
            state.issued_in_future -= 1
            raise issued_in_future()
        return await rest.answer(request, _path_below(request, REST), caller)

    async def refuse(request: Request) -> Response:
        _count(state, request)
        raise not_done(f"{request.method} {request.url.path}")

    return Starlette(
        routes=[
            Route("/auth/v1/.well-known/jwks.json", show_jwks, methods=["GET"]),
            Route(f"{REST}/{{path:path}}", use_rest, methods=METHODS),
            Mount("/_control", routes=Control(state).routes()),
            Route("/{path:path}", refuse, methods=METHODS),
        ],
        exception_handlers={
            Refusal: _show_refusal,
            GatewayRefusal: _show_gateway_refusal,
        },
        lifespan=lifespan,
    )


def _count(state: State, request: Request) -> None:
    state.requests[f"{request.method} {request.url.path}"] += 1


def _path_below(request: Request, prefix: str) -> str:
    raw: bytes = request.scope["raw_path"]
    return raw.decode("latin-1").partition("?")[0].removeprefix(prefix)


async def _show_refusal(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    body = b"" if request.method == "HEAD" else refusal.body()
    return Response(body, refusal.status, refusal.answer_headers())


async def _show_gateway_refusal(_: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, GatewayRefusal)
    return Response(refusal.body(), 401, {"Content-Type": "application/json; charset=utf-8"})
