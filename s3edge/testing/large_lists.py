"""A user with a million results beside one with a hundred, for tests and figures of long lists."""

from uuid import UUID

import psycopg


MANY = UUID("00000000-0000-4000-8000-00000000000a")
"""Who has ``MANY_RESULTS``."""

FEW = UUID("00000000-0000-4000-8000-00000000000b")
"""Who has ``FEW_RESULTS``."""

MANY_RESULTS = 1_000_000

FEW_RESULTS = 100

_ONE_IN = (MANY_RESULTS + FEW_RESULTS) // FEW_RESULTS

_OTHERS = 5_000
_OTHERS_RESULTS = 4

# Two rows share each moment. Indexes are made once all rows are there, which takes less time.
_LOAD = f"""
set local session_replication_role = replica;
set local maintenance_work_mem = '256MB';
insert into public.users_profile (id, credits, credits_granted)
select id, 0, 0 from unnest(array['{MANY}', '{FEW}']::uuid[]) id
union all select md5('other' || n)::uuid, 0, 0 from generate_series(1, {_OTHERS}) n;
create temporary table dropped on commit drop as
select indexrelid::regclass::text as name, pg_get_indexdef(indexrelid) as definition
from pg_index
where indrelid = 'public.segmentation_results'::regclass and not indisprimary;
do $$
declare
    v_name text;
begin
    for v_name in select name from dropped loop
        execute 'drop index ' || v_name;
    end loop;
end
$$;
insert into public.segmentation_results (
    id, user_id, source_image_url, mask_image_url, text_prompt, status, created_at, updated_at
)
select gen_random_uuid(), case when n % {_ONE_IN} = 0 then '{FEW}'::uuid else '{MANY}' end,
    'https://images.example/images/' || n, 'https://images.example/masks/' || n, 'the red car',
    'done', moment, moment
from generate_series(1, {MANY_RESULTS + FEW_RESULTS}) n,
    lateral (select timestamptz '2025-01-01' + n / 2 * interval '1 minute' as moment) dated;
insert into public.segmentation_results (
    user_id, source_image_url, text_prompt, status, created_at
)
select md5('other' || n % {_OTHERS} + 1)::uuid, 'https://images.example/', 'the blue car', 'done',
    timestamptz '2025-01-01' + n * interval '25 minutes'
from generate_series(1, {_OTHERS * _OTHERS_RESULTS}) n;
do $$
declare
    v_definition text;
begin
    for v_definition in select definition from dropped loop
        execute v_definition;
    end loop;
end
$$;
select s3edge.recount(null);
"""  # noqa: S608 - of constants


def load_large_lists(superuser_url: str) -> None:
    """
    Fill a database that has the schema and nobody in it.

    Args:
        superuser_url: The database, as a superuser reaches it: triggers must not run for each row.
    """
    with psycopg.connect(superuser_url) as connection:
        connection.execute(_LOAD.encode())
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        # As autovacuum would: an index-only walk trusts what it has found visible to all.
        for table in (
            "public.segmentation_results",
            "s3edge.result_counts",
            "public.users_profile",
        ):
            connection.execute(f"vacuum (analyze) {table}".encode())
