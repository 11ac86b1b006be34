"""
What a test does to a project from outside, below ``/_control``.

=======  ======================  ==================================================================
method   path                    body, answer
=======  ======================  ==================================================================
GET      ``/project``            ``{"url", "publishable_key", "secret_key", "legacy_anon_key",
                                 "legacy_service_key", "jwt_secret"}``
POST     ``/tokens``             ``{"user_id", "lifetime_s", "claims", "header", "key"}``, all
                                 optional; answers ``{"token"}``. Claims and header fields replace
                                 the usual ones; null removes one. ``key`` is a state of
                                 ``signing_keys``, ``legacy`` or ``foreign``
POST     ``/users``              ``{"id", "email", "is_anonymous", "app_metadata",
                                 "user_metadata"}``, all optional; answers ``{"id"}``. Inserts
                                 into ``auth.users`` as Supabase Auth does
POST     ``/keys/rotate``        brings the standby key in use
POST     ``/keys/revoke``        trusts no previously used key any more
POST     ``/keys/legacy``        ``{"signs", "revoked"}``, both optional: whether tokens are signed
                                 with the shared secret, and whether it is not trusted any more
POST     ``/faults``             ``{"issued_in_future": n}``: the next n requests to ``/rest/v1``
                                 get 401 ``PGRST303``
GET      ``/requests``           ``{"GET /rest/v1/table": n}``: what was asked since the last reset
DELETE   ``/requests``           counts anew
=======  ======================  ==================================================================
"""

from typing import Any, TypeVar
from uuid import uuid4

import msgspec
import psycopg
from psycopg.types.json import Jsonb
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from s3edge.testing.standins.supabase.state import State


_INSERT_USER = """
insert into auth.users (
    id, aud, role, email, raw_app_meta_data, raw_user_meta_data, is_anonymous,
    created_at, updated_at
) values (%s, 'authenticated', 'authenticated', %s, %s, %s, %s, now(), now())
"""


Body = TypeVar("Body", bound=msgspec.Struct)


class _Token(msgspec.Struct, forbid_unknown_fields=True):
    user_id: str | None = None
    lifetime_s: int = 3600
    claims: dict[str, Any] = {}
    header: dict[str, Any] = {}
    key: str = "in_use"


class _User(msgspec.Struct, forbid_unknown_fields=True):
    id: str | None = None
    email: str | None = None
    is_anonymous: bool = False
    app_metadata: dict[str, Any] = {}
    user_metadata: dict[str, Any] = {}


class _Legacy(msgspec.Struct, forbid_unknown_fields=True):
    signs: bool | None = None
    revoked: bool | None = None


class _Faults(msgspec.Struct, forbid_unknown_fields=True):
    issued_in_future: int


class Control:
    """
    The endpoints.

    Args:
        state: What they show and change.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    def routes(self) -> list[BaseRoute]:
        """Return them."""
        return [
            Route("/project", self._show_project, methods=["GET"]),
            Route("/tokens", self._sign, methods=["POST"]),
            Route("/users", self._sign_up, methods=["POST"]),
            Route("/keys/rotate", self._rotate, methods=["POST"]),
            Route("/keys/revoke", self._revoke, methods=["POST"]),
            Route("/keys/legacy", self._set_legacy, methods=["POST"]),
            Route("/faults", self._set_faults, methods=["POST"]),
            Route("/requests", self._show_requests, methods=["GET"]),
            Route("/requests", self._forget_requests, methods=["DELETE"]),
        ]

    async def _show_project(self, _: Request) -> Response:
        project = self._state.project
        return JSONResponse(
            {
                "url": self._state.url,
                "publishable_key": project.publishable_key,
                "secret_key": project.secret_key,
                "legacy_anon_key": project.legacy_key("anon"),
                "legacy_service_key": project.legacy_key("service_role"),
                "jwt_secret": project.keys.jwt_secret,
            }
        )

    async def _sign(self, request: Request) -> Response:
        wanted = await _read(request, _Token)
        project = self._state.project
        user_id = wanted.user_id or str(uuid4())
        usual = project.access_claims(self._state.url, user_id, wanted.lifetime_s)
        claims = {
            name: value for name, value in (usual | wanted.claims).items() if value is not None
        }
        try:
            token = project.keys.sign(claims, wanted.header, wanted.key)
        except (LookupError, ValueError):
            raise HTTPException(400, f"there is no key that is {wanted.key}") from None
        return JSONResponse({"token": token})

    async def _sign_up(self, request: Request) -> Response:
        wanted = await _read(request, _User)
        user_id = wanted.id or str(uuid4())
        provider = {} if wanted.is_anonymous else {"provider": "email", "providers": ["email"]}
        values = [
            user_id,
            wanted.email,
            Jsonb(provider | wanted.app_metadata),
            Jsonb(wanted.user_metadata),
            wanted.is_anonymous,
        ]
        url = self._state.auth_database_url
        try:
            async with await psycopg.AsyncConnection.connect(url) as connection:
                await connection.execute(_INSERT_USER, values)
        except psycopg.Error as error:
            raise HTTPException(400, str(error)) from None
        return JSONResponse({"id": user_id})

    async def _rotate(self, _: Request) -> Response:
        self._state.project.keys.rotate()
        return self._saved()

    async def _revoke(self, _: Request) -> Response:
        self._state.project.keys.revoke()
        return self._saved()

    async def _set_legacy(self, request: Request) -> Response:
        wanted = await _read(request, _Legacy)
        keys = self._state.project.keys
        if wanted.signs is not None:
            keys.signs_with_legacy = wanted.signs
        if wanted.revoked is not None:
            keys.legacy_revoked = wanted.revoked
        return self._saved()

    async def _set_faults(self, request: Request) -> Response:
        self._state.issued_in_future = (await _read(request, _Faults)).issued_in_future
        return Response(status_code=204)

    async def _show_requests(self, _: Request) -> Response:
        return JSONResponse(dict(self._state.requests))

    async def _forget_requests(self, _: Request) -> Response:
        self._state.requests.clear()
        return Response(status_code=204)

    def _saved(self) -> Response:
        self._state.save()
        return Response(status_code=204)


async def _read(request: Request, kind: type[Body]) -> Body:
    try:
        return msgspec.json.decode(await request.body() or b"{}", type=kind)
    except msgspec.MsgspecError as error:
        raise HTTPException(400, str(error)) from None
