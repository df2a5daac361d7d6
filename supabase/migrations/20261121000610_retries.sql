-- An operator's retry of a failed request is a new request of the same task: final states stay final.
set lock_timeout = '5s';

alter table public.requests
  add column retry_of uuid references public.requests (id) on delete set null;
-- a failed request is retried once; when that fails, it is the retry that is retried
create unique index requests_retry on public.requests (retry_of) where retry_of is not null;

alter table public.jobs
  -- the failed job whose place this one takes; it goes on with what that one paid for
  add column retry_of uuid references public.jobs (id) on delete set null;
create index jobs_retry on public.jobs (retry_of) where retry_of is not null;
create index jobs_failed on public.jobs (finished_at desc) where status = 'failed';
