"""``s3edge doctor`` over the cloud's parts: all well, and each fault with its fix."""

from collections.abc import Sequence

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


NOBODY = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    "faults",
    [
        # The setting that is wrong, its value, and what the line of its part names.
        [
            ("SUPABASE_URL", NOBODY, "auth: signing keys: ", "compare SUPABASE_URL"),
            ("SUPABASE_URL", NOBODY, "database: ", "SUPABASE_URL"),
            ("R2_ENDPOINT", NOBODY, "storage: ", "R2_ENDPOINT"),
            ("VASTAI_BACKEND_URL", NOBODY, "backend: ", "GPU server 1"),
        ],
        [
            ("S3EDGE_TIER_CLAIM", "user_metadata.tier", "auth: ", "S3EDGE_TIER_CLAIM"),
            ("S3EDGE_TOKEN", "eyJ.eyJ.x", "auth: token: ", "S3EDGE_TOKEN"),
            ("SUPABASE_SERVICE_ROLE_KEY", "sb_secret_wrong", "database: ", "SERVICE_ROLE_KEY"),
            ("R2_BUCKET", "no-such-bucket", "storage: ", "R2_BUCKET"),
            ("API_SECRET_KEY", "wrong", "backend: ", "API_SECRET_KEY"),
        ],
        [
            ("SUPABASE_ANON_KEY", "sb_publishable_wrong", "database: ", "SUPABASE_ANON_KEY"),
            ("R2_PUBLIC_BASE_URL", NOBODY, "storage: ", "R2_PUBLIC_BASE_URL"),
        ],
        [
            ("SUPABASE_URL", "", "database: ", "set SUPABASE_URL"),
            ("R2_SECRET_ACCESS_KEY", "", "storage: ", "set R2_SECRET_ACCESS_KEY"),
            ("API_SECRET_KEY", "", "backend: ", "set API_SECRET_KEY"),
        ],
    ],
    ids=["nobody there", "wrong", "half wrong", "missing"],
)
def test_each_fault_has_its_fix(
    cloud: Cloud, unstarted_edge: ServerProcess, faults: Sequence[tuple[str, str, str, str]]
) -> None:
    """The line of its part names what to change, and the other parts are looked at all the same."""
    settings = {setting: value for setting, value, _, _ in faults}
    found = failures(unstarted_edge, S3EDGE_AUTH="supabase", S3EDGE_DATABASE="supabase", **settings)
    for _, _, part, says in faults:
        assert any(part in line and says in line for line in found), (part, says, found)


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
