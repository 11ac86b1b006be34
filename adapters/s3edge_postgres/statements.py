"""
Every statement, as text with named values.

There are few of them, and none is put together from values: each is parsed once a connection.
"""

from functools import cache


_LISTED_COLUMNS = (
    "t.id, t.user_id, t.project_id, t.source_image_url, t.mask_image_url, t.text_prompt, t.status,"
    " t.cost, t.error_code, t.error_message, t.created_at, t.updated_at, t.attempt"
)
"""All but what a list does not show: labels and metadata may be large, and are kept apart then."""

_COLUMNS = f"{_LISTED_COLUMNS}, t.labels, t.metadata"

SCHEMA_VERSION = "select public.s3edge_schema_version() as version"

AGREE = """
select s3edge.configure(%(initial_credits)s, %(segment_cost)s, %(task_deadline_s)s),
    s3edge.set_dispatch(%(dispatch)s::text)
"""

PROFILE = """
select coalesce(
    (select p.credits from public.users_profile p where p.id = %(user_id)s),
    s3edge.starting_credits(%(user_id)s),
    0
) as credits
"""

RESERVE_TASK = f"""
select (answer ->> 'replayed')::boolean as replayed, (answer ->> 'credits')::bigint as credits,
    {_COLUMNS}
from s3edge.reserve_task(
    %(user_id)s::uuid, %(task_id)s::uuid, %(image_url)s::text, %(text_prompt)s::text,
    %(project_id)s::uuid, %(idempotency_key)s::text, %(request_hash)s::text
) as answer
cross join lateral jsonb_populate_record(
    null::public.segmentation_results, answer -> 'task'
) as t
"""

TASK = f"""
select {_COLUMNS} from public.segmentation_results t
where t.id = %(task_id)s and t.user_id = %(user_id)s
"""

START_TASK = """
select case when %(attempt)s::integer is null
    then s3edge.start_task(%(task_id)s::uuid)
    else s3edge.start_attempt(%(task_id)s::uuid, %(attempt)s::integer)
end as done
"""

COMPLETE_TASK = """
select case when %(attempt)s::integer is null
    then s3edge.complete_task(
        %(task_id)s::uuid, %(mask_image_url)s::text, %(labels)s::jsonb, %(metadata)s::jsonb
    )
    else s3edge.complete_attempt(
        %(task_id)s::uuid, %(attempt)s::integer,
        %(mask_image_url)s::text, %(labels)s::jsonb, %(metadata)s::jsonb
    )
end as done
"""

FAIL_TASK = """
select case when %(attempt)s::integer is null
    then s3edge.fail_task(%(task_id)s::uuid, %(code)s::text, %(message)s::text)
    else s3edge.fail_attempt(
        %(task_id)s::uuid, %(attempt)s::integer, %(code)s::text, %(message)s::text
    )
end as done
"""

CLAIM_TASKS = f"""
select {_COLUMNS} from s3edge.claim_tasks(%(limit)s::integer, %(lease_s)s::double precision) as t
"""

TAKE_TASK = f"select {_COLUMNS} from s3edge.take_task(%(task_id)s::uuid) t"

ENQUEUE_FORGOTTEN = "select s3edge.enqueue_forgotten(%(limit)s::integer) as count"

WORKERS = """
select count(*) from procrastinate.procrastinate_workers
where last_heartbeat > now() - make_interval(secs => %(stalled_s)s::double precision)
"""

HAS_QUEUE = "select to_regclass('procrastinate.procrastinate_jobs') is not null as is_there"

EXTEND_LEASES = """
select s3edge.hold_attempts(
    %(task_ids)s::uuid[], %(attempts)s::integer[], %(lease_s)s::double precision
)
"""

BACKLOG = "select s3edge.backlog(%(limit)s::integer) as count"

SETTLE_OVERDUE = "select s3edge.settle_overdue(null) as id"

GRANT_CREDITS = "select s3edge.grant_credits(%(user_id)s::uuid, %(amount)s::bigint) as credits"

ACCOUNTS = "select * from s3edge.accounts(%(after)s::uuid, %(limit)s::integer)"

ENDED_TASKS = """
select t.id from public.segmentation_results t
where t.id = any (%(task_ids)s::uuid[]) and t.status in ('done', 'error')
"""


@cache
def results(*, by_position: bool, of_project: bool, in_status: bool) -> str:
    """
    Return the statement that lists a user's tasks, newest first, one more than asked for.

    The walk reads the index ``(user_id, created_at desc, id desc)`` or the project's alone, whose
    order is the list's; only the rows that are shown are looked up in the table, each by its id. The
    ``offset 0`` keeps the planner from joining in another way. By offset the count is in the column
    ``total`` of every row; past the end there is one row, whose ``id`` is null.

    Of all that a user has, neither the count nor what lies before an offset is walked through: both
    are sums of ``s3edge.result_counts``, and the walk begins in the run that has the offset.

    Args:
        by_position: Whether the list goes on behind a position; else it begins at an offset.
        of_project: Whether only a project's tasks are listed.
        in_status: Whether only those in a status are.
    """
    conditions = ["w.user_id = %(user_id)s::uuid"]
    if of_project:
        conditions.append("w.project_id = %(project_id)s::uuid")
    if in_status:
        conditions.append("w.status = %(status)s::text")
    matching = f"from public.segmentation_results w where {' and '.join(conditions)}"
    if by_position:
        counted = "counted as (select null::bigint as total)"
        stretch = "and (w.created_at, w.id) < (%(created_at)s::timestamptz, %(id)s::uuid)"
        offset = ""
    elif of_project or in_status:
        counted = f"counted as (select count(*) as total {matching})"
        stretch, offset = "", "offset %(offset)s::bigint"
    else:
        counted = _counted_by_runs(matching)
        stretch = "and w.created_at < (select s.before from start s)"
        offset = "offset (select s.skipped from start s)"
    return f"""
with {counted}, walked as (
    select w.id, w.created_at {matching} {stretch}
    order by w.created_at desc, w.id desc {offset} limit %(limit)s::bigint
)
select counted.total, shown.*
from counted left join (
    select t.* from walked cross join lateral (
        select {_LISTED_COLUMNS} from public.segmentation_results t where t.id = walked.id offset 0
    ) as t
) as shown on true
order by shown.created_at desc, shown.id desc
"""


def _counted_by_runs(matching: str) -> str:
    """
    Return how the runs tell the count, and where the walk begins.

    The runs are added up from the newest on, until one has the offset. Without any run, which is how
    rows look that were written with triggers off, everything is walked through.
    """
    return f"""
counted as (
    select coalesce(
        (select sum(c.count)::bigint from s3edge.result_counts c
            where c.user_id = %(user_id)s::uuid),
        (select count(*) {matching})
    ) as total
), start as (
    select 'infinity'::timestamptz as before, %(offset)s::bigint as skipped
    where (
        select c.since from s3edge.result_counts c
        where c.user_id = %(user_id)s::uuid order by c.since limit 1
    ) is null
    union all (
        select r.before, %(offset)s::bigint - r.newer
        from (
            select c.since, c.count,
                lag(c.since, 1, 'infinity') over newest_first as before,
                (sum(c.count) over newest_first)::bigint - c.count as newer
            from s3edge.result_counts c where c.user_id = %(user_id)s::uuid
            window newest_first as (order by c.since desc rows unbounded preceding)
        ) r
        where r.newer + r.count > %(offset)s::bigint
        order by r.since desc
        limit 1
    )
)"""
