-- A circuit breaker per provider, shared by all processes.
set lock_timeout = '5s';

create table public.providers (
  name text primary key,
  -- open: none of its new jobs is claimed; half_open: one was claimed to see whether the provider is well again
  state text not null default 'closed' check (state in ('closed', 'open', 'half_open')),
  -- failures since a call was last accepted
  failures integer not null default 0,
  -- openings since it was last closed; each doubles the time to the next probe
  trips integer not null default 0,
  error_code text,
  -- the outage began
  opened_at timestamptz,
  -- the latest opening: only a call that was sent after it can close
  tripped_at timestamptz,
  -- from when on a job may be the probe
  probe_at timestamptz,
  -- the claim that is the probe; when it has ended without a verdict, another job may be
  probe_job uuid,
  probe_attempt integer,
  updated_at timestamptz not null default now(),
  check ((state = 'closed') = (opened_at is null)),
  check (state = 'closed' or (tripped_at is not null and probe_at is not null and error_code is not null))
) with (fillfactor = 50);

insert into public.providers (name) select distinct provider from public.pools;

alter table public.providers enable row level security;
revoke all on public.providers from public, anon, authenticated;
grant select, insert, update, delete on public.providers to service_role;
