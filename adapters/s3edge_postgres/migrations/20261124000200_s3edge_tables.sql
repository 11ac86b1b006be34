-- The four tables, and what dispatch and money need besides. Where they exist, columns are added and
-- the rows that are there keep everything they hold.

create table if not exists public.users_profile (
    id uuid primary key,
    display_name text,
    avatar_url text,
    tier text not null default 'free',
    credits bigint not null default 100,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

create table if not exists public.projects (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references public.users_profile (id) on delete cascade,
    name text not null,
    description text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

create table if not exists public.segmentation_results (
    id uuid primary key default gen_random_uuid(),
    project_id uuid references public.projects (id) on delete set null,
    user_id uuid not null references public.users_profile (id) on delete cascade,
    source_image_url text not null,
    mask_image_url text,
    text_prompt text not null,
    labels jsonb not null default '[]',
    metadata jsonb not null default '{}',
    status text not null default 'pending'
        check (status in ('pending', 'processing', 'done', 'error')),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

create table if not exists public.usage_logs (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references public.users_profile (id) on delete cascade,
    action text not null,
    credits_used bigint not null default 0,
    metadata jsonb not null default '{}',
    created_at timestamptz not null default now()
);

-- Users.

update public.users_profile set credits = greatest(coalesce(credits, s3edge.initial_credits()), 0)
where credits is null or credits < 0;

-- The books begin here: what somebody has now is what they were given. An update would fire the
-- project's own triggers, and every row would look edited.
do $$
begin
    if not exists (
        select from pg_catalog.pg_attribute
        where attrelid = 'public.users_profile'::regclass and attname = 'credits_granted'
    ) then
        alter table public.users_profile add column credits_granted bigint;
        alter table public.users_profile alter column credits_granted type bigint using credits;
    end if;
end
$$;

alter table public.users_profile
    alter column credits set default s3edge.initial_credits(),
    alter column credits set not null,
    alter column credits_granted set not null,
    drop constraint if exists s3edge_credits_not_negative,
    add constraint s3edge_credits_not_negative check (credits >= 0);

-- Projects.

alter table public.projects alter column user_id set default auth.uid();

create index if not exists s3edge_projects_of_user on public.projects (user_id);

-- Results, which are also the tasks. Those from before were not paid, so nothing is given back for
-- them; the unfinished ones are overdue and end in error.

alter table public.segmentation_results
    alter column project_id drop not null,
    add column if not exists cost bigint not null default 0,
    add column if not exists idempotency_key text,
    add column if not exists request_hash text,
    add column if not exists error_code text,
    add column if not exists error_message text,
    add column if not exists lease_until timestamptz not null default now();

do $$
begin
    -- Only once: later, a task that is free of charge may be a new one.
    if not exists (
        select from pg_catalog.pg_attribute
        where attrelid = 'public.segmentation_results'::regclass and attname = 'deadline_at'
    ) then
        alter table public.segmentation_results
        add column deadline_at timestamptz not null default now() + interval '15 minutes';
        update public.segmentation_results
        set deadline_at = coalesce(created_at, now()) + interval '15 minutes'
        where status in ('pending', 'processing');
    end if;
end
$$;

-- A user may delete a project of theirs, but not a task that was paid (see below), so the project goes
-- without its results.
do $$
declare
    v_constraint name;
begin
    for v_constraint in
        select conname from pg_catalog.pg_constraint
        where contype = 'f' and confdeltype <> 'n' and cardinality(conkey) = 1
            and conrelid = 'public.segmentation_results'::regclass
            and confrelid = 'public.projects'::regclass
    loop
        execute format(
            'alter table public.segmentation_results drop constraint %I, add constraint %I'
            ' foreign key (project_id) references public.projects (id) on delete set null',
            v_constraint, v_constraint
        );
    end loop;
end
$$;

alter table public.segmentation_results
    drop constraint if exists s3edge_cost_not_negative,
    add constraint s3edge_cost_not_negative check (cost >= 0);

create unique index if not exists s3edge_results_idempotency
    on public.segmentation_results (user_id, idempotency_key) where idempotency_key is not null;

create index if not exists s3edge_results_newest
    on public.segmentation_results (user_id, created_at desc, id desc);

create index if not exists s3edge_results_newest_of_project
    on public.segmentation_results (project_id, user_id, created_at desc, id desc);

create index if not exists s3edge_results_open_lease
    on public.segmentation_results (lease_until) where status in ('pending', 'processing');

create index if not exists s3edge_results_open_deadline
    on public.segmentation_results (deadline_at) where status in ('pending', 'processing');

-- Usage. A task that was paid cannot be deleted by itself, or the books would not add up; it goes
-- with its user.

alter table public.usage_logs
    add column if not exists task_id uuid references public.segmentation_results (id);

create index if not exists s3edge_usage_of_user on public.usage_logs (user_id, created_at);

-- A task is charged once and refunded at most once, whatever the functions do.
create unique index if not exists s3edge_usage_once_a_task
    on public.usage_logs (task_id, action) where task_id is not null;
