-- How far a running job is. Each statement names the lease: a stale one changes nothing.

-- name: record_job_progress
-- As its handler counts; readers hear of a new progress.
update makeit3d.jobs j set progress = :percent::smallint, items_done = :done::integer, items_total = :total::integer
where j.id = :job_id and j.worker_id = :worker_id and j.attempt = :attempt and j.status = 'running'
returning j.task_id, j.user_id;

-- name: add_items
-- Those that are there already stay as they are: another run names the same ones. New ones come behind them: no two
-- items have one position, by which they are read.
with lease as (
  select j.id, (select coalesce(max(i.position), 0) from makeit3d.job_items i where i.job_id = j.id) as last
  from makeit3d.jobs j
  where j.id = :job_id and j.worker_id = :worker_id and j.attempt = :attempt and j.status = 'running'
  for no key update
), item as (
  insert into makeit3d.job_items (job_id, key, position)
  select lease.id, i.key, lease.last + i.position
  from lease, unnest(:keys::text[]) with ordinality as i(key, position)
  on conflict (job_id, key) do nothing
  returning key
)
update makeit3d.jobs j set items_total = coalesce(j.items_total, 0) + (select count(*) from item)
from lease where j.id = lease.id
returning j.task_id, j.user_id;

-- name: pending_items
-- Those that no run has ended, in order.
select i.key, i.position from makeit3d.job_items i
where i.job_id = :job_id and i.status = 'pending' and i.position > :after order by i.position limit :most;
