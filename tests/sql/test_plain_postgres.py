"""A Postgres that is not Supabase's: of ``auth`` there is only the function that names the user."""

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from s3edge_postgres.migrations import migrations
from tests.sql.conftest import INITIAL_CREDITS, Project, Projects, opened, reservation


OWNER = "plain_owner"

LAYOUT = f"""
create schema auth;
grant usage on schema auth to public;
create function auth.uid() returns uuid language sql stable as $$
    select (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid
$$;
alter schema public owner to {OWNER};
"""


@pytest.fixture(scope="module")
def plain(projects: Projects) -> Iterator[Project]:
    """Make a database whose owner may bypass no policy but those of tables of its own."""
    database = projects.server.database("plain")
    server_url = projects.server.database("postgres").url("superuser")
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(
            sql.SQL("create role {} login password {}").format(
                sql.Identifier(OWNER), sql.Literal(database.password)
            )
        )
        server.execute(
            sql.SQL("create database {} owner {}").format(
                sql.Identifier(database.name), sql.Identifier(OWNER)
            )
        )
    database.apply(LAYOUT, "superuser")
    url = database.url("postgres").replace("//postgres:", f"//{OWNER}:")
    with opened(database, url) as project:
        for migration in migrations():
            with project.owner.transaction():
                project.owner.execute(migration.sql.encode())
        yield project
    projects.server.drop_database(database.name)


def test_a_profile_is_made_at_the_first_reservation(plain: Project) -> None:
    """Whoever a token names is a user, and begins with the initial credits."""
    user, other = plain.user(uuid4()), plain.user(uuid4())
    assert user.run("select * from public.users_profile") == []
    assert user.reserve()["credits"] == INITIAL_CREDITS - 1
    assert user.run("select credits, credits_granted from public.users_profile") == [(99, 100)]
    for table in ("users_profile", "segmentation_results", "usage_logs"):
        assert other.run(f"select * from public.{table}") == []
    plain.assert_books()


def test_a_grant_makes_a_profile_too(plain: Project) -> None:
    """Credits can be given to somebody who has not come yet."""
    grant = plain.service().call("s3edge_grant_credits", p_user_id=uuid4(), p_amount=5)
    assert grant == INITIAL_CREDITS + 5
    plain.assert_books()


def test_a_refund_is_made(plain: Project) -> None:
    """Functions write in the owner's tables without a right to bypass policies."""
    user = plain.user(uuid4())
    task_id = user.reserve()["task"]["id"]
    assert plain.service().call(
        "s3edge_fail_task", p_task_id=task_id, p_error_code="X", p_error_message="y"
    )
    assert plain.credits(user) == INITIAL_CREDITS
    plain.assert_books()


def test_a_refused_reservation_makes_no_profile(plain: Project) -> None:
    """A token that names anybody leaves nothing behind by a request that is refused."""
    user = plain.user(uuid4())
    error = user.call_refused("s3edge_reserve_task", **reservation(p_text_prompt=""))
    assert error.sqlstate == "PT400"
    assert user.run("select * from public.users_profile") == []


def test_the_rules_are_the_same(plain: Project, project: Project) -> None:
    """Everybody but the owner has the rights that they have on Supabase."""

    def granted(where: Project, owner: str) -> set[tuple[str, ...]]:
        return {row for row in where.access() if row[2] != owner}

    assert granted(plain, OWNER) == granted(project, "postgres")
    assert plain.service().call_set("s3edge_audit") == []
