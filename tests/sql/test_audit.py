"""``s3edge doctor`` asks the database whether the rules of access still stand."""

import pytest

from s3edge_postgres.migrations import migrations
from tests.sql.conftest import Project


TAMPERING = {
    "create policy extra on public.users_profile for update using (true)": (
        'policy "extra" on users_profile is not as s3edge made it'
    ),
    "create policy s3edge_manage_own on public.usage_logs for all using (true)": (
        'policy "s3edge_manage_own" on usage_logs is not as s3edge made it'
    ),
    "alter policy s3edge_read_own on public.segmentation_results using (true)": (
        'policy "s3edge_read_own" on segmentation_results is not as s3edge made it'
    ),
    "alter policy s3edge_manage_own on public.projects with check (true)": (
        'policy "s3edge_manage_own" on projects is not as s3edge made it'
    ),
    "alter policy s3edge_read_own on public.usage_logs to public": (
        'policy "s3edge_read_own" on usage_logs is not as s3edge made it'
    ),
    "drop policy s3edge_read_own on public.usage_logs": (
        'policy "s3edge_read_own" on usage_logs is missing'
    ),
    "alter table public.projects disable row level security": (
        "row-level security is off on projects"
    ),
    "grant select on public.usage_logs to anon": "anon may SELECT usage_logs",
    "grant select on public.usage_logs to public": "anon may SELECT usage_logs",
    "grant insert on public.usage_logs to authenticated": "authenticated may INSERT usage_logs",
    "grant update on public.users_profile to authenticated": (
        "authenticated may UPDATE users_profile"
    ),
    "grant delete on public.segmentation_results to authenticated": (
        "authenticated may DELETE segmentation_results"
    ),
    "grant truncate on public.projects to authenticated": "authenticated may TRUNCATE projects",
    "grant update (credits) on public.users_profile to authenticated": (
        "authenticated may UPDATE the column users_profile.credits"
    ),
    "grant select (mask_image_url) on public.segmentation_results to anon": (
        "anon may SELECT the column segmentation_results.mask_image_url"
    ),
    "grant execute on function s3edge.grant_credits to authenticated": (
        "authenticated may call s3edge.grant_credits(uuid,bigint)"
    ),
    "grant execute on function public.s3edge_grant_credits to authenticated": (
        "authenticated may call public.s3edge_grant_credits(uuid,bigint)"
    ),
    "grant execute on function s3edge.accounts to public": (
        "anon may call s3edge.accounts(uuid,integer)"
    ),
    "grant execute on function public.s3edge_reserve_task to anon": (
        "anon may call public.s3edge_reserve_task(uuid,text,text,uuid,text,text)"
    ),
    "create function public.s3edge_new() returns void language sql as ''": (
        "authenticated may call public.s3edge_new()"
    ),
}
"""What somebody does to a project, and the line that tells of it."""


def _findings(project: Project) -> set[str]:
    return {line for (line,) in project.rows("select * from s3edge.audit()")}


def test_nothing_is_found_where_nobody_tampered(shared: Project) -> None:
    """Whatever a project's default privileges are; a server hears the same as the owner."""
    assert _findings(shared) == set()
    assert shared.service().call_set("s3edge_audit") == []


def test_nothing_is_found_in_what_is_not_ours(shared: Project) -> None:
    """A project's other tables and functions are its own affair."""
    with shared.owner.transaction(force_rollback=True):
        shared.rows("create table public.notes (id uuid primary key)")
        shared.rows("grant all on public.notes to anon, authenticated")
        shared.rows("create policy open on public.notes using (true)")
        shared.rows("create function public.hello() returns text language sql as 'select $$x$$'")
        assert _findings(shared) == set()


@pytest.mark.parametrize("tampering", TAMPERING)
def test_tampering_is_found_and_mended(shared: Project, tampering: str) -> None:
    """Each kind has a line; applying the access scripts again undoes it, as the doctor advises."""
    with shared.owner.transaction(force_rollback=True):
        shared.rows(tampering)
        assert TAMPERING[tampering] in _findings(shared)
        for migration in migrations():
            if "access" in migration.name:
                shared.owner.execute(migration.sql.encode())
        assert _findings(shared) == set()
