"""
How the functions of the Postgres schema refuse, as the errors that callers know.

The schema (``s3edge_postgres/migrations``) raises SQLSTATE ``PTxyz``, which PostgREST turns into HTTP
status xyz; so it is read here once, whichever way the call went.
https://docs.postgrest.org/en/stable/references/errors.html
"""

import msgspec

from s3edge.errors import Code, EdgeError, invalid
from s3edge.rules.money import insufficient_credits, key_reused


class _Shortfall(msgspec.Struct):
    """What ``PT402`` says in its details."""

    cost: int
    credits: int


def refusal_of(sqlstate: str | None, reason: str | None, details: str | None) -> EdgeError | None:
    """
    Return the error that one of the schema's own functions raised, or ``None`` for any other.

    Args:
        sqlstate: Five characters.
        reason: The message: one word, as ``unknown_project``.
        details: JSON, for ``PT402``.
    """
    match sqlstate, reason:
        case "PT402", _:
            return _insufficient(details or "")
        case "PT422", _:
            return key_reused()
        case "PT400", "unknown_project":
            return invalid("project_id", "You have no project with this id.")
        case "PT400", _:
            return EdgeError(Code.INVALID_REQUEST, "The request cannot be recorded.")
        case ("PT401", _) | ("PT404", "unknown_user"):
            return EdgeError(Code.AUTH_INVALID, "This user no longer exists.")
        case _:
            return None


def refusal_of_grant(sqlstate: str | None) -> EdgeError | None:
    """Return the error of a grant that the schema refused for the operator's own fault."""
    match sqlstate:
        case "PT404":
            return EdgeError(Code.NOT_FOUND, "There is no such user.")
        case "22003":
            # Postgres's own: a number does not fit its type.
            return invalid("amount", "The balance would become too large to store.")
        case _:
            return None


def _insufficient(details: str) -> EdgeError:
    try:
        shortfall = msgspec.json.decode(details, type=_Shortfall)
    except ValueError:
        return EdgeError(Code.INSUFFICIENT_CREDITS, "You have too few credits.")
    return insufficient_credits(shortfall.cost, shortfall.credits)
