"""``s3edge doctor`` over the cloud's parts: all well, and each fault with its fix."""

from collections.abc import Mapping

import pytest

from s3edge.testing.server import ServerProcess
from s3edge.testing.standins.cloud import Cloud


def failures(edge: ServerProcess, **settings: str) -> list[str]:
    """Return the lines of what failed."""
    edge.settings = {**edge.settings, **settings}
    found = edge.run("doctor")
    assert "Traceback" not in found.stdout + found.stderr
    lines = [line for line in found.stdout.splitlines() if line.startswith("FAIL")]
    assert found.returncode == (1 if lines else 0), found.stdout + found.stderr
    return lines


def test_all_is_well(cloud: Cloud, unstarted_edge: ServerProcess) -> None:
    """Every part is looked at, and nothing is left behind."""
    before = sorted(cloud.bucket.keys())
    found = unstarted_edge.run("doctor")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "FAIL" not in found.stdout
    for name in ("signing keys", "clock", "issuer", "tier claim", "migrations", "policies"):
        assert name in found.stdout
    assert sorted(cloud.bucket.keys()) == before


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"SUPABASE_URL": "http://127.0.0.1:1"}, "compare SUPABASE_URL"),
        ({"SUPABASE_ANON_KEY": "sb_publishable_of_another_project"}, "SUPABASE_ANON_KEY"),
        ({"SUPABASE_SERVICE_ROLE_KEY": "sb_secret_wrong"}, "SUPABASE_SERVICE_ROLE_KEY"),
        ({"S3EDGE_TIER_CLAIM": "user_metadata.tier"}, "S3EDGE_TIER_CLAIM"),
        ({"R2_BUCKET": "no-such-bucket"}, "R2_BUCKET"),
        ({"R2_ENDPOINT": "http://127.0.0.1:1"}, "R2_ENDPOINT"),
        ({"R2_PUBLIC_BASE_URL": "http://127.0.0.1:1"}, "R2_PUBLIC_BASE_URL"),
        ({"VASTAI_BACKEND_URL": "http://127.0.0.1:1"}, "GPU server 1"),
        ({"API_SECRET_KEY": "wrong"}, "API_SECRET_KEY"),
        ({"S3EDGE_TOKEN": "eyJ.eyJ.x"}, "S3EDGE_TOKEN"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_each_fault_has_its_fix(
    cloud: Cloud, unstarted_edge: ServerProcess, settings: Mapping[str, str], says: str
) -> None:
    """The line names what to change, and the other parts are looked at all the same."""
    found = failures(unstarted_edge, **settings)
    assert any(says in line for line in found), found


def test_a_database_without_the_schema_is_told_apart(
    cloud: Cloud, unstarted_edge: ServerProcess
) -> None:
    """The fix is the command to run."""
    empty = cloud.postgres.create_database("without_schema")
    with cloud.supabase_of(empty) as supabase:
        found = failures(
            unstarted_edge,
            SUPABASE_URL=supabase.url,
            SUPABASE_ANON_KEY=supabase.anon_key,
            SUPABASE_SERVICE_ROLE_KEY=supabase.service_key,
        )
    assert any("s3edge migrate --to-dir" in line for line in found), found


def test_a_hole_in_the_policies_is_found(cloud: Cloud, unstarted_edge: ServerProcess) -> None:
    """What somebody added in the dashboard shows up, by name."""
    cloud.execute(
        "create policy holiday on public.usage_logs for select to anon using (true);"
        "grant select on public.usage_logs to anon;"
        "grant update (credits) on public.users_profile to authenticated"
    )
    try:
        found = failures(unstarted_edge)
    finally:
        cloud.execute(
            "drop policy holiday on public.usage_logs;"
            "revoke select on public.usage_logs from anon;"
            "revoke update (credits) on public.users_profile from authenticated"
        )
    assert any('policy "holiday"' in line for line in found), found
    assert any("users_profile.credits" in line for line in found), found
