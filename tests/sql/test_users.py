"""How users come and go, and what they begin with."""

from uuid import UUID

import pytest

from tests.sql.conftest import INITIAL_CREDITS, Project, reservation


def _become_known(project: Project, user_id: UUID) -> None:
    """Do what Supabase Auth does when somebody anonymous gives an identity."""
    project.as_auth(
        "update auth.users set email = %s, is_anonymous = false where id = %s",
        f"{user_id}@example.test",
        user_id,
    )


def test_whoever_signs_up_has_a_profile(shared: Project) -> None:
    """With the initial credits, and the name and picture that their identity came with."""
    user_id = shared.sign_up(metadata={"full_name": "Ada", "avatar_url": "https://a"})
    assert shared.user(user_id).run(
        "select id, display_name, avatar_url, tier, credits, credits_granted"
        " from public.users_profile"
    ) == [(user_id, "Ada", "https://a", "free", INITIAL_CREDITS, INITIAL_CREDITS)]
    assert shared.usage(shared.user(user_id)) == []


def test_somebody_anonymous_begins_with_nothing(shared: Project) -> None:
    """Anonymous sign-ins cost nothing, so they earn nothing."""
    user = shared.user(shared.sign_up(anonymous=True))
    assert shared.credits(user) == 0
    assert user.call_refused("s3edge_reserve_task", **reservation()).sqlstate == "PT402"


def test_an_identity_earns_the_initial_credits_once(shared: Project) -> None:
    """However often it is taken away and given again."""
    user_id = shared.sign_up(anonymous=True)
    user = shared.user(user_id)
    for _ in range(3):
        _become_known(shared, user_id)
        assert shared.credits(user) == INITIAL_CREDITS
        shared.as_auth("update auth.users set is_anonymous = true where id = %s", user_id)
    assert user.run("select action, credits_used, metadata from public.usage_logs") == [
        ("grant", 0, {"amount": INITIAL_CREDITS})
    ]
    account = shared.rows("select * from s3edge.accounts(null, 500) where user_id = %s", user_id)
    assert account == [(user_id, INITIAL_CREDITS, INITIAL_CREDITS, 0, 0)]


def test_an_identity_earns_nothing_twice(shared: Project) -> None:
    """Somebody who spent all and then changes their identity does not begin again."""
    user_id = shared.sign_up()
    user = shared.user(user_id)
    for _ in range(3):
        user.reserve()
    _become_known(shared, user_id)
    shared.as_auth("update auth.users set email = 'new' || email where id = %s", user_id)
    assert shared.credits(user) == INITIAL_CREDITS - 3


@pytest.mark.parametrize("anonymous", [False, True])
def test_a_profile_that_is_missing_is_made(shared: Project, *, anonymous: bool) -> None:
    """At the first reservation, with what the user would have begun with."""
    user = shared.user(shared.sign_up(anonymous=anonymous))
    shared.service().run("delete from public.users_profile where id = %s", user.claims["sub"])
    if anonymous:
        assert user.call_refused("s3edge_reserve_task", **reservation()).sqlstate == "PT402"
        assert user.run("select * from public.users_profile") == []
    else:
        assert user.reserve()["credits"] == INITIAL_CREDITS - 1


def test_an_anonymous_profile_made_by_others_begins_with_nothing(shared: Project) -> None:
    """The column's default is for users who gave an identity, whoever inserts the row."""
    user = shared.user(shared.sign_up(anonymous=True))
    service = shared.service()
    service.run("delete from public.users_profile where id = %s", user.claims["sub"])
    service.run("insert into public.users_profile (id) values (%s)", user.claims["sub"])
    assert shared.credits(user) == 0
    _become_known(shared, UUID(str(user.claims["sub"])))
    assert shared.credits(user) == INITIAL_CREDITS


def test_where_newcomers_get_nothing_an_identity_earns_nothing(project: Project) -> None:
    """The initial credits are what the setting says at that moment, also none."""
    project.service().call(
        "s3edge_configure", p_initial_credits=0, p_segment_cost=1, p_task_deadline_s=900
    )
    user_id = project.sign_up(anonymous=True)
    user = project.user(user_id)
    _become_known(project, user_id)
    assert (project.credits(user), project.usage(user)) == (0, [])
    assert project.credits(project.user()) == 0
    project.assert_books()


def test_a_deleted_user_goes_with_all_rows(project: Project) -> None:
    """Profile, projects, tasks in every state and usage; another user's rows stay."""
    user, other, service = project.user(), project.user(), project.service()
    for caller in (user, other):
        project_id = caller.value("insert into public.projects (name) values ('x') returning id")
        tasks = [caller.reserve(p_project_id=project_id)["task"]["id"] for _ in range(4)]
        for task_id, status in zip(tasks, ("processing", "done", "error"), strict=False):
            service.run(
                "update public.segmentation_results set status = %s where id = %s", status, task_id
            )
    before = project.snapshot()
    project.as_auth("delete from auth.users where id = %s", user.claims["sub"])
    after = project.snapshot()
    assert {len(rows) for rows in before.values()} == {2, 8, 10}
    for table, rows in after.items():
        owner = "id" if table == "users_profile" else "user_id"
        assert rows == [row for row in before[table] if row[owner] == other.claims["sub"]]
    project.assert_books()
