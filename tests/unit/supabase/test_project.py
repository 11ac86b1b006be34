"""Which key goes with which call, and which settings are refused."""

from typing import Any

import jwt
import pytest

from s3edge_supabase.project import SupabaseProject, project_from_environment


SECRET = "a secret that is long enough for HS256"


def legacy(role: str, ref: str = "abcd") -> str:
    """Return a legacy API key."""
    return jwt.encode({"iss": "supabase", "ref": ref, "role": role}, SECRET, algorithm="HS256")


ANON, SERVICE = legacy("anon"), legacy("service_role")

GOOD = {"SUPABASE_URL": "https://abcd.supabase.co", "SUPABASE_ANON_KEY": "sb_publishable_1"}


def test_a_users_token_travels_with_the_publishable_key_alone() -> None:
    """With the service key beside it, one mistake would lift row-level security."""
    project = SupabaseProject("https://p", "sb_publishable_1", "sb_secret_1")
    assert project.user_headers("token") == {
        "apikey": "sb_publishable_1",
        "Authorization": "Bearer token",
    }


def test_a_new_key_goes_into_one_header() -> None:
    """It is no JWT, and would be refused as one."""
    project = SupabaseProject("https://p", "sb_publishable_1", "sb_secret_1")
    assert project.public_headers() == {"apikey": "sb_publishable_1"}
    assert project.service_headers() == {"apikey": "sb_secret_1"}


def test_a_legacy_key_goes_into_both_headers() -> None:
    """It is the JWT of its role."""
    project = SupabaseProject("https://p", ANON, SERVICE)
    assert project.public_headers() == {"apikey": ANON, "Authorization": f"Bearer {ANON}"}
    assert project.service_headers() == {"apikey": SERVICE, "Authorization": f"Bearer {SERVICE}"}


def test_without_a_service_key_there_is_no_such_call() -> None:
    """Nothing is sent with less than was meant."""
    with pytest.raises(LookupError, match="SUPABASE_SERVICE_ROLE_KEY"):
        SupabaseProject("https://p", "sb_publishable_1").service_headers()


def test_the_addresses_follow_from_the_project() -> None:
    """A slash at the end makes no difference."""
    project = project_from_environment({**GOOD, "SUPABASE_URL": "https://abcd.supabase.co/"})
    assert project.issuer == "https://abcd.supabase.co/auth/v1"
    assert project.jwks_url == "https://abcd.supabase.co/auth/v1/.well-known/jwks.json"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"SUPABASE_URL": ""}, "set SUPABASE_URL"),
        ({"SUPABASE_URL": "abcd.supabase.co"}, "set SUPABASE_URL"),
        ({"SUPABASE_URL": "https://abcd.supabase.co/rest/v1"}, "set SUPABASE_URL"),
        ({"SUPABASE_URL": "https://user:hunter2@abcd.supabase.co"}, "set SUPABASE_URL"),
        ({"SUPABASE_URL": "https://[abcd.supabase.co"}, "set SUPABASE_URL"),
        ({"SUPABASE_URL": "https://abcd.supabase.co:port"}, "set SUPABASE_URL"),
        ({"SUPABASE_URL": "https://abcd.supa\nbase.co"}, "set SUPABASE_URL"),
        ({"SUPABASE_JWT_SECRET": "hunter2"}, "SUPABASE_JWT_SECRET is not"),
        ({"SUPABASE_JWT_SECRET": ANON, "SUPABASE_ANON_KEY": ANON}, "SUPABASE_JWT_SECRET is not"),
        ({"SUPABASE_ANON_KEY": ""}, "set SUPABASE_ANON_KEY"),
        ({"SUPABASE_ANON_KEY": "sb_secret_hunter2"}, "holds a secret key"),
        ({"SUPABASE_ANON_KEY": SERVICE}, "holds a secret key"),
        ({"SUPABASE_ANON_KEY": "sb_publishable_hunter2\r\nx: y"}, "characters that no key has"),
        ({"SUPABASE_ANON_KEY": "sb_publishable_hunter2 x"}, "characters that no key has"),
        ({"SUPABASE_SERVICE_ROLE_KEY": "sb_publishable_hunter2"}, "holds a publishable key"),
        ({"SUPABASE_SERVICE_ROLE_KEY": ANON}, "holds a publishable key"),
    ],
)
def test_a_wrong_setting_is_named(changes: dict[str, str], says: str) -> None:
    """The line says what to do, and repeats no key."""
    with pytest.raises(ValueError, match=says) as caught:
        project_from_environment(GOOD | changes)
    assert "hunter2" not in str(caught.value)
    assert "eyJ" not in str(caught.value)


def test_only_the_keys_are_needed_to_verify_tokens() -> None:
    """A deployment with another database has no publishable key."""
    project = project_from_environment({"SUPABASE_URL": GOOD["SUPABASE_URL"]}, needs_key=False)
    assert project.url == GOOD["SUPABASE_URL"]


def test_no_key_is_in_the_representation() -> None:
    """Whatever prints it shows where it is, and nothing else."""
    everything: dict[str, Any] = {
        **GOOD,
        "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_hunter2",
        "SUPABASE_JWT_SECRET": "hunter2" * 5,
    }
    shown = repr(project_from_environment(everything))
    assert "hunter2" not in shown
    assert "sb_publishable_1" not in shown
