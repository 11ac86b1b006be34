-- Who dispatches tasks: the gateways themselves ('inline'), holding each by a lease, or workers that take
-- jobs from procrastinate's queue, which lies in a schema of its own in the same database. Then the job is
-- written in the reservation's transaction, so there is never one without the other.
-- Its functions name their tables without a schema: whoever calls them has to set the search path.

-- The queueing lock names the task, and lets no two jobs of one wait. There is no other lock: with one,
-- procrastinate compares every job that waits with every other before it hands one out. Should two jobs of
-- a task run at once, its attempts tell them apart.
create or replace function s3edge.enqueue(p_task_id uuid) returns void
language plpgsql security definer set search_path = 'procrastinate', 'pg_temp'
as $$
begin
    perform procrastinate_defer_jobs_v1(array[row(
        's3edge', 's3edge.dispatch', 0, null, p_task_id::text,
        jsonb_build_object('task_id', p_task_id), null
    )::procrastinate_job_to_defer_v1]);
end
$$;

-- Queues open tasks that have no job: of a server that inserted the row by itself, of a job that somebody
-- removed, or from before the queue was there. Returns how many.
create or replace function s3edge.enqueue_forgotten(p_limit integer) returns integer
language plpgsql security definer set search_path = 'procrastinate', 'pg_temp'
as $$
declare
    v_task_id uuid;
    v_count integer := 0;
begin
    -- Two at once would queue a task twice, which the queue refuses.
    perform pg_advisory_xact_lock(hashtext('s3edge.enqueue_forgotten'));
    for v_task_id in
        select t.id from public.segmentation_results t
        where t.status in ('pending', 'processing') and t.id in (
            -- As sets, whatever the planner knows of the tables: a job for each task would be looked up
            -- one by one otherwise, in thousands that wait.
            select open.id::uuid from (
                select o.id::text as id from public.segmentation_results o
                where o.status in ('pending', 'processing')
                except
                select j.queueing_lock from procrastinate_jobs j
                where j.queueing_lock is not null and j.status in ('todo', 'doing')
            ) open
            limit p_limit
        )
        order by t.id
        for update skip locked
    loop
        perform s3edge.enqueue(v_task_id);
        v_count := v_count + 1;
    end loop;
    return v_count;
end
$$;

-- Begins the next attempt at a task, whoever held it; nothing for one that has ended.
create or replace function s3edge.take_task(p_task_id uuid)
returns setof public.segmentation_results
language sql security definer set search_path = ''
as $$
    update public.segmentation_results t
    set attempt = t.attempt + 1
    where t.id = p_task_id and t.status in ('pending', 'processing')
    returning t.*
$$;

create or replace function s3edge.set_dispatch(p_dispatch text) returns void
language plpgsql security definer set search_path = ''
as $$
begin
    if p_dispatch = 'procrastinate'
        and to_regtype('procrastinate.procrastinate_job_to_defer_v1') is null
    then
        raise sqlstate 'PT412' using message = 'no_queue';
    end if;
    update s3edge.settings set dispatch = p_dispatch where dispatch is distinct from p_dispatch;
end
$$;

-- As before, and leaves out whose profile somebody else holds just now: nobody's refund waits for
-- another user's.
create or replace function s3edge.settle_overdue(p_user_id uuid) returns setof uuid
language plpgsql security definer set search_path = ''
as $$
declare
    v_now timestamptz := s3edge.now();
    v_task_id uuid;
    v_user_id uuid;
begin
    for v_task_id, v_user_id in
        select t.id, t.user_id from public.segmentation_results t
        where t.status in ('pending', 'processing') and t.deadline_at <= v_now
            and (p_user_id is null or t.user_id = p_user_id)
        order by t.user_id, t.id
        limit 500
        for update skip locked
    loop
        perform from public.users_profile where id = v_user_id for no key update skip locked;
        continue when not found;
        update public.segmentation_results
        set status = 'error', error_code = 'INFERENCE_FAILED',
            error_message = 'The segmentation was not answered in time; its credits were returned.'
        where id = v_task_id;
        return next v_task_id;
    end loop;
end
$$;

create or replace function s3edge.check_request(
    p_task_id uuid,
    p_image_url text,
    p_text_prompt text,
    p_idempotency_key text,
    p_request_hash text
) returns void
language plpgsql immutable set search_path = ''
as $$
begin
    -- The gateway has checked all of it, and more. But users can call this by themselves.
    if p_task_id is null
        or p_image_url is null or length(p_image_url) not between 1 and 2048
        or p_text_prompt is null or length(p_text_prompt) not between 1 and 500
        or p_text_prompt ~ '[[:cntrl:]]' or p_text_prompt !~ '[^[:space:]]'
        or length(p_idempotency_key) not between 1 and 255
        or length(p_request_hash) > 64
        or (p_idempotency_key is not null and p_request_hash is null)
    then
        raise sqlstate 'PT400' using message = 'invalid_request';
    end if;
end
$$;

-- As before, and queues the task where there is a queue.
create or replace function s3edge.reserve_task(
    p_user_id uuid,
    p_task_id uuid,
    p_image_url text,
    p_text_prompt text,
    p_project_id uuid,
    p_idempotency_key text,
    p_request_hash text
) returns jsonb
language plpgsql security definer set search_path = ''
as $$
declare
    v_now timestamptz := s3edge.now();
    v_settings s3edge.settings;
    v_task public.segmentation_results;
    v_credits bigint;
begin
    perform s3edge.check_request(
        p_task_id, p_image_url, p_text_prompt, p_idempotency_key, p_request_hash
    );
    select * into v_settings from s3edge.settings;
    perform s3edge.ensure_profile(p_user_id);

    insert into public.segmentation_results (
        id, user_id, project_id, source_image_url, text_prompt, labels, metadata, status, cost,
        idempotency_key, request_hash, lease_until, deadline_at, created_at, updated_at
    )
    select
        p_task_id, p_user_id, p_project_id, p_image_url, p_text_prompt, '[]', '{}', 'pending',
        v_settings.segment_cost, p_idempotency_key, p_request_hash,
        v_now + interval '15 seconds',
        v_now + make_interval(secs => v_settings.task_deadline_s),
        v_now, v_now
    where p_project_id is null or exists (
        select from public.projects p where p.id = p_project_id and p.user_id = p_user_id
    )
    on conflict do nothing
    returning * into v_task;

    if not found then
        return s3edge.earlier_reservation(
            p_user_id, p_task_id, p_project_id, p_idempotency_key, p_request_hash
        );
    end if;

    -- Waits for a concurrent debit, then looks at the balance that it left.
    update public.users_profile p set credits = p.credits - v_task.cost
    where p.id = p_user_id and p.credits >= v_task.cost
    returning p.credits into v_credits;
    if not found then
        select p.credits into v_credits from public.users_profile p where p.id = p_user_id;
        raise sqlstate 'PT402' using
            message = 'insufficient_credits',
            detail = jsonb_build_object('cost', v_task.cost, 'credits', v_credits);
    end if;

    insert into public.usage_logs (user_id, task_id, action, credits_used, created_at)
    values (p_user_id, v_task.id, 'segment', v_task.cost, v_now);

    if v_settings.dispatch = 'procrastinate' then
        perform s3edge.enqueue(v_task.id);
    end if;

    return jsonb_build_object('replayed', false, 'task', to_jsonb(v_task), 'credits', v_credits);
end
$$;
