-- What `s3edge doctor` asks: whether the access rules still stand as 20261124000700_s3edge_access.sql
-- left them. A policy or a grant that somebody added later shows up here, a line each.

create or replace function s3edge.audit() returns setof text
language sql stable security definer set search_path = ''
as $$
    with tables (name) as (
        values ('users_profile'), ('projects'), ('segmentation_results'), ('usage_logs')
    ), roles (name) as (
        values ('anon'), ('authenticated')
    ), policies (table_name, name, command, owner_column, writes) as (
        values
            ('users_profile', 's3edge_read_own', 'SELECT', 'id', false),
            ('users_profile', 's3edge_update_own', 'UPDATE', 'id', true),
            ('projects', 's3edge_manage_own', 'ALL', 'user_id', true),
            ('segmentation_results', 's3edge_read_own', 'SELECT', 'user_id', false),
            ('usage_logs', 's3edge_read_own', 'SELECT', 'user_id', false)
    )
    select format('row-level security is off on %s', t.name)
    from tables t
    join pg_catalog.pg_class c on c.oid = format('public.%I', t.name)::regclass
    where not c.relrowsecurity

    union all

    select format('policy "%s" on %s is not as s3edge made it', p.policyname, p.tablename)
    from pg_catalog.pg_policies p
    join tables t on t.name = p.tablename
    where p.schemaname = 'public' and not exists (
        select from policies o
        where (o.table_name, o.name, o.command) = (p.tablename, p.policyname, p.cmd)
            and p.permissive = 'PERMISSIVE' and p.roles = '{authenticated}'
            and p.qual = format('(( SELECT auth.uid() AS uid) = %s)', o.owner_column)
            and p.with_check is not distinct from case when o.writes then p.qual end
    )

    union all

    select format('policy "%s" on %s is missing', o.name, o.table_name)
    from policies o
    where not exists (
        select from pg_catalog.pg_policies p
        where p.schemaname = 'public'
            and (p.tablename, p.policyname) = (o.table_name, o.name)
    )

    union all

    select format('%s may %s %s', r.name, v.name, t.name)
    from roles r
    cross join tables t
    cross join (values ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE'), ('TRUNCATE')) v (name)
    where has_table_privilege(r.name, format('public.%I', t.name), v.name)
        and not (r.name = 'authenticated' and v.name = 'SELECT')
        and not (r.name = 'authenticated' and t.name = 'projects' and v.name <> 'TRUNCATE')

    union all

    select format('%s may %s the column %s.%s', r.name, v.name, t.name, c.column_name)
    from roles r
    cross join tables t
    cross join (values ('SELECT'), ('INSERT'), ('UPDATE')) v (name)
    join information_schema.columns c on c.table_schema = 'public' and c.table_name = t.name
    where has_column_privilege(r.name, format('public.%I', t.name), c.column_name, v.name)
        and not has_table_privilege(r.name, format('public.%I', t.name), v.name)
        and not (
            r.name = 'authenticated' and t.name = 'users_profile' and v.name = 'UPDATE'
            and c.column_name in ('display_name', 'avatar_url')
        )

    union all

    select format('%s may call %s', r.name, p.oid::regprocedure)
    from roles r
    cross join pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where (n.nspname = 's3edge' or (n.nspname = 'public' and p.proname like 's3edge\_%'))
        and has_function_privilege(r.name, p.oid, 'EXECUTE')
        and p.proname not in ('s3edge_schema_version', 's3edge_settings', 'public_settings')
        and not (
            r.name = 'authenticated'
            and p.proname in (
                'now', 's3edge_reserve_task', 'reserve_own_task', 's3edge_settle_overdue',
                'settle_own_overdue'
            )
        )
$$;

create or replace function public.s3edge_audit() returns setof text
language sql stable set search_path = ''
as 'select s3edge.audit()';
