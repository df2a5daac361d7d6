-- name: renew_worker
-- The process lives; its first word registers it.
insert into makeit3d.workers (id, name, host, pid, lanes, slots, stopping, version, job_types)
values (:id, :name, :host, :pid, :lanes, :slots, :stopping, :version, :job_types)
on conflict (id) do update set seen_at = now(), stopping = excluded.stopping

-- name: remove_worker
-- The process left in good order: nobody died.
delete from makeit3d.workers where id = :id

-- name: running_claims
-- What the database says that a worker runs, and whether the run has ended and only its end is not written.
select id, attempt, stuck is not null as ended from makeit3d.jobs where worker_id = :worker_id and status = 'running'

-- name: bury_workers
-- Workers that were not seen for too long are gone.
delete from makeit3d.workers where seen_at < now() - make_interval(secs => :ttl_seconds) returning name

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

-- name: claimable_lanes
-- Lanes with work that a worker may claim.
select h.lane from makeit3d.claimable_heads() h join makeit3d.pools p on p.name = h.pool
where makeit3d.admission(p.provider) <> 'reject'
union
select l.name from unnest(array['priority', 'normal']) as l(name)
where exists (
  select from makeit3d.jobs j where j.status = 'queued' and j.waiting_for is null and j.resume and j.lane = l.name)

-- name: next_due_seconds
-- How long until the next waiting job is due; null when none waits for a time.
select extract(epoch from min(run_after) - clock_timestamp())::float8 from makeit3d.jobs
where status = 'queued' and run_after is not null
