-- The contract's tables (section 3), for SQLite. Ids are text, times are microseconds since 1970 in
-- UTC. Projects live with the app's own data; here a project is a label on its owner's rows.

create table users_profile (
    id text primary key,
    credits integer not null check (credits >= 0),
    credits_granted integer not null check (credits_granted >= 0),
    created_at integer not null,
    updated_at integer not null
) strict, without rowid;

create table segmentation_results (
    id text primary key,
    user_id text not null references users_profile (id),
    project_id text,
    source_image_url text not null,
    mask_image_url text,
    text_prompt text not null,
    labels text not null default '[]',
    metadata text not null default '{}',
    status text not null check (status in ('pending', 'processing', 'done', 'error')),
    error_code text,
    error_message text,
    cost integer not null check (cost >= 0),
    idempotency_key text,
    request_hash text,
    lease_until integer not null,
    deadline_at integer not null,
    created_at integer not null,
    updated_at integer not null
) strict, without rowid;

create unique index segmentation_results_idempotency
    on segmentation_results (user_id, idempotency_key) where idempotency_key is not null;

create index segmentation_results_newest
    on segmentation_results (user_id, created_at desc, id desc);

create index segmentation_results_newest_of_project
    on segmentation_results (user_id, project_id, created_at desc, id desc)
    where project_id is not null;

create index segmentation_results_open_lease
    on segmentation_results (lease_until) where status in ('pending', 'processing');

create index segmentation_results_open_deadline
    on segmentation_results (deadline_at) where status in ('pending', 'processing');

create table usage_logs (
    id integer primary key,
    user_id text not null references users_profile (id),
    task_id text references segmentation_results (id),
    action text not null check (action in ('segment', 'refund', 'grant')),
    credits_used integer not null,
    metadata text not null default '{}',
    created_at integer not null
) strict;

create index usage_logs_of_user on usage_logs (user_id, created_at);

-- A task is charged once and refunded at most once, whatever the code above does.
create unique index usage_logs_once_a_task on usage_logs (task_id, action) where task_id is not null;
