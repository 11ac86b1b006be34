-- Who may do what. Users read their own rows, manage their own projects, edit how they are shown, and
-- call two functions. Everything else is the service role's.
--
-- Written for both of Supabase's defaults: before 2026 new tables and functions were granted to
-- everybody, since then to nobody. https://supabase.com/docs/guides/api/securing-your-api

-- Policies of the tables' earlier life: permissive ones add up, so one that says too much would
-- undo those below.
do $$
declare
    v_policy record;
begin
    for v_policy in
        select policyname, tablename from pg_catalog.pg_policies
        where schemaname = 'public'
            and tablename in ('users_profile', 'projects', 'segmentation_results', 'usage_logs')
    loop
        if v_policy.policyname not like 's3edge\_%' then
            raise notice 'dropping policy "%" on %', v_policy.policyname, v_policy.tablename;
        end if;
        execute format(
            'drop policy %I on public.%I', v_policy.policyname, v_policy.tablename
        );
    end loop;
end
$$;

alter table s3edge.settings enable row level security;
alter table public.users_profile enable row level security;
alter table public.projects enable row level security;
alter table public.segmentation_results enable row level security;
alter table public.usage_logs enable row level security;

create policy s3edge_read_own on public.users_profile for select to authenticated
using ((select auth.uid()) = id);

create policy s3edge_update_own on public.users_profile for update to authenticated
using ((select auth.uid()) = id) with check ((select auth.uid()) = id);

create policy s3edge_manage_own on public.projects for all to authenticated
using ((select auth.uid()) = user_id) with check ((select auth.uid()) = user_id);

create policy s3edge_read_own on public.segmentation_results for select to authenticated
using ((select auth.uid()) = user_id);

create policy s3edge_read_own on public.usage_logs for select to authenticated
using ((select auth.uid()) = user_id);

revoke all on s3edge.settings from public, anon, authenticated, service_role;

-- Takes away the privileges on single columns too.
revoke all on
    public.users_profile, public.projects, public.segmentation_results, public.usage_logs
from public, anon, authenticated, service_role;

grant select on
    public.users_profile, public.projects, public.segmentation_results, public.usage_logs
to authenticated;

grant update (display_name, avatar_url) on public.users_profile to authenticated;
grant insert, update, delete on public.projects to authenticated;

grant select, insert, update, delete on
    public.users_profile, public.projects, public.segmentation_results, public.usage_logs
to service_role;

-- Functions: Postgres lets everybody execute a new one.

do $$
declare
    v_function record;
begin
    for v_function in
        select p.oid::regprocedure as signature
        from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where n.nspname = 's3edge' or (n.nspname = 'public' and p.proname like 's3edge\_%')
    loop
        execute format(
            'revoke all on function %s from public, anon, authenticated, service_role',
            v_function.signature
        );
    end loop;
end
$$;

revoke all on schema s3edge from public;
grant usage on schema s3edge to anon, authenticated, service_role;

-- What a gateway asks before anybody has signed in.
grant execute on function
    public.s3edge_schema_version(),
    public.s3edge_settings(),
    s3edge.public_settings()
to anon, authenticated, service_role;

grant execute on function public.s3edge_settle_overdue() to authenticated, service_role;

grant execute on function
    public.s3edge_reserve_task(uuid, text, text, uuid, text, text),
    s3edge.reserve_own_task(uuid, text, text, uuid, text, text),
    s3edge.settle_own_overdue()
to authenticated;

-- Triggers and defaults run with the writer's rights.
grant execute on function s3edge.now() to authenticated, service_role;
grant execute on function s3edge.initial_credits() to service_role;

grant execute on function
    public.s3edge_start_task(uuid),
    s3edge.start_task(uuid),
    public.s3edge_complete_task(uuid, text, jsonb, jsonb),
    s3edge.complete_task(uuid, text, jsonb, jsonb),
    public.s3edge_fail_task(uuid, text, text),
    s3edge.fail_task(uuid, text, text),
    public.s3edge_claim_tasks(integer, double precision),
    s3edge.claim_tasks(integer, double precision),
    public.s3edge_extend_leases(uuid[], double precision),
    s3edge.extend_leases(uuid[], double precision),
    s3edge.settle_overdue(uuid),
    public.s3edge_grant_credits(uuid, bigint),
    s3edge.grant_credits(uuid, bigint),
    public.s3edge_accounts(uuid, integer),
    s3edge.accounts(uuid, integer),
    public.s3edge_configure(bigint, bigint, integer),
    s3edge.configure(bigint, bigint, integer),
    public.s3edge_audit(),
    s3edge.audit()
to service_role;

notify pgrst, 'reload schema';
