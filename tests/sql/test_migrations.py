"""The scripts: where they can be applied, and what applying them again or in vain does."""

import re
from collections.abc import Iterator

import psycopg
import pytest

from s3edge.rules.schema import SCHEMA_VERSION
from s3edge.testing.standins.postgres import GrantDefaults
from s3edge_postgres.migrations import migrations
from tests.sql.conftest import INITIAL_CREDITS, Project, Projects, migrate


@pytest.fixture(params=["old", "new"])
def bare(projects: Projects, request: pytest.FixtureRequest) -> Iterator[Project]:
    """Make a Supabase project in which nothing has been made yet."""
    with projects.open(projects.bare(request.param)) as project:
        yield project


def test_scripts_are_in_order() -> None:
    """Their names sort as Supabase orders migrations: by a timestamp of 14 digits."""
    names = [migration.name for migration in migrations()]
    assert names == sorted(names)
    assert len({name[:14] for name in names}) == len(names)
    assert all(name[:14].isdigit() and name[14] == "_" for name in names)


def test_a_fresh_project_works(bare: Project) -> None:
    """Whatever new tables and functions are granted to by default."""
    migrate(bare.database)
    assert bare.anon().call("s3edge_schema_version") == SCHEMA_VERSION
    user = bare.user()
    assert user.reserve()["credits"] == INITIAL_CREDITS - 1
    assert bare.service().call_set("s3edge_audit") == []
    bare.assert_books()


def test_grant_defaults_make_no_difference(projects: Projects) -> None:
    """Both kinds of projects end with the same privileges and policies, of every role."""
    kinds: tuple[GrantDefaults, GrantDefaults] = ("old", "new")
    with (
        projects.open(projects.migrated(kinds[0])) as old,
        projects.open(projects.migrated(kinds[1])) as new,
    ):
        assert old.access() == new.access()
        assert old.shape() == new.shape()


def test_a_second_application_changes_nothing(projects: Projects) -> None:
    """Not the schema, not the rules, not a row: also with other settings, and with tasks under way."""
    with projects.open(projects.migrated()) as project:
        service, user = project.service(), project.user()
        service.call(
            "s3edge_configure", p_initial_credits=7, p_segment_cost=0, p_task_deadline_s=86400
        )
        user.reserve()
        service.call(
            "s3edge_configure", p_initial_credits=7, p_segment_cost=2, p_task_deadline_s=60
        )
        user.reserve()
        project.user()
        before = (project.shape(), project.access(), project.snapshot())
        migrate(project.database)
        assert (project.shape(), project.access(), project.snapshot()) == before
        assert project.anon().call("s3edge_settings") == {
            "initial_credits": 7,
            "segment_cost": 2,
            "task_deadline_s": 60,
        }


def test_a_script_that_fails_leaves_nothing(bare: Project) -> None:
    """Each is applied whole or not at all."""
    for migration in migrations():
        before = (bare.shape(), bare.access())
        with pytest.raises(psycopg.errors.DivisionByZero):
            bare.database.apply(f"{migration.sql};\nselect 1 / 0")
        assert (bare.shape(), bare.access()) == before
        bare.database.apply(migration.sql)
        assert (bare.shape(), bare.access()) != before


def test_every_update_says_where(shared: Project) -> None:
    """
    Supabase's API refuses an UPDATE or DELETE without WHERE, also inside a function.

    https://supabase.com/docs/guides/database/extensions (``safeupdate``), which the test server lacks.
    """
    bodies = shared.rows(
        "select p.oid::regprocedure::text, prosrc from pg_proc p"
        " where pronamespace in ('s3edge'::regnamespace, 'public'::regnamespace)"
    )
    changes = [
        (signature, statement)
        for signature, body in bodies
        for statement in re.sub("'[^']*'", "''", body).split(";")
        if "update public." in statement
        or "update s3edge." in statement
        or "delete from" in statement
    ]
    assert len(changes) >= 8
    assert [signature for signature, statement in changes if "where" not in statement] == []
