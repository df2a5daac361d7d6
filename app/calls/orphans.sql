-- name: adopt_calls
-- Submitted calls whose job ended without them and that no live process polls: from now on this worker does.
with orphan as (
  select c.id as orphan_id from makeit3d.provider_calls c left join makeit3d.jobs j on j.id = c.job_id
  where c.is_open and c.state = 'submitted' and c.provider_task_id is not null and c.provider = :provider
    and (j.id is null or j.status in ('completed', 'failed', 'canceled'))
    and (c.worker_id = :worker_id or not exists (select from makeit3d.workers w where w.id = c.worker_id))
  limit :limit for no key update of c skip locked
)
update makeit3d.provider_calls c set worker_id = :worker_id from orphan where c.id = orphan_id
returning c.id, c.job_id, c.task_id, c.user_id, c.worker_id, c.attempt, c.provider, c.pool, c.kind, c.state,
  c.fingerprint, c.estimate_micros, c.provider_task_id, c.provider_request_id, c.error_code, c.result, c.progress,
  c.created_at, c.deadline, c.deadline < now() as expired,
  extract(epoch from now() - c.created_at)::float8 as age_seconds

-- name: unknown_calls
-- Calls of these providers without a known outcome, whose job ended without them, oldest first.
select c.* from makeit3d.provider_calls o join makeit3d.calls c on c.id = o.id
where o.is_open and o.provider = any(:providers) and o.provider_task_id is null
  and (o.state = 'unknown' or (o.state = 'intent' and c.expired))
  and not exists (select from makeit3d.jobs j where j.id = o.job_id and j.status in ('queued', 'running'))
order by o.created_at limit :limit

-- name: settle_abandoned
-- Calls that nobody can answer any more, of jobs that ended without them, at their estimate.
with over as (
  update makeit3d.provider_calls c set state = 'settled', cost_micros = estimate_micros, cost_is_estimate = true,
    error_code = coalesce(error_code, 'provider_outcome_unknown'), settled_at = now()
  where c.is_open and c.provider_task_id is null and c.provider <> all(:looked_for)
    and c.deadline < now() - interval '1 minute'
    and not exists (select from makeit3d.jobs j where j.id = c.job_id and j.status in ('queued', 'running'))
  returning c.job_id, c.provider, c.cost_micros
)
select provider, cost_micros, makeit3d.call_settled(job_id, cost_micros, false) from over
