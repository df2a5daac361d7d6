-- name: user_place
-- a job waits for a place of its user only while all of them are taken
select jsonb_build_object('user', w.user_id, 'permit', w.permit) as ids,
  format('%s jobs wait, %s of %s places are taken', w.jobs, u.places, coalesce(p.places::text, 'unlimited'))
    as found
from patience p cross join (
  select user_id, permit, count(*) as jobs from makeit3d.jobs
  where status = 'queued' and waiting_for = 'user_limit' group by user_id, permit
) as w cross join lateral (
  select (select count(*) from makeit3d.jobs j where j.user_id = w.user_id and j.permit = w.permit
      and j.status in ('queued', 'running')
      and (j.waiting_for is null or j.waiting_for in ('retry', 'breaker')))
    + (select count(*) from makeit3d.provider_calls c where c.user_id = w.user_id
      and c.is_open and w.permit = 'paid'
      and not exists (select from makeit3d.jobs j where j.id = c.job_id
        and j.status in ('queued', 'running'))) as places
) as u
where w.user_id is null or p.places is null or u.places < p.places

-- name: dependency_open
-- a job waits for another task only while its request depends on one that was not told yet
select jsonb_build_object('job', j.id, 'task', j.task_id) as ids, 'nothing is left to wait for' as found
from makeit3d.jobs j where j.status = 'queued' and j.waiting_for = 'dependency' and not exists (
  select from makeit3d.task_dependencies d where d.request_id = j.request_id and not d.met)

-- name: dependents_told
-- who depends on a request that ended is told
select jsonb_build_object('request', d.request_id, 'task', d.task_id, 'depends_on', d.depends_on) as ids,
  format('it is %s%s', r.status, case when not t.dependents_pending then ', and nobody knows' else '' end) as found
from makeit3d.task_dependencies d join makeit3d.requests r on r.id = d.depends_on_request
join makeit3d.tasks t on t.id = d.depends_on
where not d.met and r.status in ('completed', 'failed', 'canceled')

-- name: breaker_exists
-- every provider that is paid has a breaker
select jsonb_build_object('provider', provider) as ids,
  format('no row for the pools %s', string_agg(name, ' ' order by name)) as found
from makeit3d.pools where provider <> 'local' and provider not in (select name from makeit3d.providers)
  group by provider

-- name: breaker_state
-- a closed breaker knows of no outage, an open one when and why it opened, a half-open one also its probe
select jsonb_build_object('provider', name) as ids,
  format('%s after %s failures and %s openings, for %s, probe %s', state, failures, trips,
    coalesce(error_code, 'no reason'), coalesce(probe_job::text, 'none')) as found
from makeit3d.providers where case state
  when 'closed' then trips <> 0 or error_code is not null or opened_at is not null or tripped_at is not null
    or probe_at is not null or probe_job is not null
  else trips = 0 or failures = 0 or error_code is null or opened_at is null or tripped_at < opened_at
    or (state = 'half_open') <> (probe_job is not null) or (state = 'half_open' and probe_attempt is null)
  end

-- name: breaker_wait
-- a job that an open breaker kept waiting for longer than jobs may wait has failed
select jsonb_build_object('job', j.id, 'task', j.task_id) as ids,
  format('%s: %s since %s', v.name, v.state, v.opened_at) as found
from patience, makeit3d.providers v join makeit3d.pools p on p.provider = v.name
join makeit3d.jobs j on j.pool = p.name and j.status = 'queued' and not j.resume
  and (j.waiting_for is null or j.waiting_for in ('retry', 'breaker'))
where v.state <> 'closed' and greatest(v.opened_at, j.created_at) < now() - patience.longest_wait
