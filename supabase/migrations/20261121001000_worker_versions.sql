-- Which version of the code a worker process runs, so that one that an update forgot is found.
set lock_timeout = '5s';

alter table public.workers add column version text not null default '';
