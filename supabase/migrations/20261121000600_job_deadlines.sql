-- How long a job may take once work began: time in the queue does not count.
set lock_timeout = '5s';

alter table public.jobs
  -- when the current claim must have ended
  add column deadline timestamptz,
  -- what is left of the job's time when another run goes on with what was paid; null: all of it
  add column seconds_left double precision;
create index jobs_deadline on public.jobs (deadline) where status = 'running';
