-- Monitoring derives what a queued job waits for, which depends on whether the job goes on with paid work.
set lock_timeout = '5s';

drop index public.jobs_queue;
create index jobs_queue on public.jobs (
  (lane || '/' || pool || '/' || coalesce(waiting_for, '') || case when resume then '/resume' else '' end), created_at)
  where status = 'queued';
