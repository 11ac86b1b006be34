"""From the row that a statement returns to an HTTP answer."""

from collections.abc import Mapping
from urllib.parse import urlencode

import msgspec
from attrs import frozen
from starlette.responses import Response

from s3edge.testing.standins.supabase.asked import JSON, SINGLE, Asked
from s3edge.testing.standins.supabase.catalog import Connection, Relation
from s3edge.testing.standins.supabase.preferences import Resolution, Return
from s3edge.testing.standins.supabase.ranges import content_range, status_of
from s3edge.testing.standins.supabase.refusals import Refusal, not_single, too_many_affected
from s3edge.testing.standins.supabase.table_statements import Statement


@frozen
class Result:
    """
    What a statement did.

    Attributes:
        total: How many rows there would be without a limit, when that was counted.
        rows: How many were returned or changed.
        body: As JSON.
        headers: What the database set as ``response.headers``.
        status: What the database set as ``response.status``.
        met: How many rows of an upsert were there already.
        key: The first row's columns as texts, when they were wanted.
    """

    total: int | None
    rows: int
    body: str
    headers: str | None
    status: str | None
    met: int
    key: str | None


async def run(connection: Connection, statement: Statement) -> Result:
    """
    Run a statement.

    Raises:
        psycopg.Error: The database refused it.
    """
    cursor = await connection.execute(statement.text, statement.values.by_name)
    row = await cursor.fetchone()
    assert row is not None
    return Result(*row)


def check_single(asked: Asked, result: Result) -> None:
    """
    Return when the transaction may be committed.

    Raises:
        Refusal: One object was wanted and there is not one.
    """
    if asked.single and result.rows != 1:
        raise not_single(result.rows)


def check_affected(asked: Asked, result: Result) -> None:
    """
    Return when the transaction may be committed.

    Raises:
        Refusal: More rows were changed than the request allows.
    """
    most = asked.preferences.enforced_max_affected
    if most is not None and result.rows > most:
        raise too_many_affected(result.rows)


def of_read(asked: Asked, result: Result) -> Response:
    """
    Return the answer to a read.

    Raises:
        Refusal: The offset lies behind the rows.
    """
    first = asked.page.offset
    headers = {"Content-Range": content_range(first, first + result.rows - 1, result.total)}
    headers |= _applied(asked, "count", "handling")
    status = status_of(asked.page, result.rows, result.total)
    return _answer(asked, result, status, headers)


def of_call(asked: Asked, result: Result, *, returns_void: bool) -> Response:
    """
    Return the answer to a call.

    Raises:
        Refusal: The offset lies behind the rows.
    """
    first = asked.page.offset
    headers = {"Content-Range": content_range(first, first + result.rows - 1, result.total)}
    headers |= _applied(asked, "count", "handling", "max_affected")
    status = status_of(asked.page, result.rows, result.total)
    if returns_void:
        return _answer(asked, result, 204, headers, has_body=False)
    return _answer(asked, result, status, headers)


def of_insert(asked: Asked, result: Result, relation: Relation) -> Response:
    """Return the answer to an insert or upsert."""
    preferences = asked.preferences
    headers = {"Content-Range": content_range(1, 0, _counted(asked, result))}
    if result.key is not None:
        key = msgspec.json.decode(result.key, type=dict[str, str | None])
        filters = {
            name: "is.null" if value is None else f"eq.{value}" for name, value in key.items()
        }
        headers["Location"] = f"/{relation.name}?{urlencode(filters)}"
    has_arbiter = bool(relation.primary_key) or asked.query.on_conflict is not None
    resolution = ["resolution"] if has_arbiter else []
    headers |= _applied(asked, *resolution, "missing", "returned", "count", "handling")
    only_updates = preferences.resolution is Resolution.MERGE and result.rows <= result.met
    return _answer(
        asked, result, 200 if only_updates else 201, headers, has_body=_shows_rows(asked)
    )


def of_update(asked: Asked, result: Result) -> Response:
    """Return the answer to an update."""
    headers = {"Content-Range": content_range(0, result.rows - 1, _counted(asked, result))}
    headers |= _applied(asked, "missing", "returned", "count", "handling", "max_affected")
    return _of_change(asked, result, headers)


def of_delete(asked: Asked, result: Result) -> Response:
    """Return the answer to a deletion."""
    headers = {"Content-Range": content_range(1, 0, _counted(asked, result))}
    headers |= _applied(asked, "returned", "count", "handling", "max_affected")
    return _of_change(asked, result, headers)


def _of_change(asked: Asked, result: Result, headers: Mapping[str, str]) -> Response:
    shows = _shows_rows(asked)
    return _answer(asked, result, 200 if shows else 204, headers, has_body=shows)


def _shows_rows(asked: Asked) -> bool:
    return asked.preferences.returned is Return.REPRESENTATION


def _counted(asked: Asked, result: Result) -> int | None:
    return result.rows if asked.preferences.counted else None


def _applied(asked: Asked, *names: str) -> Mapping[str, str]:
    applied = asked.preferences.applied(*names)
    return {"Preference-Applied": applied} if applied else {}


def _answer(
    asked: Asked,
    result: Result,
    status: int,
    headers: Mapping[str, str],
    *,
    has_body: bool = True,
) -> Response:
    """
    Return an answer, with the status and headers that the database wants instead.

    Raises:
        Refusal: These are malformed.
    """
    headers = dict(headers)
    if has_body:
        headers["Content-Type"] = f"{SINGLE if asked.single else JSON}; charset=utf-8"
    headers |= _database_headers(result.headers)
    body = result.body if has_body and asked.method != "HEAD" else ""
    answer = Response(body, _database_status(result.status, status), headers)
    if asked.method == "HEAD":
        # The length of a body that is not sent is not known to be zero.
        del answer.headers["Content-Length"]
    return answer


def _database_headers(said: str | None) -> Mapping[str, str]:
    if said is None:
        return {}
    try:
        listed = msgspec.json.decode(said, type=list[dict[str, str]])
    except msgspec.MsgspecError:
        listed = None
    if listed is None or any(len(each) != 1 for each in listed):
        raise Refusal(
            500,
            "PGRST111",
            "response.headers guc must be a JSON array composed of objects with a single key and a"
            " string value",
        )
    return {name: value for each in listed for name, value in each.items()}


def _database_status(said: str | None, otherwise: int) -> int:
    if said is None:
        return otherwise
    if not said.isdigit():
        raise Refusal(500, "PGRST112", "response.status guc must be a valid status code")
    return int(said)
