-- How many results a user has, in runs of consecutive ones: a run has all rows from its `since` up to the
-- next run's. With it a list's total, and where its page 1,000 begins, are sums over a few hundred rows
-- instead of walks over all results. Triggers keep it within each transaction that adds or removes rows.
--
-- One statement that removes some of a user's rows and adds thousands to them (a MERGE, say) is the one
-- thing that this does not follow: afterwards, `select s3edge.recount(null)`.
--
-- Exact, because only a run without a row behind it is ever split off: at the new end, or all of a
-- user's anew. Whoever changes a user's counts holds the lock on their profile meanwhile, taken before
-- looking, so that they see the runs that others have made.

create table if not exists s3edge.result_counts (
    user_id uuid not null references public.users_profile (id) on delete cascade,
    since timestamptz not null,
    count bigint not null,
    primary key (user_id, since)
) with (fillfactor = 50);

alter table s3edge.result_counts enable row level security;
revoke all on s3edge.result_counts from public, anon, authenticated, service_role;

-- How long runs become. A page costs a sum over all runs and a walk within one: for 1,000,000 results,
-- 500 rows and at most 2,000 index entries.
create or replace function s3edge.run_length() returns integer
language sql immutable set search_path = ''
as 'select 2000';

-- Counts a user's results anew; null for all users, while nobody else writes. Rows of the same moment
-- have the same rank, so no run ends between them.
create or replace function s3edge.recount(p_user_id uuid) returns void
language plpgsql security definer set search_path = ''
as $$
begin
    if p_user_id is null then
        lock table public.segmentation_results in share row exclusive mode;
    else
        perform from public.users_profile where id = p_user_id for no key update;
    end if;
    delete from s3edge.result_counts where p_user_id is null or user_id = p_user_id;
    insert into s3edge.result_counts (user_id, since, count)
    select r.user_id, case when r.run = 0 then '-infinity' else min(r.created_at) end, count(*)
    from (
        select t.user_id, t.created_at, (
            rank() over (partition by t.user_id order by t.created_at) - 1
        ) / s3edge.run_length() as run
        from public.segmentation_results t
        where t.created_at is not null and (p_user_id is null or t.user_id = p_user_id)
    ) r
    group by r.user_id, r.run
    -- Lie together, as they are read.
    order by r.user_id, r.run;
end
$$;

create or replace function s3edge.count_added() returns trigger
language plpgsql security definer set search_path = ''
as $$
declare
    v_user_id uuid;
    v_largest bigint;
begin
    for v_user_id in select distinct a.user_id from added a order by 1 loop
        perform from public.users_profile where id = v_user_id for no key update;
        with counted as (
            insert into s3edge.result_counts as c (user_id, since, count)
            select v_user_id, coalesce(run.since, '-infinity'), count(*)
            from added a left join lateral (
                select r.since from s3edge.result_counts r
                where r.user_id = v_user_id and r.since <= a.created_at
                order by r.since desc
                limit 1
            ) run on true
            where a.user_id = v_user_id and a.created_at is not null
            group by run.since
            on conflict (user_id, since) do update set count = c.count + excluded.count
            returning c.count
        )
        select max(c.count) into v_largest from counted c;
        if v_largest >= 2 * s3edge.run_length() then
            perform s3edge.recount(v_user_id);
        elsif v_largest >= s3edge.run_length() then
            insert into s3edge.result_counts (user_id, since, count)
            select v_user_id, (
                select max(t.created_at) + interval '1 microsecond'
                from public.segmentation_results t where t.user_id = v_user_id
            ), 0
            from (
                select c.count from s3edge.result_counts c
                where c.user_id = v_user_id order by c.since desc limit 1
            ) newest
            where newest.count >= s3edge.run_length()
            on conflict do nothing;
        end if;
    end loop;
    return null;
end
$$;

create or replace function s3edge.count_removed() returns trigger
language plpgsql security definer set search_path = ''
as $$
declare
    v_user_id uuid;
begin
    for v_user_id in select distinct d.user_id from removed d order by 1 loop
        perform from public.users_profile where id = v_user_id for no key update;
        update s3edge.result_counts c set count = c.count - gone.count
        from (
            select run.since, count(*) as count
            from removed d cross join lateral (
                select r.since from s3edge.result_counts r
                where r.user_id = v_user_id and r.since <= d.created_at
                order by r.since desc
                limit 1
            ) run
            where d.user_id = v_user_id
            group by run.since
        ) gone
        where c.user_id = v_user_id and c.since = gone.since;
    end loop;
    return null;
end
$$;

-- Nobody but an operator changes when a task was made. Row by row, so nothing is counted anew in here:
-- that would already see the rows whose turn is still to come.
create or replace function s3edge.count_moved() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
    perform from public.users_profile where id = new.user_id for no key update;
    update s3edge.result_counts set count = count - 1
    where user_id = new.user_id and since = (
        select max(c.since) from s3edge.result_counts c
        where c.user_id = new.user_id and c.since <= old.created_at
    );
    insert into s3edge.result_counts as c (user_id, since, count)
    select new.user_id, coalesce(max(r.since), '-infinity'), 1
    from s3edge.result_counts r
    where r.user_id = new.user_id and r.since <= new.created_at
    having new.created_at is not null
    on conflict (user_id, since) do update set count = c.count + 1;
    return null;
end
$$;

create or replace function s3edge.count_none() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
    -- Supabase refuses a delete that does not say where.
    delete from s3edge.result_counts where true;
    return null;
end
$$;

create or replace trigger s3edge_count_added after insert on public.segmentation_results
referencing new table as added
for each statement execute function s3edge.count_added();

create or replace trigger s3edge_count_removed after delete on public.segmentation_results
referencing old table as removed
for each statement execute function s3edge.count_removed();

create or replace trigger s3edge_count_moved after update on public.segmentation_results
for each row when (old.created_at is distinct from new.created_at)
execute function s3edge.count_moved();

create or replace trigger s3edge_count_none after truncate on public.segmentation_results
for each statement execute function s3edge.count_none();

revoke all on function
    s3edge.run_length(),
    s3edge.recount(uuid),
    s3edge.count_added(),
    s3edge.count_removed(),
    s3edge.count_moved(),
    s3edge.count_none()
from public, anon, authenticated, service_role;

select s3edge.recount(null);

create or replace function public.s3edge_schema_version() returns integer
language sql immutable set search_path = ''
as 'select 3';

notify pgrst, 'reload schema';
