-- name: check_frame
-- The differences that a check finds; what it may read beside the tables stands before it.
with patience as (
  -- what is not yet a difference, and what the checks have to know
  select make_interval(secs => :worker_ttl) as worker_ttl, make_interval(secs => :leftovers) as leftovers,
    make_interval(secs => :unowned) as unowned, make_interval(secs => :unknowns) as unknowns,
    make_interval(secs => :longest_wait) as longest_wait, :places::bigint as places, :refusals::text[] as refusals
), asset as (
  -- outputs of jobs, of every kind
-- each table union all
  select id, task_id, user_id, job_id, request_id, {kind} as kind, number, status, asset_url, file_id, preview_url,
    error_code, '{name}' as table_name from {table} where job_id is not null
-- end
), paid_job as (
  -- its work is a provider's; a job of the local pool pays nobody
  select id from makeit3d.jobs where coalesce(provider, 'local') <> 'local'
), job_event as (
  -- of jobs that the log still has from the beginning: it keeps thirty days
  select e.xid, e.id, e.task_id, (e.payload->>'job_id')::uuid as job_id, e.payload->>'status' as status,
    e.payload - 'task_id' - 'job_id' as content
  from makeit3d.events e join makeit3d.jobs j on j.id = (e.payload->>'job_id')::uuid
  where e.type = 'job_update' and j.created_at > now() - interval '29 days'
), difference as (
  {check}
)
select ids, found, count(*) over () as total from difference, patience limit :most

-- name: bound_audit_statements
-- Longer than any check should take.
set local statement_timeout = '300s'

-- name: bound_audit_pauses
-- An audit may take its time: it must not take memory from those who work.
set local idle_in_transaction_session_timeout = '10min'

-- name: count_rows
-- How many rows there are to look at.
select sum(n)::bigint from (
  select count(*) as n from makeit3d.tasks
  union all select count(*) from makeit3d.requests
  union all select count(*) from makeit3d.jobs
  union all select count(*) from makeit3d.provider_calls
  union all select count(*) from makeit3d.files
  union all select count(*) from makeit3d.events
  union all select count(*) from makeit3d.workers
  union all select count(*) from makeit3d.pools
  union all select count(*) from makeit3d.providers
  union all select count(*) from {inputs}
  union all
-- each table union all
  select count(*) from {table}
-- end
) as each
