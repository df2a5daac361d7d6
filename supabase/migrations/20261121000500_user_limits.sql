-- Limits per user, and fair tags that hold when one user's requests race and when jobs had to wait.
set lock_timeout = '5s';

-- what the paid calls of the job may cost, said when it was accepted
alter table public.jobs add column estimate_micros bigint not null default 0;

-- the fair tag last claimed
create table public.pool_tags (
  pool text not null references public.pools (name) on delete cascade,
  lane text not null check (lane in ('priority', 'normal')),
  priority smallint not null,
  tag bigint not null,
  primary key (pool, lane, priority)
) with (fillfactor = 50);

-- the fair tag last given to a job of the user, also when that job is no longer queued
create table public.user_tags (
  user_id uuid not null references auth.users (id) on delete cascade,
  pool text not null references public.pools (name) on delete cascade,
  lane text not null check (lane in ('priority', 'normal')),
  priority smallint not null,
  tag bigint not null,
  primary key (user_id, pool, lane, priority)
) with (fillfactor = 50);

insert into public.pool_tags (pool, lane, priority, tag)
  select pool, lane, priority, max(fair_tag) from public.jobs where status <> 'queued' group by pool, lane, priority;
insert into public.user_tags (user_id, pool, lane, priority, tag)
  select user_id, pool, lane, priority, max(fair_tag) from public.jobs
  where user_id is not null group by user_id, pool, lane, priority;
alter table public.pools drop column priority_tag, drop column normal_tag;

-- jobs that hold one of their user's places; a retry keeps it
create index jobs_user_in_flight on public.jobs (user_id)
  where status in ('queued', 'running') and (waiting_for is null or waiting_for in ('retry', 'breaker'));
-- jobs that wait for such a place, in the order in which they get it
create index jobs_user_waiting on public.jobs (user_id, priority desc, created_at, id)
  where status = 'queued' and waiting_for = 'user_limit';
create index jobs_user_open on public.jobs (user_id) where status in ('queued', 'running');
-- jobs that were claimed before and will be again, with the tag they had
create index jobs_backing_off on public.jobs (lane, pool, priority, fair_tag)
  where status = 'queued' and waiting_for in ('retry', 'breaker') and not resume;
drop index public.jobs_user_queue;
create index provider_calls_user on public.provider_calls (user_id, created_at);
create index provider_calls_user_open on public.provider_calls (user_id)
  where state in ('intent', 'submitted', 'unknown');

alter table public.pool_tags enable row level security;
alter table public.user_tags enable row level security;
revoke all on public.pool_tags, public.user_tags from public, anon, authenticated;
grant select, insert, update, delete on public.pool_tags, public.user_tags to service_role;
