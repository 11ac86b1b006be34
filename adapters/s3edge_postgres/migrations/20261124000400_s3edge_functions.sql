-- What the wrappers in `public` call. Each runs with the rights of its owner and one fixed search
-- path. Money moves in `reserve_task` and in the trigger `s3edge_refund`, nowhere else.
--
-- Locks are always taken in the order task, profile, log, and several of a kind in the order of their
-- ids, so that no two calls wait for each other.
-- SQLSTATE PTxyz becomes HTTP status xyz in PostgREST.

create or replace function s3edge.ensure_profile(p_user_id uuid) returns void
language plpgsql security definer set search_path = ''
as $$
declare
    v_credits bigint;
begin
    if exists (select from public.users_profile where id = p_user_id) then
        return;
    end if;
    v_credits := s3edge.starting_credits(p_user_id);
    if v_credits is null then
        raise sqlstate 'PT404' using message = 'unknown_user';
    end if;
    insert into public.users_profile (id, credits) values (p_user_id, v_credits)
    on conflict (id) do nothing;
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
        or length(p_idempotency_key) not between 1 and 255
        or length(p_request_hash) > 64
        or (p_idempotency_key is not null and p_request_hash is null)
    then
        raise sqlstate 'PT400' using message = 'invalid_request';
    end if;
end
$$;

-- Takes the credit and records the task, both or neither. Repeating a call with the same task id
-- gives the same answer, so a caller that got none may try again.
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

    return jsonb_build_object('replayed', false, 'task', to_jsonb(v_task), 'credits', v_credits);
end
$$;

-- What to answer when the task could not be inserted.
create or replace function s3edge.earlier_reservation(
    p_user_id uuid,
    p_task_id uuid,
    p_project_id uuid,
    p_idempotency_key text,
    p_request_hash text
) returns jsonb
language plpgsql security definer set search_path = ''
as $$
declare
    v_task public.segmentation_results;
    v_credits bigint;
begin
    select * into v_task from public.segmentation_results t
    where t.user_id = p_user_id and t.idempotency_key = p_idempotency_key;
    if found and v_task.request_hash is distinct from p_request_hash then
        raise sqlstate 'PT422' using message = 'idempotency_key_reused';
    end if;
    if not found then
        select * into v_task from public.segmentation_results t
        where t.id = p_task_id and t.user_id = p_user_id
            and t.idempotency_key is not distinct from p_idempotency_key
            and t.request_hash is not distinct from p_request_hash;
    end if;
    if not found then
        -- Nothing was in the way, so the project was refused; or the id is somebody else's.
        if exists (select from public.segmentation_results t where t.id = p_task_id) then
            raise sqlstate 'PT409' using message = 'task_id_taken';
        end if;
        raise sqlstate 'PT400' using message = 'unknown_project';
    end if;
    select p.credits into v_credits from public.users_profile p where p.id = p_user_id;
    return jsonb_build_object(
        'replayed', v_task.id <> p_task_id, 'task', to_jsonb(v_task), 'credits', v_credits
    );
end
$$;

create or replace function s3edge.reserve_own_task(
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
    v_user_id uuid := (select auth.uid());
begin
    if v_user_id is null then
        raise sqlstate 'PT401' using message = 'no_user';
    end if;
    return s3edge.reserve_task(
        v_user_id, p_task_id, p_image_url, p_text_prompt, p_project_id, p_idempotency_key,
        p_request_hash
    );
end
$$;

create or replace function s3edge.start_task(p_task_id uuid) returns boolean
language plpgsql security definer set search_path = ''
as $$
begin
    update public.segmentation_results set status = 'processing'
    where id = p_task_id and status = 'pending';
    return found or exists (
        select from public.segmentation_results where id = p_task_id and status = 'processing'
    );
end
$$;

create or replace function s3edge.complete_task(
    p_task_id uuid, p_mask_image_url text, p_labels jsonb, p_metadata jsonb
) returns boolean
language plpgsql security definer set search_path = ''
as $$
begin
    if p_mask_image_url is null then
        raise sqlstate 'PT400' using message = 'invalid_request';
    end if;
    update public.segmentation_results
    set status = 'done', mask_image_url = p_mask_image_url, labels = coalesce(p_labels, '[]'),
        metadata = coalesce(p_metadata, '{}')
    where id = p_task_id and status in ('pending', 'processing');
    return found;
end
$$;

-- The refund is the trigger's.
create or replace function s3edge.fail_task(
    p_task_id uuid, p_error_code text, p_error_message text
) returns boolean
language plpgsql security definer set search_path = ''
as $$
begin
    update public.segmentation_results
    set status = 'error', error_code = p_error_code, error_message = p_error_message
    where id = p_task_id and status in ('pending', 'processing');
    return found;
end
$$;

create or replace function s3edge.claim_tasks(p_limit integer, p_lease_s double precision)
returns setof public.segmentation_results
language plpgsql security definer set search_path = ''
as $$
declare
    v_now timestamptz := s3edge.now();
begin
    return query
    with free as (
        select t.id from public.segmentation_results t
        where t.status in ('pending', 'processing') and t.lease_until <= v_now
        order by t.created_at, t.id
        limit least(p_limit, 500)
        for update skip locked
    ), claimed as (
        update public.segmentation_results t
        set lease_until = v_now + make_interval(secs => p_lease_s)
        from free where t.id = free.id
        returning t.*
    )
    select * from claimed c order by c.created_at, c.id;
end
$$;

create or replace function s3edge.extend_leases(p_task_ids uuid[], p_lease_s double precision)
returns void
language sql security definer set search_path = ''
as $$
    with held as (
        select t.id from public.segmentation_results t
        where t.id = any (p_task_ids) and t.status in ('pending', 'processing')
        order by t.id
        for update
    )
    update public.segmentation_results t
    set lease_until = s3edge.now() + make_interval(secs => p_lease_s)
    from held where t.id = held.id
$$;

-- Ends overdue tasks, at most 500 a call, and returns their ids; null means everybody's.
create or replace function s3edge.settle_overdue(p_user_id uuid) returns setof uuid
language plpgsql security definer set search_path = ''
as $$
declare
    v_now timestamptz := s3edge.now();
    v_task_id uuid;
begin
    -- One by one, so that the refunds too are in the order of the users; a single statement's would
    -- be in whatever order its plan yields.
    for v_task_id in
        select t.id from public.segmentation_results t
        where t.status in ('pending', 'processing') and t.deadline_at <= v_now
            and (p_user_id is null or t.user_id = p_user_id)
        order by t.user_id, t.id
        limit 500
        for update skip locked
    loop
        update public.segmentation_results
        set status = 'error', error_code = 'INFERENCE_FAILED',
            error_message = 'The segmentation was not answered in time; its credits were returned.'
        where id = v_task_id;
        return next v_task_id;
    end loop;
end
$$;

create or replace function s3edge.settle_own_overdue() returns setof uuid
language plpgsql security definer set search_path = ''
as $$
declare
    v_user_id uuid := (select auth.uid());
begin
    if v_user_id is null then
        raise sqlstate 'PT401' using message = 'no_user';
    end if;
    return query select s3edge.settle_overdue(v_user_id);
end
$$;

create or replace function s3edge.grant_credits(p_user_id uuid, p_amount bigint) returns bigint
language plpgsql security definer set search_path = ''
as $$
declare
    v_credits bigint;
begin
    if p_amount is null or p_amount not between 1 and 1000000000 then
        raise sqlstate 'PT400' using message = 'invalid_request';
    end if;
    perform s3edge.ensure_profile(p_user_id);
    update public.users_profile
    set credits = credits + p_amount, credits_granted = credits_granted + p_amount
    where id = p_user_id
    returning credits into v_credits;
    insert into public.usage_logs (user_id, action, metadata, created_at)
    values (p_user_id, 'grant', jsonb_build_object('amount', p_amount), s3edge.now());
    return v_credits;
end
$$;

-- What the rows say of each user's money, in one snapshot. Usage from before the books began belongs
-- to no task and is left out.
create or replace function s3edge.accounts(p_after uuid, p_limit integer)
returns table (user_id uuid, credits bigint, granted bigint, used bigint, live_cost bigint)
language sql stable security definer set search_path = ''
as $$
    select
        p.id,
        p.credits::bigint,
        p.credits_granted,
        coalesce((
            select sum(l.credits_used) from public.usage_logs l
            where l.user_id = p.id and l.task_id is not null
        ), 0)::bigint,
        coalesce((
            select sum(t.cost) from public.segmentation_results t
            where t.user_id = p.id and t.status <> 'error'
        ), 0)::bigint
    from public.users_profile p
    where p_after is null or p.id > p_after
    order by p.id
    limit least(p_limit, 500)
$$;

create or replace function s3edge.configure(
    p_initial_credits bigint, p_segment_cost bigint, p_task_deadline_s integer
) returns void
language sql security definer set search_path = ''
as $$
    update s3edge.settings
    set initial_credits = p_initial_credits, segment_cost = p_segment_cost,
        task_deadline_s = p_task_deadline_s
    where (initial_credits, segment_cost, task_deadline_s)
        is distinct from (p_initial_credits, p_segment_cost, p_task_deadline_s)
$$;

create or replace function s3edge.public_settings() returns jsonb
language sql stable security definer set search_path = ''
as $$
    select jsonb_build_object(
        'initial_credits', initial_credits,
        'segment_cost', segment_cost,
        'task_deadline_s', task_deadline_s
    ) from s3edge.settings
$$;
