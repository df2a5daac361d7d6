-- The trace of the HTTP request that a job comes from (W3C trace id), so that logs of all processes meet.
set lock_timeout = '5s';

alter table public.jobs add column trace_id text check (trace_id ~ '^[0-9a-f]{32}$');
