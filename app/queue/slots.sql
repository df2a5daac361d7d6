-- name: lend_slot
-- The pool has the job's slot while its inputs are prepared.
update makeit3d.jobs set slot = 'lent'
where id = :job_id and worker_id = :worker_id and attempt = :attempt and status = 'running'

-- name: lock_pool
-- Nobody else counts the pool's slots until the transaction ends.
select slots from makeit3d.pools where name = :pool for no key update

-- name: slots_ahead
-- Slots that the job may not have: who waits for one goes before all that are queued, in the order of claims.
select makeit3d.slots_used(me.pool) - (
  select count(*) from makeit3d.jobs j
  where j.pool = me.pool and j.status = 'running' and j.slot = 'wanted' and j.id <> me.id and not j.calls_done
    and (-j.priority, j.fair_tag, j.id) > (-me.priority, me.fair_tag, me.id))
from makeit3d.jobs me where me.id = :job_id

-- name: held_by_breaker
-- The probe goes on; whoever else was claimed before the breaker opened waits for it like all that are queued.
select makeit3d.admission(v.name) <> 'allow'
  and (v.probe_job, v.probe_attempt) is distinct from (:job_id::uuid, :attempt::integer)
from makeit3d.pools join makeit3d.providers v on v.name = pools.provider where pools.name = :pool

-- name: take_slot
-- The job has its slot again, or stands in line for it.
update makeit3d.jobs set slot = case when :free then 'held' else 'wanted' end
where id = :job_id and worker_id = :worker_id and attempt = :attempt and status = 'running'
