"""From Postgres's errors to the errors that callers know."""

import logging

import psycopg

from s3edge.errors import EdgeError, unavailable
from s3edge.rules.schema_refusals import refusal_of


NOT_APPLIED = "the migrations are not applied; run: s3edge migrate"

_UNKNOWN = frozenset({"3F000", "42P01", "42703", "42883"})
"""A schema, a table, a column or a function that is not there."""

_READ_ONLY = "25006"
"""A write in a read-only transaction: all are after a failover, on what was the primary."""

_ROLLED_BACK = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock timeout: the statement left nothing, whatever it was."""

_CANCELED = "57014"
"""The server gave the statement up: it took all the time that there was, and left nothing."""

_PREPARED = frozenset({"26000", "42P05"})
"""A prepared statement is not there, or is there already: another client's session, in effect."""

_log = logging.getLogger(__name__)


def is_passing(error: psycopg.Error) -> bool:
    """Return whether the same statement may be answered well in a moment, or over another connection."""
    # Classes 08, 40, 53, 55, 57 and 58 of SQLSTATE, and connections that broke.
    # https://www.psycopg.org/psycopg3/docs/api/errors.html
    lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return lost or has_stepped_down(error)


def has_stepped_down(error: psycopg.Error) -> bool:
    """Return whether the server is not the primary any more: it reads on, and writes nothing."""
    return error.sqlstate == _READ_ONLY


def may_be_repeated(error: psycopg.Error, *, repeatable: bool) -> bool:
    """
    Return whether to run a statement again that ended in a passing error.

    Args:
        error: The error.
        repeatable: Whether running it twice does no more than once.
    """
    left_nothing = error.sqlstate in _ROLLED_BACK or has_stepped_down(error)
    return (repeatable or left_nothing) and error.sqlstate != _CANCELED


def breaks_connection(error: psycopg.Error) -> bool:
    """Return whether the connection is of no use any more."""
    return is_passing(error) and error.sqlstate not in {*_ROLLED_BACK, _CANCELED}


def in_brief(error: psycopg.Error) -> str:
    """Return what may be logged of an error: not its details, which hold rows."""
    reason = error.diag.message_primary or next(iter(str(error).splitlines()), "")
    code = "" if error.sqlstate is None else f"SQLSTATE {error.sqlstate}, "
    return f"{code}{reason[:200]!r}"


def error_of_call(error: psycopg.Error) -> EdgeError:
    """Return the error of a statement that was refused."""
    known = refusal_of(error.sqlstate, error.diag.message_primary, error.diag.message_detail)
    return known or _fault_of_ours(error)


def fix_of(error: psycopg.Error) -> str:
    """Return what the operator has to do about a refusal, on one line."""
    if error.sqlstate in _UNKNOWN:
        return NOT_APPLIED
    if error.sqlstate in _PREPARED:
        return "a pooler in transaction mode stands between: add ?pooler=transaction to the URL"
    if error.sqlstate == "PT412":
        return "the queue's tables are not there; run: s3edge migrate"
    if error.sqlstate == "42501":
        return f"connect as the role that owns the schema, or {NOT_APPLIED}"
    return "see the database's log"


def _fault_of_ours(error: psycopg.Error) -> EdgeError:
    """Return what users hear of a fault that only the operator can mend, and log what that is."""
    _log.error("Postgres refused a statement: %s; %s", in_brief(error), fix_of(error))
    return unavailable("The database cannot be used now; try again later.")
