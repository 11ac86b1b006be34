-- The RPC endpoints: wrappers with the caller's own rights around functions in a schema that PostgREST
-- does not expose. Argument names are part of the contract.

create or replace function public.s3edge_schema_version() returns integer
language sql immutable set search_path = ''
as 'select 1';

create or replace function public.s3edge_settings() returns jsonb
language sql stable set search_path = ''
as 'select s3edge.public_settings()';

create or replace function public.s3edge_reserve_task(
    p_task_id uuid,
    p_image_url text,
    p_text_prompt text,
    p_project_id uuid default null,
    p_idempotency_key text default null,
    p_request_hash text default null
) returns jsonb
language sql volatile set search_path = ''
as $$
    select s3edge.reserve_own_task(
        p_task_id, p_image_url, p_text_prompt, p_project_id, p_idempotency_key, p_request_hash
    )
$$;

create or replace function public.s3edge_settle_overdue() returns setof uuid
language plpgsql volatile set search_path = ''
as $$
begin
    -- Not a definer's function, so this is whoever asks.
    if current_user = 'service_role' then
        return query select s3edge.settle_overdue(null);
    else
        return query select s3edge.settle_own_overdue();
    end if;
end
$$;

create or replace function public.s3edge_start_task(p_task_id uuid) returns boolean
language sql volatile set search_path = ''
as 'select s3edge.start_task(p_task_id)';

create or replace function public.s3edge_complete_task(
    p_task_id uuid, p_mask_image_url text, p_labels jsonb, p_metadata jsonb
) returns boolean
language sql volatile set search_path = ''
as 'select s3edge.complete_task(p_task_id, p_mask_image_url, p_labels, p_metadata)';

create or replace function public.s3edge_fail_task(
    p_task_id uuid, p_error_code text, p_error_message text
) returns boolean
language sql volatile set search_path = ''
as 'select s3edge.fail_task(p_task_id, p_error_code, p_error_message)';

create or replace function public.s3edge_claim_tasks(p_limit integer, p_lease_s double precision)
returns setof public.segmentation_results
language sql volatile set search_path = ''
as 'select * from s3edge.claim_tasks(p_limit, p_lease_s)';

create or replace function public.s3edge_extend_leases(
    p_task_ids uuid[], p_lease_s double precision
) returns void
language sql volatile set search_path = ''
as 'select s3edge.extend_leases(p_task_ids, p_lease_s)';

create or replace function public.s3edge_grant_credits(p_user_id uuid, p_amount bigint)
returns bigint
language sql volatile set search_path = ''
as 'select s3edge.grant_credits(p_user_id, p_amount)';

create or replace function public.s3edge_accounts(
    p_after uuid default null, p_limit integer default 500
) returns table (user_id uuid, credits bigint, granted bigint, used bigint, live_cost bigint)
language sql stable set search_path = ''
as 'select * from s3edge.accounts(p_after, p_limit)';

create or replace function public.s3edge_configure(
    p_initial_credits bigint, p_segment_cost bigint, p_task_deadline_s integer
) returns void
language sql volatile set search_path = ''
as 'select s3edge.configure(p_initial_credits, p_segment_cost, p_task_deadline_s)';
