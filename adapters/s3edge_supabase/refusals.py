"""From PostgREST's refusals to the errors that callers know."""

import logging

from s3edge.errors import Code, EdgeError, unavailable
from s3edge.rules.schema_refusals import refusal_of
from s3edge_supabase.postgrest import Refusal


NOT_APPLIED = (
    "the migrations are not applied; run: s3edge migrate --to-dir supabase/migrations,"
    " then: supabase db push"
)

_UNKNOWN = frozenset({"PGRST202", "PGRST204", "PGRST205", "42P01", "42703", "42883"})
"""A function, a column or a table that is not there."""

_BAD_TOKEN = frozenset({"PGRST301", "PGRST303"})

_log = logging.getLogger(__name__)


def error_of_user_call(refusal: Refusal) -> EdgeError:
    """Return the error of a call that was made with a user's own token."""
    known = refusal_of(refusal.code, refusal.reason, refusal.details)
    if known is not None:
        return known
    if refusal.code in _BAD_TOKEN:
        # Final: PostgREST knows revoked keys sooner than our cache does.
        return EdgeError(Code.AUTH_INVALID, "Supabase does not accept the token; sign in again.")
    return fault_of_ours(refusal, "SUPABASE_ANON_KEY")


def error_of_service_call(refusal: Refusal) -> EdgeError:
    """Return the error of a call that was made with the service key."""
    known = refusal_of(refusal.code, refusal.reason, refusal.details)
    return known or fault_of_ours(refusal, "SUPABASE_SERVICE_ROLE_KEY")


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
