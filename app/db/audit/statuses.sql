-- name: request_status
-- a request's status is that of its jobs
select jsonb_build_object('request', r.id, 'task', r.task_id) as ids,
  format('request is %s, its jobs say %s', r.status, coalesce(word.status, 'nothing: it has none')) as found
from makeit3d.requests r left join lateral (
  select case
    when bool_or(status = 'running') or (bool_or(status = 'queued') and bool_or(status = 'completed'))
      then 'running'
    when bool_or(status = 'queued') then 'queued'
    when bool_or(status = 'failed') then 'failed'
    when bool_or(status = 'canceled') then 'canceled'
    when count(*) > 0 then 'completed' end as status
  from makeit3d.jobs j where j.request_id = r.id
) as word on true
where r.status is distinct from word.status

-- name: task_status
-- a task is active while a request of it is, else as its newest request ended
select jsonb_build_object('task', t.id) as ids,
  format('task is %s, its requests say %s', t.status, coalesce(word.status, 'nothing: it has none')) as found
from makeit3d.tasks t left join lateral (
  select coalesce(max(r.status) filter (where r.status in ('queued', 'running')),
    (array_agg(r.status order by r.number desc))[1]) as status
  from makeit3d.requests r where r.task_id = t.id
) as word on true
where t.status is distinct from word.status

-- name: asset_status
-- an asset row is as far as its job: complete or failed when that is completed, else failed, canceled, begun
select jsonb_build_object('asset', a.id, 'job', j.id, 'task', j.task_id) as ids,
  format('%s row is %s, its job %s after %s attempts', a.table_name, a.status, j.status, j.attempt) as found
from asset a join makeit3d.jobs j on j.id = a.job_id
where not case j.status
  when 'queued' then a.status = 'pending' or (a.status = 'processing' and j.attempt > 0)
  when 'running' then a.status = 'processing'
  when 'completed' then a.status in ('complete', 'failed')
  else a.status = j.status end

-- name: job_has_output
-- a completed job that was to make something, or is paid, has at least one complete asset row
select jsonb_build_object('job', j.id, 'task', j.task_id) as ids, 'no asset row of it is complete' as found
from makeit3d.jobs j where j.status = 'completed'
  and (j.id in (select id from paid_job) or exists (select from asset a where a.job_id = j.id))
  and not exists (select from asset a where a.job_id = j.id and a.status = 'complete')

-- name: ended_says_why
-- what failed or was canceled says so by a code, what completed has none
select jsonb_build_object('job', id, 'task', task_id) as ids,
  format('job is %s with error code %s', status, coalesce(error_code, 'none')) as found
from makeit3d.jobs where (status in ('failed', 'canceled') and error_code is null)
  or (status = 'completed' and error_code is not null)
union all
select jsonb_build_object('asset', id, 'job', job_id, 'task', task_id),
  format('%s row is %s with error code %s', table_name, status, coalesce(error_code, 'none'))
from asset where (status in ('failed', 'canceled') and error_code is null)
  or (status = 'complete' and error_code is not null)
union all
select jsonb_build_object('request', id, 'task', task_id), 'request failed without an error code'
from makeit3d.requests where status = 'failed' and error_code is null

-- name: ended_says_when
-- jobs, requests and tasks have an end time exactly when they ended
select jsonb_build_object(name, id) as ids, format('%s is %s with end time %s', name, status,
  coalesce(finished_at::text, 'none')) as found
from (
  select 'job' as name, id::text as id, status, finished_at from makeit3d.jobs
  union all select 'request', id::text, status, finished_at from makeit3d.requests
  union all select 'task', id, status, finished_at from makeit3d.tasks
) as x
where (status in ('completed', 'failed', 'canceled')) <> (finished_at is not null)

-- name: waiting_reason
-- a job waits for a step exactly while an earlier step of its request is unfinished, for a retry until a time
select jsonb_build_object('job', j.id, 'task', j.task_id) as ids,
  format('step %s waits for %s until %s; earlier steps: %s', j.step, coalesce(j.waiting_for, 'nothing'),
    coalesce(j.run_after::text, 'no time'), coalesce(earlier.words, 'none')) as found
from makeit3d.jobs j left join lateral (
  select string_agg(o.status, ', ' order by o.step) as words,
    bool_or(o.status in ('queued', 'running')) as unfinished
  from makeit3d.jobs o where o.request_id = j.request_id and o.step < j.step
) as earlier on true
where j.status in ('queued', 'running') and (
  (j.waiting_for is not distinct from 'step') <> coalesce(earlier.unfinished, false)
  or (j.waiting_for is not distinct from 'retry' and j.run_after is null))

-- name: planned_steps
-- a completed request has jobs of every step that was planned
select jsonb_build_object('request', r.id, 'task', r.task_id, 'step', s -> 'step') as ids,
  'no job of this step' as found
from makeit3d.requests r cross join jsonb_array_elements(r.steps) as s
where r.status = 'completed' and not exists (
  select from makeit3d.jobs j where j.request_id = r.id and j.step = (s ->> 'step')::smallint)

-- name: due_is_woken
-- a job whose waiting time is over becomes claimable
select jsonb_build_object('job', id, 'task', task_id, 'due', run_after) as ids,
  format('was due %s ago', now() - run_after) as found
from makeit3d.jobs where status = 'queued' and run_after < now()

-- name: main_job
-- a request names one of its own jobs as the one that makes what was asked for
select jsonb_build_object('request', r.id, 'job', r.job_id) as ids, 'no such job in the request' as found
from makeit3d.requests r where not exists (select from makeit3d.jobs j where j.id = r.job_id
  and j.request_id = r.id)

-- name: idempotency
-- a request matches repeats unless it came without a key of the client's and failed or was canceled
select jsonb_build_object('request', id, 'task', task_id) as ids,
  format('%s request %s and %s repeats', case when explicit_key then 'keyed' else 'keyless' end, status,
    case when matches then 'matches' else 'does not match' end) as found
from makeit3d.requests where matches <> (explicit_key or status not in ('failed', 'canceled'))

-- name: reserved_numbers
-- numbers of output files are reserved before they are used, and used once
select jsonb_build_object('task', t.id, 'kind', a.kind) as ids,
  format('%s numbers used %s times, the highest is %s, %s reserved', a.kinds, a.uses, a.highest,
    coalesce(t.reserved ->> a.kind, 'none')) as found
from makeit3d.tasks t join (
  select task_id, kind, max(number) as highest, count(*) as uses, count(distinct number) as kinds
  from asset group by task_id, kind
) as a on a.task_id = t.id
where a.uses > a.kinds or a.highest >= coalesce((t.reserved ->> a.kind)::bigint, 0)

-- name: one_owner
-- request, job, asset, file and paid call of a task have the task's user
select jsonb_build_object('task', t.id, x.name, x.id) as ids,
  format('task is of user %s, %s of %s', t.user_id, x.name, coalesce(x.user_id::text, 'nobody')) as found
from makeit3d.tasks t join (
  select 'request' as name, id, task_id, user_id from makeit3d.requests
  union all select 'job', id, task_id, user_id from makeit3d.jobs
  union all select 'asset', id, task_id, user_id from asset
  union all select 'file', id, task_id, user_id from makeit3d.files
  union all select 'call', id, task_id, user_id from makeit3d.provider_calls
) as x on x.task_id = t.id
where t.user_id is not null and x.user_id is distinct from t.user_id

-- name: one_task
-- a job's request, asset rows, files and paid calls belong to its task
select jsonb_build_object('job', j.id, 'task', j.task_id, x.name, x.id) as ids,
  format('%s belongs to task %s', x.name, coalesce(x.task_id, 'none')) as found
from makeit3d.jobs j join (
  select 'asset' as name, id, job_id, task_id from asset
  union all select 'file', id, job_id, task_id from makeit3d.files
  union all select 'call', id, job_id, task_id from makeit3d.provider_calls
) as x on x.job_id = j.id
where x.task_id is distinct from j.task_id
union all
select jsonb_build_object('job', j.id, 'task', j.task_id, 'request', r.id),
  format('request belongs to task %s', r.task_id)
from makeit3d.jobs j join makeit3d.requests r on r.id = j.request_id where r.task_id <> j.task_id
