-- Attempts. Whoever leases a task gets the next number, and says it with all that they write about the
-- task: a process that was thought dead and comes back changes nothing any more (a fencing token).
-- The functions without a number stay, for inference servers: they know a task and no attempts, and
-- their answer is as good as any, so the first one wins.

alter table public.segmentation_results
    add column if not exists attempt integer not null default 1;

-- Who dispatches tasks: see 20261126000300_s3edge_dispatch.sql. Leases mean something to gateways only.
alter table s3edge.settings
    add column if not exists dispatch text not null default 'inline'
        check (dispatch in ('inline', 'procrastinate'));

create or replace function s3edge.start_attempt(p_task_id uuid, p_attempt integer) returns boolean
language plpgsql security definer set search_path = ''
as $$
begin
    update public.segmentation_results set status = 'processing'
    where id = p_task_id and attempt = p_attempt and status = 'pending';
    return found or exists (
        select from public.segmentation_results
        where id = p_task_id and attempt = p_attempt and status = 'processing'
    );
end
$$;

create or replace function s3edge.complete_attempt(
    p_task_id uuid, p_attempt integer, p_mask_image_url text, p_labels jsonb, p_metadata jsonb
) returns boolean
language plpgsql security definer set search_path = ''
as $$
begin
    -- Waits for whoever is leasing the task, then looks at the number that they left.
    perform from public.segmentation_results
    where id = p_task_id and attempt = p_attempt
    for update;
    return found and s3edge.complete_task(p_task_id, p_mask_image_url, p_labels, p_metadata);
end
$$;

create or replace function s3edge.fail_attempt(
    p_task_id uuid, p_attempt integer, p_error_code text, p_error_message text
) returns boolean
language plpgsql security definer set search_path = ''
as $$
begin
    perform from public.segmentation_results
    where id = p_task_id and attempt = p_attempt
    for update;
    return found and s3edge.fail_task(p_task_id, p_error_code, p_error_message);
end
$$;

create or replace function s3edge.claim_tasks(p_limit integer, p_lease_s double precision)
returns setof public.segmentation_results
language plpgsql security definer set search_path = ''
as $$
declare
    v_now timestamptz := s3edge.now();
begin
    if (select dispatch from s3edge.settings) <> 'inline' then
        return;
    end if;
    return query
    with free as (
        select t.id from public.segmentation_results t
        where t.status in ('pending', 'processing') and t.lease_until <= v_now
        order by t.created_at, t.id
        limit least(p_limit, 500)
        for update skip locked
    ), claimed as (
        update public.segmentation_results t
        set lease_until = v_now + make_interval(secs => p_lease_s), attempt = t.attempt + 1
        from free where t.id = free.id
        returning t.*
    )
    select * from claimed c order by c.created_at, c.id;
end
$$;

-- Holds tasks for some seconds from now, or lets go of them (0 seconds), where the attempt is still the
-- latest. The arrays belong together, place by place.
create or replace function s3edge.hold_attempts(
    p_task_ids uuid[], p_attempts integer[], p_lease_s double precision
) returns void
language sql security definer set search_path = ''
as $$
    with held as (
        select t.id from public.segmentation_results t
        join unnest(p_task_ids, p_attempts) a (task_id, attempt)
            on a.task_id = t.id and a.attempt = t.attempt
        where t.status in ('pending', 'processing')
        order by t.id
        for update of t
    )
    update public.segmentation_results t
    set lease_until = s3edge.now() + make_interval(secs => p_lease_s)
    from held where t.id = held.id
$$;

-- How many tasks have not ended; at most p_limit, so that counting never takes long.
create or replace function s3edge.backlog(p_limit integer) returns integer
language sql stable security definer set search_path = ''
as $$
    select count(*)::integer from (
        select from public.segmentation_results t
        where t.status in ('pending', 'processing')
        limit p_limit
    ) open
$$;

create or replace function public.s3edge_start_attempt(p_task_id uuid, p_attempt integer)
returns boolean
language sql volatile set search_path = ''
as 'select s3edge.start_attempt(p_task_id, p_attempt)';

create or replace function public.s3edge_complete_attempt(
    p_task_id uuid, p_attempt integer, p_mask_image_url text, p_labels jsonb, p_metadata jsonb
) returns boolean
language sql volatile set search_path = ''
as 'select s3edge.complete_attempt(p_task_id, p_attempt, p_mask_image_url, p_labels, p_metadata)';

create or replace function public.s3edge_fail_attempt(
    p_task_id uuid, p_attempt integer, p_error_code text, p_error_message text
) returns boolean
language sql volatile set search_path = ''
as 'select s3edge.fail_attempt(p_task_id, p_attempt, p_error_code, p_error_message)';

create or replace function public.s3edge_hold_attempts(
    p_task_ids uuid[], p_attempts integer[], p_lease_s double precision
) returns void
language sql volatile set search_path = ''
as 'select s3edge.hold_attempts(p_task_ids, p_attempts, p_lease_s)';

create or replace function public.s3edge_backlog(p_limit integer) returns integer
language sql stable set search_path = ''
as 'select s3edge.backlog(p_limit)';

create or replace function public.s3edge_schema_version() returns integer
language sql immutable set search_path = ''
as 'select 2';
