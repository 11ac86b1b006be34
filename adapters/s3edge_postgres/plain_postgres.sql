-- What Supabase's Postgres has and a plain one lacks: the roles of PostgREST, and the function that
-- names the user of a request. `s3edge migrate` runs this where auth.uid() is not there.
--
-- Nobody logs in as these roles. The gateway connects as the role that owns the schema.

do $$
declare
    v_role name;
begin
    -- Roles belong to the server, not to the database: another one may have made them.
    foreach v_role in array array['anon', 'authenticated', 'service_role'] loop
        if not exists (select from pg_catalog.pg_roles where rolname = v_role) then
            execute format('create role %I nologin', v_role);
        end if;
    end loop;
end
$$;

create schema if not exists auth;
grant usage on schema auth to anon, authenticated, service_role;

create function auth.uid() returns uuid
language sql stable set search_path = ''
as $$
    select (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid
$$;
