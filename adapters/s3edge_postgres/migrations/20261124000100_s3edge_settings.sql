-- The schema of everything that is not for users. PostgREST does not expose it: what users may call
-- stands in `public`, as thin wrappers (20261124000500_s3edge_rpc.sql).
--
-- These files are applied in the order of their names, each once, by `supabase db push` or by psql as
-- the role `postgres`. They fit an empty project and one that has the four tables with data in them.

create schema if not exists s3edge;

-- Prices and times are read in here and are never an argument of what users can call.
create table if not exists s3edge.settings (
    only_row boolean primary key default true check (only_row),
    initial_credits bigint not null default 100 check (initial_credits >= 0),
    segment_cost bigint not null default 1 check (segment_cost >= 0),
    task_deadline_s integer not null default 900 check (task_deadline_s > 0)
);

insert into s3edge.settings default values on conflict do nothing;

-- The one place that tells the time.
create or replace function s3edge.now() returns timestamptz
language sql volatile set search_path = ''
as 'select clock_timestamp()';

create or replace function s3edge.initial_credits() returns bigint
language sql stable security definer set search_path = ''
as 'select initial_credits from s3edge.settings';
