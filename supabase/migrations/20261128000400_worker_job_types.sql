-- Which job types a worker process handles: it claims no other, and jobs that no live process handles are found.
set lock_timeout = '5s';

alter table public.workers add column job_types text[] not null default '{}';
