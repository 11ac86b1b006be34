-- News of tasks that ended, for every process that listens: `listen s3edge_task_ended`. The payload is
-- the task's id, which tells nothing to those who may not read the task.

create or replace function s3edge.announce_end() returns trigger
language plpgsql set search_path = ''
as $$
begin
    perform pg_catalog.pg_notify('s3edge_task_ended', new.id::text);
    return null;
end
$$;

create or replace trigger s3edge_announce_end after update on public.segmentation_results
for each row when (
    new.status in ('done', 'error') and old.status is distinct from new.status
)
execute function s3edge.announce_end();
