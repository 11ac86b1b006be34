"""
How PostgREST says no: its errors, and the status of each of the database's.

https://docs.postgrest.org/en/v14/references/errors.html
"""

from collections.abc import Mapping

import msgspec
import psycopg


class Refusal(Exception):  # noqa: N818 - an answer like any other
    """
    An answer that is not what was asked for.

    Attributes:
        status: Of HTTP.
        code: PostgREST's own or the SQLSTATE.
        message: What is wrong.
        details: More of it.
        hint: What to do about it.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: str | None = None,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, code, message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.hint = hint
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """Return what the client reads."""
        return msgspec.json.encode(
            {
                "code": self.code,
                "details": self.details,
                "hint": self.hint,
                "message": self.message,
            }
        )

    def answer_headers(self) -> dict[str, str]:
        """Return the headers that go with the body."""
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Proxy-Status": f"PostgREST; error={self.code}",
        }
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers | self.headers


def not_done(what: str) -> Refusal:
    """Return the answer to something that PostgREST does and this stand-in does not."""
    return Refusal(
        501,
        "STANDIN",
        f"The stand-in does not do this: {what}",
        hint="Extend s3edge.testing.standins.supabase, or do without.",
    )


def unparsable(what: str, text: str, column: int, details: str) -> Refusal:
    """
    Return the answer to a malformed part of the query string.

    Args:
        what: The part, such as ``filter``.
        text: As it was sent.
        column: Where it stops making sense, from 1.
        details: What was found and what was expected.
    """
    return Refusal(
        400,
        "PGRST100",
        f'"failed to parse {what} ({text})" (line 1, column {column})',
        details=details,
    )


def bad_body(message: str) -> Refusal:
    """Return the answer to a body that cannot be read."""
    return Refusal(400, "PGRST102", message)


def bad_range(details: str, headers: Mapping[str, str] | None = None) -> Refusal:
    """Return the answer to a range that cannot be served."""
    return Refusal(
        416, "PGRST103", "Requested range not satisfiable", details=details, headers=headers
    )


def not_single(count: int) -> Refusal:
    """Return the answer to a request for one object that has ``count`` rows."""
    return Refusal(
        406,
        "PGRST116",
        "Cannot coerce the result to a single JSON object",
        details=f"The result contains {count} rows",
    )


def unknown_table(schema: str, name: str, near: str | None) -> Refusal:
    """Return the answer for a table that is not there."""
    return Refusal(
        404,
        "PGRST205",
        f"Could not find the table '{schema}.{name}' in the schema cache",
        hint=near and f"Perhaps you meant the table '{schema}.{near}'",
    )


def unknown_column(table: str, column: str) -> Refusal:
    """Return the answer for a column in a body that the table does not have."""
    return Refusal(
        400, "PGRST204", f"Could not find the '{column}' column of '{table}' in the schema cache"
    )


def too_many_affected(count: int) -> Refusal:
    """Return the answer to a change of more rows than ``max-affected`` allows."""
    return Refusal(
        400,
        "PGRST124",
        "Query result exceeds max-affected preference constraint",
        details=f"The query affects {count} rows",
    )


def bad_text() -> Refusal:
    """Return what the database says to a text that holds a zero byte."""
    return Refusal(400, "22021", 'invalid byte sequence for encoding "UTF8": 0x00')


def no_where(statement: str) -> Refusal:
    """Return what Supabase's ``safeupdate`` says to a change without a filter."""
    return Refusal(400, "21000", f"{statement} requires a WHERE clause")


def no_connection() -> Refusal:
    """Return the answer while the database does not take connections."""
    return Refusal(
        503,
        "PGRST000",
        "Database connection error. Retrying the connection.",
        headers={"Retry-After": "1"},
    )


def lost_connection() -> Refusal:
    """Return the answer when the connection broke before the database had answered."""
    return Refusal(
        503,
        "PGRST001",
        "Database client error. Retrying the connection.",
        headers={"Retry-After": "1"},
    )


def no_free_connection() -> Refusal:
    """Return the answer when all connections stay busy."""
    return Refusal(504, "PGRST003", "Timed out acquiring connection from connection pool.")


def of_database(error: psycopg.Error, *, anonymous: bool) -> Refusal:
    """
    Return the answer to what the database raised.

    Args:
        error: As the database raised it; one that carries an SQLSTATE.
        anonymous: Whether nobody had signed in: then a missing right is a missing sign-in.
    """
    code = error.sqlstate or "XX000"
    diagnostic = error.diag
    message = diagnostic.message_primary or ""
    if code == "PGRST":
        return _raised_whole(message, diagnostic.message_detail)
    status = _status(code, message, anonymous=anonymous)
    return Refusal(
        status,
        code,
        message,
        details=diagnostic.message_detail,
        hint=diagnostic.message_hint,
        headers={"Retry-After": "1"} if status == 503 else None,
    )


_STATUSES: Mapping[str, int] = {
    "08": 503,
    "09": 500,
    "0L": 403,
    "0P": 403,
    "23503": 409,
    "23505": 409,
    "25006": 405,
    "21000": 500,
    "25": 500,
    "28": 403,
    "2D": 500,
    "38": 500,
    "39": 500,
    "3B": 500,
    "40": 500,
    "42883": 404,
    "42P01": 404,
    "42P17": 500,
    "53400": 500,
    "53": 503,
    "54": 500,
    "55": 500,
    "57P01": 503,
    "57": 500,
    "58": 500,
    "F0": 500,
    "HV": 500,
    "P0001": 400,
    "P0": 500,
    "XX": 500,
}
"""By SQLSTATE, else by its class; 400 for the rest."""


def _status(code: str, message: str, *, anonymous: bool) -> int:
    if code == "42501":
        return 401 if anonymous else 403
    if code.startswith("PT"):
        return int(code[2:]) if code[2:].isdigit() else 500
    if code == "21000" and message.endswith("requires a WHERE clause"):
        return 400
    if code == "22023" and message.startswith("role") and message.endswith("does not exist"):
        return 401
    return _STATUSES.get(code) or _STATUSES.get(code[:2], 400)


class _RaisedMessage(msgspec.Struct):
    """What ``MESSAGE`` of an SQLSTATE ``PGRST`` holds."""

    code: str
    message: str
    details: str | None = None
    hint: str | None = None


class _RaisedDetail(msgspec.Struct):
    """What ``DETAIL`` of an SQLSTATE ``PGRST`` holds."""

    status: int
    headers: dict[str, str]
    status_text: str | None = None


def _raised_whole(message: str, detail: str | None) -> Refusal:
    """Return the answer that a function made up by itself, with ``RAISE SQLSTATE 'PGRST'``."""
    try:
        said = msgspec.json.decode(message, type=_RaisedMessage)
    except msgspec.MsgspecError:
        return _badly_raised(
            f"Invalid JSON value for MESSAGE: '{message}'",
            "MESSAGE must be a JSON object with obligatory keys: 'code', 'message' and optional"
            " keys: 'details', 'hint'.",
        )
    hint = (
        "DETAIL must be a JSON object with obligatory keys: 'status', 'headers' and optional"
        " key: 'status_text'."
    )
    if detail is None:
        return _badly_raised("DETAIL is missing in the RAISE statement", hint)
    try:
        how = msgspec.json.decode(detail, type=_RaisedDetail)
    except msgspec.MsgspecError:
        return _badly_raised(f"Invalid JSON value for DETAIL: '{detail}'", hint)
    return Refusal(
        how.status,
        said.code,
        said.message,
        details=said.details,
        hint=said.hint,
        headers=how.headers,
    )


def _badly_raised(details: str, hint: str) -> Refusal:
    return Refusal(
        500,
        "PGRST121",
        "Could not parse JSON in the \"RAISE SQLSTATE 'PGRST'\" error",
        details=details,
        hint=hint,
    )


class GatewayRefusal(Exception):  # noqa: N818 - an answer like any other
    """
    A 401 of what stands before PostgREST: it has no ``code``.

    Attributes:
        message: What is wrong.
        hint: What to do about it.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def body(self) -> bytes:
        """Return what the client reads."""
        return msgspec.json.encode({"message": self.message, "hint": self.hint})
