-- What must hold whoever writes: the functions here, an inference server with the service-role key
-- that updates rows by itself, or an operator.

-- Users: the books of a profile begin with what it is made with. A trigger of the project's own may
-- make it, who need not know that the column's default is too much for somebody anonymous.

create or replace function s3edge.begin_books() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
    if new.credits = s3edge.initial_credits() then
        new.credits := coalesce(s3edge.starting_credits(new.id), new.credits);
    end if;
    new.credits_granted := new.credits;
    return new;
end
$$;

-- Triggers of one event run in the order of their names; this one has the last word.
create or replace trigger zz_s3edge_begin_books before insert on public.users_profile
for each row execute function s3edge.begin_books();

create or replace function s3edge.touch() returns trigger
language plpgsql set search_path = ''
as $$
begin
    new.updated_at := s3edge.now();
    return new;
end
$$;

create or replace trigger s3edge_touch before update on public.users_profile
for each row execute function s3edge.touch();

create or replace trigger s3edge_touch before update on public.projects
for each row execute function s3edge.touch();

-- Tasks: the first outcome wins, and a task that ends in error is refunded in the same step: what was
-- paid, to who paid.

create or replace function s3edge.keep_outcome() returns trigger
language plpgsql set search_path = ''
as $$
begin
    new.user_id := old.user_id;
    new.cost := old.cost;
    if old.status in ('done', 'error') then
        new.status := old.status;
        new.mask_image_url := old.mask_image_url;
        new.labels := old.labels;
        new.metadata := old.metadata;
        new.error_code := old.error_code;
        new.error_message := old.error_message;
        new.updated_at := old.updated_at;
    elsif new.status is distinct from old.status then
        new.updated_at := s3edge.now();
    end if;
    return new;
end
$$;

-- The last word again.
create or replace trigger zz_s3edge_keep_outcome before update on public.segmentation_results
for each row execute function s3edge.keep_outcome();

create or replace function s3edge.refund() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
    update public.users_profile set credits = credits + new.cost where id = new.user_id;
    insert into public.usage_logs (user_id, task_id, action, credits_used, created_at)
    values (new.user_id, new.id, 'refund', -new.cost, s3edge.now());
    return null;
end
$$;

create or replace trigger s3edge_refund after update on public.segmentation_results
for each row when (new.status = 'error' and old.status is distinct from 'error' and old.cost > 0)
execute function s3edge.refund();

-- Sign-up: whoever signs up has a profile. Supabase keeps its users in auth.users; without that table
-- (plain Postgres) any user that a token names is a user.

do $$
begin
    if to_regclass('auth.users') is null then
        create or replace function s3edge.starting_credits(p_user_id uuid) returns bigint
        language sql stable security definer set search_path = ''
        as 'select s3edge.initial_credits()';
        return;
    end if;

    -- Anonymous sign-ins cost nothing, so they earn nothing either. Null: there is no such user.
    create or replace function s3edge.starting_credits(p_user_id uuid) returns bigint
    language sql stable security definer set search_path = ''
    as 'select case when u.is_anonymous then 0 else s3edge.initial_credits() end
        from auth.users u where u.id = p_user_id';

    create or replace function s3edge.welcome() returns trigger
    language plpgsql security definer set search_path = ''
    as $welcome$
    begin
        -- A trigger of the project's own may have been first.
        if not exists (select from public.users_profile where id = new.id) then
            insert into public.users_profile (id, display_name, avatar_url, credits)
            values (
                new.id,
                left(coalesce(
                    new.raw_user_meta_data ->> 'display_name',
                    new.raw_user_meta_data ->> 'full_name',
                    new.raw_user_meta_data ->> 'name'
                ), 200),
                left(new.raw_user_meta_data ->> 'avatar_url', 2048),
                s3edge.starting_credits(new.id)
            );
        end if;
        return null;
    end
    $welcome$;

    create or replace trigger zz_s3edge_welcome after insert on auth.users
    for each row execute function s3edge.welcome();

    -- Somebody who signed in anonymously and then gave an identity begins like everybody else.
    create or replace function s3edge.welcome_identity() returns trigger
    language plpgsql security definer set search_path = ''
    as $welcome$
    declare
        v_credits bigint := s3edge.initial_credits();
    begin
        update public.users_profile
        set credits = credits + v_credits, credits_granted = credits_granted + v_credits
        where id = new.id and credits_granted = 0 and v_credits > 0;
        if found then
            insert into public.usage_logs (user_id, action, metadata, created_at)
            values (new.id, 'grant', jsonb_build_object('amount', v_credits), s3edge.now());
        end if;
        return null;
    end
    $welcome$;

    create or replace trigger zz_s3edge_welcome_identity
    after update of is_anonymous on auth.users
    for each row when (old.is_anonymous and not new.is_anonymous)
    execute function s3edge.welcome_identity();

    -- Those who signed up before.
    insert into public.users_profile (id, credits)
    select u.id, s3edge.starting_credits(u.id) from auth.users u
    where not exists (select from public.users_profile p where p.id = u.id);

    if not exists (
        select from pg_catalog.pg_constraint
        where conrelid = 'public.users_profile'::regclass and contype = 'f'
            and confrelid = 'auth.users'::regclass
    ) then
        alter table public.users_profile add constraint s3edge_profile_of_user
        foreign key (id) references auth.users (id) on delete cascade not valid;
    end if;
end
$$;
