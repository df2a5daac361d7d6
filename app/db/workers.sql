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
