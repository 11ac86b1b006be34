-- Who may call what has been added since 20261124000700_s3edge_access.sql: servers, and nobody else.
-- Setting who dispatches, and queueing by hand, is the owner's alone.

revoke all on function
    s3edge.announce_end(),
    s3edge.enqueue(uuid),
    s3edge.enqueue_forgotten(integer),
    s3edge.take_task(uuid),
    s3edge.set_dispatch(text),
    s3edge.start_attempt(uuid, integer),
    public.s3edge_start_attempt(uuid, integer),
    s3edge.complete_attempt(uuid, integer, text, jsonb, jsonb),
    public.s3edge_complete_attempt(uuid, integer, text, jsonb, jsonb),
    s3edge.fail_attempt(uuid, integer, text, text),
    public.s3edge_fail_attempt(uuid, integer, text, text),
    s3edge.hold_attempts(uuid[], integer[], double precision),
    public.s3edge_hold_attempts(uuid[], integer[], double precision),
    s3edge.backlog(integer),
    public.s3edge_backlog(integer)
from public, anon, authenticated, service_role;

grant execute on function
    s3edge.start_attempt(uuid, integer),
    public.s3edge_start_attempt(uuid, integer),
    s3edge.complete_attempt(uuid, integer, text, jsonb, jsonb),
    public.s3edge_complete_attempt(uuid, integer, text, jsonb, jsonb),
    s3edge.fail_attempt(uuid, integer, text, text),
    public.s3edge_fail_attempt(uuid, integer, text, text),
    s3edge.hold_attempts(uuid[], integer[], double precision),
    public.s3edge_hold_attempts(uuid[], integer[], double precision),
    s3edge.backlog(integer),
    public.s3edge_backlog(integer)
to service_role;

notify pgrst, 'reload schema';
