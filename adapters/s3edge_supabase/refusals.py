"""From PostgREST's refusals to the errors that callers know."""

import logging

import msgspec

from s3edge.errors import Code, EdgeError, invalid, unavailable
from s3edge.rules.money import insufficient_credits, key_reused
from s3edge_supabase.postgrest import Refusal


NOT_APPLIED = (
    "the migrations are not applied; run: s3edge migrate --to-dir supabase/migrations,"
    " then: supabase db push"
)

_UNKNOWN = frozenset({"PGRST202", "PGRST204", "PGRST205", "42P01", "42703", "42883"})
"""A function, a column or a table that is not there."""

_BAD_TOKEN = frozenset({"PGRST301", "PGRST303"})

_log = logging.getLogger(__name__)


class _Shortfall(msgspec.Struct):
    """What ``PT402`` says in its details."""

    cost: int
    credits: int


def error_of_user_call(refusal: Refusal) -> EdgeError:
    """Return the error of a call that was made with a user's own token."""
    known = _of_our_functions(refusal)
    if known is not None:
        return known
    if refusal.code in _BAD_TOKEN:
        # Final: PostgREST knows revoked keys sooner than our cache does.
        return EdgeError(Code.AUTH_INVALID, "Supabase does not accept the token; sign in again.")
    return fault_of_ours(refusal, "SUPABASE_ANON_KEY")


def error_of_service_call(refusal: Refusal) -> EdgeError:
    """Return the error of a call that was made with the service key."""
    return _of_our_functions(refusal) or fault_of_ours(refusal, "SUPABASE_SERVICE_ROLE_KEY")


def fault_of_ours(refusal: Refusal, key: str) -> EdgeError:
    """Return what users hear of a fault that only the operator can mend, and log what that is."""
    _log.error("Supabase refused a call: %s; %s", refusal, fix_of(refusal, key))
    return unavailable("The database cannot be used now; try again later.")


def fix_of(refusal: Refusal, key: str) -> str:
    """Return what the operator has to do about a refusal, on one line."""
    if refusal.code in _UNKNOWN:
        return NOT_APPLIED
    if refusal.status == 401 or refusal.code in _BAD_TOKEN:  # noqa: PLR2004
        return f"compare {key} with the project's API keys"
    if refusal.code == "42501":
        return f"{key} has too few rights, or {NOT_APPLIED}"
    return "see the project's API logs"


def _of_our_functions(refusal: Refusal) -> EdgeError | None:
    """Return the error that one of the schema's own functions raised."""
    match refusal.code, refusal.reason:
        case "PT402", _:
            return _insufficient(refusal.details)
        case "PT422", _:
            error = key_reused()
        case "PT400", "unknown_project":
            error = invalid("project_id", "There is no such project of yours.")
        case "PT400", _:
            error = EdgeError(Code.INVALID_REQUEST, "The request cannot be recorded.")
        case ("PT401", _) | ("PT404", "unknown_user"):
            error = EdgeError(Code.AUTH_INVALID, "There is no such user any more.")
        case _:
            return None
    return error


def _insufficient(details: str) -> EdgeError:
    try:
        shortfall = msgspec.json.decode(details, type=_Shortfall)
    except ValueError:
        return EdgeError(Code.INSUFFICIENT_CREDITS, "You have too few credits.")
    return insufficient_credits(shortfall.cost, shortfall.credits)
