-- What waits for something other than a permit, and becomes claimable. Nobody's status changes.

-- name: promote_due
-- Jobs whose waiting time is over become claimable.
with due as (
  select id from makeit3d.jobs where status = 'queued' and run_after <= now()
  order by run_after limit 5000 for no key update skip locked
), woken as (
  update makeit3d.jobs j set waiting_for = null, run_after = null from due where j.id = due.id
  returning j.task_id, j.user_id
)
select distinct task_id, user_id from woken

-- name: next_due_seconds
-- How long until the next waiting job is due; null when none waits for a time.
select extract(epoch from min(run_after) - clock_timestamp())::float8 from makeit3d.jobs
where status = 'queued' and run_after is not null

-- name: wake_for_reply
-- Jobs that wait for the answer to one of these calls, or for its host.
update makeit3d.jobs j set waiting_for = null, run_after = null from makeit3d.provider_calls c
where c.id = any(:call_ids) and c.state in ('intent', 'submitted') and j.id = c.job_id
  and makeit3d.is_parked(j)
returning j.lane

-- name: move_kept_results
-- The results of these calls lie on the disk of this host, whatever its name was when they were kept.
update makeit3d.jobs set kept_host = :host where kept_call = any(:call_ids) and kept_host <> :host returning lane, status

-- name: claimable_lanes
-- Lanes with work that a worker may claim.
select h.lane from makeit3d.claimable_heads() h join makeit3d.pools p on p.name = h.pool
where makeit3d.admission(p.provider) <> 'reject'
union
select l.name from unnest(array['priority', 'normal']) as l(name)
where exists (
  select from makeit3d.jobs j where j.status = 'queued' and j.waiting_for is null and j.resume and j.lane = l.name)

-- name: lanes_with_room
-- Lanes that hold work of these pools that could be claimed now.
select distinct h.lane from makeit3d.claimable_heads() h where h.pool = any(:pools) and makeit3d.has_room(h.pool)
