"""
What stands before PostgREST: API keys, and who a request comes from.

An API key is no user: a user's token in ``Authorization`` wins, whatever the key. The legacy keys are
tokens themselves and count only where tokens do, so they have to be sent as both.
https://supabase.com/docs/guides/api/api-keys
"""

import hmac
from collections.abc import Mapping

from attrs import frozen

from s3edge.testing.standins.supabase.project import Project
from s3edge.testing.standins.supabase.refusals import GatewayRefusal
from s3edge.testing.standins.supabase.tokens import Claims, verified


ANONYMOUS = "anon"
SERVICE = "service_role"


@frozen
class Caller:
    """
    Who a request comes from.

    Attributes:
        role: The database role that it runs as.
        claims: What the database is told of them.
    """

    role: str
    claims: Claims

    @property
    def is_anonymous(self) -> bool:
        """Whether nobody has signed in."""
        return self.role == ANONYMOUS


def identify(project: Project, headers: Mapping[str, str], key_in_query: str | None) -> Caller:
    """
    Return who a request comes from.

    Args:
        project: Whose keys count.
        headers: The request's.
        key_in_query: What its query string has as ``apikey``.

    Raises:
        GatewayRefusal: The API key is missing, wrong or out of place.
        Refusal: The token is not accepted.
    """
    key = headers.get("apikey") or key_in_query
    if not key:
        raise GatewayRefusal(
            "No API key found in request",
            "No `apikey` request header or url param was found.",
        )
    role = _role_of_key(project, key, headers.get("user-agent", ""))
    scheme, _, token = headers.get("authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer":
        return Caller(role, {"role": role})
    if key.startswith("sb_") and hmac.compare_digest(token.encode(), key.encode()):
        return Caller(role, {"role": role})
    claims = verified(token, project.keys)
    named = claims.get("role", ANONYMOUS)
    role = named if isinstance(named, str) else ANONYMOUS
    return Caller(role, {**claims, "role": role})


def _role_of_key(project: Project, key: str, user_agent: str) -> str:
    """Return the role that a request with this key has when it carries no token."""
    if _same(key, project.publishable_key):
        return ANONYMOUS
    if _same(key, project.secret_key):
        if "Mozilla" in user_agent:
            raise GatewayRefusal(
                "Forbidden use of secret API key in browser",
                "Secret API keys can only be used in a protected environment.",
            )
        return SERVICE
    legacy = (project.legacy_key(role) for role in (ANONYMOUS, SERVICE))
    if not project.keys.legacy_revoked and any(_same(key, each) for each in legacy):
        return ANONYMOUS
    raise GatewayRefusal(
        "Invalid API key", "Double check your Supabase `anon` or `service_role` API key."
    )


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
