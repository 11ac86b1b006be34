"""The schema comes to a project that has the four tables, with rows, and goes on running."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

from s3edge.testing.standins.postgres import Database
from s3edge_postgres.migrations import migrations
from tests.sql.conftest import (
    INITIAL_CREDITS,
    TABLES,
    Project,
    Projects,
    migrate,
    only,
    reservation,
)


EARLIER_SCHEMA = """
create table public.users_profile (
    id uuid primary key references auth.users (id) on delete cascade,
    display_name text,
    avatar_url text,
    tier text default 'free' check (tier in ('free', 'pro', 'enterprise')),
    credits integer default 100,
    created_at timestamptz default now(),
    updated_at timestamptz default now()
);
create table public.projects (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references public.users_profile (id) on delete cascade,
    name text not null,
    description text,
    created_at timestamptz default now(),
    updated_at timestamptz default now()
);
create table public.segmentation_results (
    id uuid primary key default gen_random_uuid(),
    project_id uuid not null references public.projects (id) on delete cascade,
    user_id uuid not null references public.users_profile (id) on delete cascade,
    source_image_url text not null,
    mask_image_url text,
    text_prompt text,
    labels jsonb,
    metadata jsonb,
    status text default 'pending' check (status in ('pending', 'processing', 'done', 'error')),
    is_favourite boolean not null default false,
    created_at timestamptz default now(),
    updated_at timestamptz default now()
);
create table public.usage_logs (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references public.users_profile (id) on delete cascade,
    action text not null,
    credits_used integer default 0,
    metadata jsonb,
    created_at timestamptz default now()
);

alter table public.users_profile enable row level security;
alter table public.projects enable row level security;
alter table public.segmentation_results enable row level security;
alter table public.usage_logs enable row level security;

create policy "users can view own profile" on public.users_profile
for select using (auth.uid() = id);
create policy "users can update own profile" on public.users_profile
for update using (auth.uid() = id);
create policy "users manage own projects" on public.projects
for all using (auth.uid() = user_id);
create policy "users manage own results" on public.segmentation_results
for all using (auth.uid() = user_id);
create policy "users can view own usage" on public.usage_logs
for select using (auth.uid() = user_id);
create policy "usage can be logged" on public.usage_logs
for insert with check (true);

grant all on all tables in schema public to anon, authenticated, service_role;
grant update (credits, tier) on public.users_profile to authenticated;

create function public.handle_new_user() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
    insert into public.users_profile (id, display_name)
    values (new.id, new.raw_user_meta_data ->> 'nickname');
    return new;
end
$$;
create trigger on_auth_user_created after insert on auth.users
for each row execute function public.handle_new_user();

create function public.set_updated_at() returns trigger language plpgsql as $$
begin
    new.updated_at := now();
    return new;
end
$$;
create trigger set_updated_at before update on public.users_profile
for each row execute function public.set_updated_at();
create trigger set_updated_at before update on public.projects
for each row execute function public.set_updated_at();
create trigger set_updated_at before update on public.segmentation_results
for each row execute function public.set_updated_at();
"""

RICH, SPENT, UNKNOWN, IN_DEBT, WITHOUT_PROFILE, ANONYMOUS = (
    UUID(int=number) for number in range(1, 7)
)
PROJECT = UUID(int=100)
OPEN = {status: UUID(int=200 + index) for index, status in enumerate(("pending", "processing"))}
ENDED = {status: UUID(int=210 + index) for index, status in enumerate(("done", "error"))}

EARLIER_ROWS = f"""
insert into auth.users (id, email)
select id, id || '@example.test'
from unnest(array['{RICH}', '{SPENT}', '{UNKNOWN}', '{IN_DEBT}']::uuid[]) id;
update public.users_profile set display_name = 'Rich', credits = 5000, tier = 'pro'
where id = '{RICH}';
update public.users_profile set credits = 0 where id = '{SPENT}';
update public.users_profile set credits = null, tier = null where id = '{UNKNOWN}';
update public.users_profile set credits = -3 where id = '{IN_DEBT}';
insert into auth.users (id, email, is_anonymous)
values ('{WITHOUT_PROFILE}', 'without@example.test', false), ('{ANONYMOUS}', null, true);
delete from public.users_profile where id in ('{WITHOUT_PROFILE}', '{ANONYMOUS}');

insert into public.projects (id, user_id, name) values ('{PROJECT}', '{RICH}', 'Street');
insert into public.segmentation_results (
    id, project_id, user_id, source_image_url, mask_image_url, text_prompt, labels, metadata, status,
    created_at
) values
    ('{OPEN["pending"]}', '{PROJECT}', '{RICH}', 'https://s/1', null, 'car', null, null, 'pending',
        now() - interval '3 days'),
    ('{OPEN["processing"]}', '{PROJECT}', '{SPENT}', 'https://s/2', null, null, '[]', '{{}}',
        'processing', now() - interval '2 days'),
    ('{ENDED["done"]}', '{PROJECT}', '{RICH}', 'https://s/3', 'https://s/m', 'car',
        '[{{"label": "car"}}]', '{{"inference_time_ms": 3}}', 'done', now() - interval '2 days'),
    ('{ENDED["error"]}', '{PROJECT}', '{IN_DEBT}', 'https://s/4', null, 'car', null, null, 'error',
        now() - interval '1 day');
insert into public.usage_logs (user_id, action, credits_used, metadata) values
    ('{RICH}', 'segment', 1, null), ('{RICH}', 'segment', 1, '{{"note": "earlier"}}'),
    ('{IN_DEBT}', 'refund', -7, '{{}}'), ('{UNKNOWN}', 'upload', null, null);

-- As if all of it were old: a change from now on shows.
alter table public.users_profile disable trigger set_updated_at;
alter table public.segmentation_results disable trigger set_updated_at;
update public.users_profile set updated_at = '2026-01-01';
update public.segmentation_results set updated_at = '2026-01-01';
alter table public.users_profile enable trigger set_updated_at;
alter table public.segmentation_results enable trigger set_updated_at;
"""


def _earlier(database: Database) -> None:
    database.apply(EARLIER_SCHEMA)
    database.apply(EARLIER_ROWS, "superuser")


def _upgraded(database: Database) -> None:
    _earlier(database)
    migrate(database)


@pytest.fixture
def earlier(projects: Projects) -> Iterator[Project]:
    """Make a project that knows nothing of this schema yet."""
    with projects.open(projects.prepared("old_earlier", _earlier)) as project:
        yield project


@pytest.fixture
def upgraded(projects: Projects) -> Iterator[Project]:
    """Make a project that the schema has just come to."""
    with projects.open(projects.prepared("old_upgraded", _upgraded)) as project:
        yield project


def _by_id(rows: list[Any]) -> dict[UUID, dict[str, Any]]:
    return {UUID(row["id"]): row for row in rows}


def test_rows_keep_what_they_hold(earlier: Project) -> None:
    """Columns are added; what a row held, it holds, but for balances that were none."""
    before = earlier.snapshot()
    migrate(earlier.database)
    after = earlier.snapshot()
    expected_changes = {
        (UNKNOWN, "credits"): INITIAL_CREDITS,
        (IN_DEBT, "credits"): 0,
    }
    changes: dict[tuple[UUID, str], Any] = {}
    for table in TABLES:
        rows = _by_id(after[table])
        for row_id, row in _by_id(before[table]).items():
            changes |= {
                (row_id, column): rows[row_id][column]
                for column, value in row.items()
                if rows[row_id][column] != value and column != "updated_at"
            }
    assert changes == expected_changes
    # The project's own trigger dates the rows that a statement of the migration changed, no others.
    dated = {
        row_id
        for table in ("users_profile", "projects", "segmentation_results")
        for row_id, row in _by_id(before[table]).items()
        if _by_id(after[table])[row_id]["updated_at"] != row["updated_at"]
    }
    assert dated == {UNKNOWN, IN_DEBT, *OPEN.values()}
    # And no row is new but the profiles that were missing.
    new = set(_by_id(after["users_profile"])) - set(_by_id(before["users_profile"]))
    assert new == {WITHOUT_PROFILE, ANONYMOUS}
    for table in TABLES[1:]:
        assert len(after[table]) == len(before[table])


def test_everybody_begins_with_what_they_have(upgraded: Project) -> None:
    """Books begin with the balance, whatever earlier usage rows say; and they add up."""
    accounts = upgraded.rows("select * from s3edge.accounts(null, 500)")
    assert accounts == [
        (RICH, 5000, 5000, 0, 0),
        (SPENT, 0, 0, 0, 0),
        (UNKNOWN, INITIAL_CREDITS, INITIAL_CREDITS, 0, 0),
        (IN_DEBT, 0, 0, 0, 0),
        (WITHOUT_PROFILE, INITIAL_CREDITS, INITIAL_CREDITS, 0, 0),
        (ANONYMOUS, 0, 0, 0, 0),
    ]
    rich = upgraded.user(RICH)
    rich.reserve(p_project_id=PROJECT)
    upgraded.service().call("s3edge_fail_task", **_failure(rich.reserve()["task"]["id"]))
    assert upgraded.credits(rich) == 4999
    upgraded.assert_books()


def _failure(task_id: object) -> dict[str, object]:
    return {"p_task_id": task_id, "p_error_code": "INFERENCE_FAILED", "p_error_message": "No."}


def test_unfinished_tasks_end_without_a_refund(upgraded: Project) -> None:
    """Nobody answers the tasks from before; they were not paid here, so nothing is given back."""
    accounts = upgraded.rows("select * from s3edge.accounts(null, 500)")
    usage = upgraded.snapshot()["usage_logs"]
    settled = upgraded.service().call_set("s3edge_settle_overdue")
    assert {row[0] for row in settled} == set(OPEN.values())
    for task_id in OPEN.values():
        task = upgraded.task(task_id)
        assert (task["status"], task["cost"]) == ("error", 0)
        assert (task["error_code"], task["mask_image_url"]) == ("INFERENCE_FAILED", None)
    assert upgraded.rows("select * from s3edge.accounts(null, 500)") == accounts
    assert upgraded.snapshot()["usage_logs"] == usage


@pytest.mark.parametrize("status", ["done", "error"])
def test_ended_tasks_stay_as_they_are(upgraded: Project, status: str) -> None:
    """An outcome from before is as final as a new one, whatever triggers the project has."""
    before = upgraded.task(ENDED[status])
    upgraded.service().run(
        "update public.segmentation_results set status = 'processing', labels = '[1]' where id = %s",
        ENDED[status],
    )
    assert upgraded.task(ENDED[status]) == before
    assert upgraded.service().call_set("s3edge_claim_tasks", p_limit=9, p_lease_s=1) != []
    assert upgraded.task(ENDED[status]) == before


def test_the_projects_own_columns_stay_its_own(upgraded: Project) -> None:
    """A column that is none of ours can be written, also in a task that ended."""
    upgraded.service().run(
        "update public.segmentation_results set is_favourite = true where id = %s", ENDED["done"]
    )
    assert upgraded.task(ENDED["done"])["is_favourite"] is True


def test_unsafe_policies_are_gone(earlier: Project) -> None:
    """What users could do to their credits and to others' usage before, they cannot after."""
    rich = earlier.user(RICH)
    forgeries = [
        f"update public.users_profile set credits = 999999, tier = 'enterprise' where id = '{RICH}'",
        f"insert into public.usage_logs (user_id, action, credits_used) values ('{SPENT}', 'x', -9)",
        f"update public.segmentation_results set mask_image_url = 'x' where user_id = '{RICH}'",
    ]
    for forgery in forgeries:
        rich.trying().run(forgery)
    migrate(earlier.database)
    for forgery in forgeries:
        assert rich.refused(forgery).sqlstate == "42501"
    policies = earlier.rows("select policyname from pg_policies where schemaname = 'public'")
    assert {name for (name,) in policies} == {
        "s3edge_read_own",
        "s3edge_update_own",
        "s3edge_manage_own",
    }


def test_dropped_policies_are_named(earlier: Project) -> None:
    """Whoever applies the schema reads which policies it took away."""
    notices: list[str] = []
    with psycopg.connect(earlier.database.url("postgres")) as connection:
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
        for migration in migrations():
            connection.execute(migration.sql.encode())
    dropped = [notice for notice in notices if notice.startswith("dropping policy")]
    assert 'dropping policy "usage can be logged" on usage_logs' in dropped
    assert len(dropped) == 6


def test_access_is_that_of_a_fresh_project(upgraded: Project, project: Project) -> None:
    """The tables' earlier life leaves nothing behind that somebody may do."""
    assert upgraded.access() == project.access()


@pytest.mark.parametrize("anonymous", [False, True])
def test_sign_up_works_with_two_triggers(upgraded: Project, *, anonymous: bool) -> None:
    """The project's own trigger makes the profile; the credits are those of the rule."""
    user_id = upgraded.sign_up(anonymous=anonymous, metadata={"nickname": "Ada", "name": "A."})
    [profile] = upgraded.rows(
        "select display_name, credits, credits_granted from public.users_profile where id = %s",
        user_id,
    )
    given = 0 if anonymous else INITIAL_CREDITS
    assert profile == ("Ada", given, given)
    upgraded.assert_books()


def test_profiles_without_a_user_stay(earlier: Project) -> None:
    """Where nothing tied profiles to users, some may have none; from now on they go together."""
    nobody = UUID(int=99)
    earlier.rows("alter table public.users_profile drop constraint users_profile_id_fkey")
    earlier.rows("insert into public.users_profile (id, credits) values (%s, 5)", nobody)
    migrate(earlier.database)
    user = earlier.user(nobody)
    assert user.reserve()["credits"] == 4
    earlier.as_auth("delete from auth.users where id = %s", RICH)
    profiles = earlier.rows("select id from public.users_profile order by id")
    assert [row[0] for row in profiles] == [
        *(SPENT, UNKNOWN, IN_DEBT, WITHOUT_PROFILE, ANONYMOUS),
        nobody,
    ]
    earlier.assert_books()


def test_a_project_is_deleted_without_its_results(upgraded: Project) -> None:
    """A user deletes a project of theirs that holds paid tasks; the results stay, without it."""
    rich = upgraded.user(RICH)
    task_id = rich.reserve(p_project_id=PROJECT)["task"]["id"]
    rich.run("delete from public.projects where id = %s", PROJECT)
    assert upgraded.rows("select id from public.projects") == []
    assert upgraded.task(task_id)["project_id"] is None
    assert upgraded.task(ENDED["done"])["project_id"] is None
    upgraded.assert_books()


def test_tasks_need_no_project(upgraded: Project) -> None:
    """The earlier table asked for one."""
    task = upgraded.user(SPENT)
    error = task.call_refused("s3edge_reserve_task", **reservation())
    assert error.sqlstate == "PT402"
    newcomer = upgraded.user()
    assert newcomer.reserve()["task"]["project_id"] is None


def test_deleting_a_user_takes_all_of_it(upgraded: Project) -> None:
    """Rows from before and rows from after go with their user; others' stay."""
    rich = upgraded.user(RICH)
    rich.reserve()
    upgraded.as_auth("delete from auth.users where id = %s", RICH)
    rows = upgraded.snapshot()
    assert str(RICH) not in str(rows)
    assert only(upgraded.rows("select count(*) from public.users_profile")) == 5
    upgraded.assert_books()


def test_results_from_before_are_counted(upgraded: Project) -> None:
    """A list by offset reads the counts."""
    assert upgraded.rows(
        "select user_id, sum(count)::integer from s3edge.result_counts group by 1 order by 1"
    ) == [(RICH, 2), (SPENT, 1), (IN_DEBT, 1)]
