-- Monitoring counts what waits without reading all of it. One expression, so that no claim takes this index for its own.
set lock_timeout = '5s';

create index jobs_queue on public.jobs ((lane || '/' || pool || '/' || coalesce(waiting_for, 'slot')), created_at)
  where status = 'queued';
