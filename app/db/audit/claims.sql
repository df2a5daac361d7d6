-- name: running_is_alive
-- a running job belongs to a live worker process, unless its run has ended
select jsonb_build_object('job', j.id, 'task', j.task_id, 'worker', j.worker_id, 'attempt', j.attempt) as ids,
  case when w.id is null then 'its worker has no row'
    else format('its worker was last seen %s ago', now() - w.seen_at) end as found
from patience, makeit3d.jobs j left join makeit3d.workers w on w.id = j.worker_id
where j.status = 'running' and j.stuck is null and (w.id is null or w.seen_at < now() - patience.worker_ttl)

-- name: end_is_written
-- the end of a run is written
select jsonb_build_object('job', j.id, 'task', j.task_id) as ids,
  format('it ended as %s, and nothing can be written', j.stuck #>> '{columns,status}') as found
from makeit3d.jobs j where j.status = 'running' and j.stuck is not null

-- name: claim_is_counted
-- every run of a job is counted, and begins at a time
select jsonb_build_object('job', id, 'task', task_id) as ids,
  format('job is %s: attempt %s, first begun %s', status, attempt, coalesce(started_at::text, 'never')) as found
from makeit3d.jobs where (attempt > 0) <> (started_at is not null)
  or (status in ('running', 'completed') and attempt = 0)

-- name: resume_is_paid
-- only a queued job that has made a call goes on without a slot
select jsonb_build_object('job', j.id, 'task', j.task_id) as ids,
  format('job is %s and resumes, without a call', j.status) as found
from makeit3d.jobs j where j.resume and (j.status <> 'queued' or (not j.calls_done and not exists (
  select from makeit3d.provider_calls c where c.job_id = j.id)))

-- name: slots
-- no pool has more slots in use than it has
select jsonb_build_object('pool', p.name) as ids,
  format('%s of %s slots in use', u.used, p.slots) as found
from makeit3d.pools p cross join lateral (select makeit3d.slots_used(p.name, false) as used) as u
where u.used > p.slots

-- name: one_open_call
-- a job has at most one open paid call
select jsonb_build_object('job', job_id, 'calls', string_agg(id::text, ' ' order by created_at)) as ids,
  format('%s open calls', count(*)) as found
from makeit3d.provider_calls where job_id is not null and is_open group by job_id having count(*) > 1

-- name: paid_once
-- no job has two accepted calls of the same kind
select jsonb_build_object('job', job_id, 'kind', kind, 'calls', string_agg(id::text, ' ' order by created_at))
    as ids,
  format('%s calls were accepted', count(*)) as found
from makeit3d.provider_calls
where job_id is not null and (state = 'submitted' or (state = 'settled' and error_code is null))
group by job_id, kind having count(*) > 1

-- name: provider_task_once
-- a provider's task belongs to one call
select jsonb_build_object('provider_task', provider_task_id, 'calls',
    string_agg(id::text, ' ' order by created_at)) as ids,
  format('%s calls of %s', count(*), provider) as found
from makeit3d.provider_calls where provider_task_id is not null
  group by provider, provider_task_id having count(*) > 1

-- name: job_cost
-- a job costs what its calls cost
select jsonb_build_object('job', j.id, 'task', j.task_id) as ids,
  format('job says %s micros, its calls %s', j.cost_micros, c.cost) as found
from makeit3d.jobs j join lateral (
  select coalesce(sum(cost_micros), 0) as cost from makeit3d.provider_calls c where c.job_id = j.id
) as c on true
where j.cost_micros <> c.cost

-- name: booked_when_over
-- a call has a cost and an end exactly when it is over, and a refused one costs nothing
select jsonb_build_object('call', id, 'job', job_id) as ids,
  format('call is %s, cost %s, ended %s', state, coalesce(cost_micros::text, 'none'),
    coalesce(settled_at::text, 'never')) as found
from makeit3d.provider_calls
where (state in ('refused', 'settled')) <> (cost_micros is not null and settled_at is not null)
  or (state = 'refused' and cost_micros <> 0)

-- name: completed_is_over
-- a completed job has no open call; a paid one has one that succeeded, its own or that of the job it retries
select jsonb_build_object('job', j.id, 'task', j.task_id) as ids,
  format('calls: %s', coalesce((select string_agg(c.state, ', ' order by c.created_at)
    from makeit3d.provider_calls c
    where c.job_id = j.id), 'none')) as found
from makeit3d.jobs j where j.status = 'completed' and (
  exists (select from makeit3d.provider_calls c where c.job_id = j.id and c.is_open)
  or j.id in (select id from paid_job) and not exists (
    with recursive line (id, retry_of) as (
      select j.id, j.retry_of
      union all select o.id, o.retry_of from makeit3d.jobs o join line on o.id = line.retry_of
    )
    select from makeit3d.provider_calls c join line on c.job_id = line.id
    where c.state = 'settled' and c.error_code is null))

-- name: refused_is_settled
-- a job whose result storage refused has settled what it paid, at what it cost
select jsonb_build_object('job', j.id, 'task', j.task_id, 'call', c.id) as ids,
  format('job failed with %s, its call is %s with error code %s', j.error_code, c.state,
    coalesce(c.error_code, 'none')) as found
from patience, makeit3d.jobs j join lateral (
  select * from makeit3d.provider_calls c where c.job_id = j.id and c.state <> 'refused'
  order by c.created_at desc limit 1
) as c on true
where j.status = 'failed' and j.error_code = any(patience.refusals)
  and (c.state <> 'settled' or c.error_code is not null)

-- name: calls_are_watched
-- an open call of an ended job is followed by a live process, or settled when nobody can
select jsonb_build_object('call', c.id, 'job', c.job_id, 'worker', c.worker_id) as ids,
  format('call is %s, its job %s', c.state, coalesce(j.status, 'gone')) as found
from patience, makeit3d.provider_calls c left join makeit3d.jobs j on j.id = c.job_id
where c.is_open and (j.id is null or j.status in ('completed', 'failed', 'canceled')) and case
  when c.provider_task_id is null then c.deadline < now() - patience.unknowns
  else not exists (select from makeit3d.workers w where w.id = c.worker_id) end

-- name: kept_results
-- Paid results without a stored file that an operator can still have stored.
select count(distinct kept_call) as results, coalesce(string_agg(distinct kept_host, ', '), '') as hosts
from makeit3d.jobs j where kept_until > now() and status in ('failed', 'completed')
  and not exists (select from makeit3d.jobs n where n.retry_of = j.id)
