"""Answers requests on tables and functions, each in one transaction."""

from urllib.parse import unquote

from attrs import frozen
from starlette.requests import Request
from starlette.responses import Response

from s3edge.testing.standins.supabase import answers, table_statements
from s3edge.testing.standins.supabase.asked import SCHEMA, Asked, read_request
from s3edge.testing.standins.supabase.call_statements import Arguments, call, choose, shape_of
from s3edge.testing.standins.supabase.catalog import (
    Connection,
    Function,
    Relation,
    find_functions,
    find_relation,
    similar_function,
    similar_relation,
)
from s3edge.testing.standins.supabase.connections import Connections, become
from s3edge.testing.standins.supabase.gateway import Caller
from s3edge.testing.standins.supabase.payload import read_payload
from s3edge.testing.standins.supabase.preferences import Return
from s3edge.testing.standins.supabase.refusals import (
    Refusal,
    no_where,
    not_done,
    unknown_table,
)
from s3edge.testing.standins.supabase.sql_parts import Shape


@frozen
class Rest:
    """
    PostgREST's part of a project.

    Attributes:
        connections: To the database.
    """

    connections: Connections

    async def answer(self, request: Request, path: str, caller: Caller) -> Response:
        """
        Answer a request.

        Args:
            request: The request.
            path: Its path below ``/rest/v1``, still percent-encoded.
            caller: Who it comes from.

        Raises:
            Refusal: It is refused; nothing of it remains in the database.
        """
        match [unquote(part) for part in path.strip("/").split("/")]:
            case [""]:
                raise not_done("the OpenAPI description of the schema")
            case ["rpc", function]:
                return await self._call(request, path, caller, function)
            case [table]:
                return await self._use_table(request, path, caller, table)
            case _:
                raise Refusal(404, "PGRST125", "Invalid path specified in request URL")

    async def _use_table(self, request: Request, path: str, caller: Caller, table: str) -> Response:
        if request.method in {"PUT", "OPTIONS"}:
            raise not_done(f"{request.method} on tables")
        if request.method not in {"GET", "HEAD", "POST", "PATCH", "DELETE"}:
            raise Refusal(405, "PGRST117", f"Unsupported HTTP method: {request.method}")
        asked = await read_request(request, path)
        async with self.connections.transaction(caller) as connection:
            relation = await find_relation(connection, SCHEMA, table)
            if relation is None:
                raise unknown_table(
                    SCHEMA, table, await similar_relation(connection, SCHEMA, table)
                )
            await _become(connection, caller, asked, None)
            return await _ON_TABLE[asked.method](connection, relation, asked)

    async def _call(self, request: Request, path: str, caller: Caller, name: str) -> Response:
        if request.method not in {"GET", "HEAD", "POST"}:
            raise Refusal(405, "PGRST101", f"Cannot use the {request.method} method on RPC")
        asked = await read_request(request, path)
        arguments: Arguments = dict(asked.query.arguments)
        if not asked.writes_nothing:
            arguments = read_payload(
                asked.body, asked.content_type, asked.query.columns, may_be_empty=True
            )
        async with self.connections.transaction(caller) as connection:
            found = await find_functions(connection, SCHEMA, name)
            near = None if found else await similar_function(connection, SCHEMA, name)
            function = choose(found, SCHEMA, name, arguments, near)
            await _become(connection, caller, asked, function)
            return await _answer_call(connection, function, arguments, asked)


async def _become(
    connection: Connection, caller: Caller, asked: Asked, function: Function | None
) -> None:
    reads = asked.writes_nothing or (function is not None and not function.is_volatile)
    await become(
        connection,
        caller,
        method=asked.method,
        path=asked.path,
        headers=asked.headers,
        cookies=asked.cookies,
        read_only=reads,
        statement_timeout=None if function is None else function.statement_timeout,
    )


async def _answer_call(
    connection: Connection, function: Function, arguments: Arguments, asked: Asked
) -> Response:
    if asked.preferences.enforced_max_affected is not None and not function.returns_set:
        raise Refusal(
            400,
            "PGRST128",
            "Function must return SETOF or TABLE when max-affected preference is used with"
            " handling=strict",
        )
    shape = shape_of(function)
    if asked.single:
        shape = Shape.OBJECT if function.is_composite else Shape.SCALAR
    statement = call(
        function, arguments, asked.query, asked.page, shape, counted=asked.preferences.counted
    )
    result = await answers.run(connection, statement)
    answers.check_single(asked, result)
    answers.check_affected(asked, result)
    return answers.of_call(asked, result, returns_void=function.returns_void)


async def _read(connection: Connection, relation: Relation, asked: Asked) -> Response:
    statement = table_statements.read(
        relation,
        asked.query,
        asked.page,
        Shape.OBJECT if asked.single else Shape.ARRAY,
        counted=asked.preferences.counted,
    )
    result = await answers.run(connection, statement)
    answers.check_single(asked, result)
    return answers.of_read(asked, result)


async def _insert(connection: Connection, relation: Relation, asked: Asked) -> Response:
    payload = read_payload(asked.body, asked.content_type, asked.query.columns)
    statement = table_statements.insert(
        relation, asked.query, payload, asked.preferences, _change_shape(asked)
    )
    result = await answers.run(connection, statement)
    answers.check_single(asked, result)
    return answers.of_insert(asked, result, relation)


async def _update(connection: Connection, relation: Relation, asked: Asked) -> Response:
    payload = read_payload(asked.body, asked.content_type, asked.query.columns)
    _check_change(asked, "UPDATE", changes=bool(payload.keys))
    statement = table_statements.update(
        relation, asked.query, payload, asked.preferences, _change_shape(asked)
    )
    result = await answers.run(connection, statement)
    answers.check_single(asked, result)
    answers.check_affected(asked, result)
    return answers.of_update(asked, result)


async def _delete(connection: Connection, relation: Relation, asked: Asked) -> Response:
    _check_change(asked, "DELETE", changes=True)
    statement = table_statements.delete(
        relation, asked.query, asked.preferences, _change_shape(asked)
    )
    result = await answers.run(connection, statement)
    answers.check_single(asked, result)
    answers.check_affected(asked, result)
    return answers.of_delete(asked, result)


_ON_TABLE = {
    "GET": _read,
    "HEAD": _read,
    "POST": _insert,
    "PATCH": _update,
    "DELETE": _delete,
}


def _change_shape(asked: Asked) -> Shape:
    if asked.preferences.returned is not Return.REPRESENTATION:
        return Shape.NOTHING
    return Shape.OBJECT if asked.single else Shape.ARRAY


def _check_change(asked: Asked, statement: str, *, changes: bool) -> None:
    """
    Return when a change may be made.

    Supabase loads ``safeupdate`` for PostgREST, which this Postgres does not have.
    """
    if asked.query.limit is not None or asked.query.offset:
        raise not_done("limits on changes")
    if changes and not asked.query.conditions:
        raise no_where(statement)
