-- The journal of paid calls, and a circuit breaker per provider, shared by all processes.

create table makeit3d.provider_calls (
  id uuid primary key,
  -- the journal outlives jobs and tasks: it is the record of money
  job_id uuid references makeit3d.jobs (id) on delete set null,
  task_id text collate "C",
  user_id uuid,
  attempt integer not null,
  worker_id uuid not null,
  provider text not null,
  pool text not null,
  kind text not null,
  state text not null check (state in ('intent', 'submitted', 'unknown', 'refused', 'settled')),
  -- it may still cost money, and holds a slot of its pool
  is_open boolean not null generated always as (state in ('intent', 'submitted', 'unknown')) stored,
  request_hash text not null,
  fingerprint jsonb not null default '{}',
  estimate_micros bigint not null,
  price_version text not null,
  -- until then only the process that sent the request may say what became of it
  deadline timestamptz not null,
  provider_task_id text,
  provider_request_id text,
  progress smallint,
  cost_micros bigint,
  -- the cost is an upper bound because the outcome stayed unknown
  cost_is_estimate boolean not null default false,
  error_code text,
  provider_code text,
  http_status smallint,
  -- what was stored of the result: enough to finish the job without asking the provider again
  result jsonb,
  created_at timestamptz not null default now(),
  submitted_at timestamptz,
  settled_at timestamptz,
  check (state <> 'submitted' or provider_task_id is not null or result is not null)
) with (fillfactor = 75);
-- paying once: a job has at most one open call
create unique index provider_calls_open on makeit3d.provider_calls (job_id) where is_open;
create unique index provider_calls_provider_task on makeit3d.provider_calls (provider, provider_task_id)
  where provider_task_id is not null;
create index provider_calls_open_pool on makeit3d.provider_calls (pool, state) where is_open;
create index provider_calls_user_open on makeit3d.provider_calls (user_id) where is_open;
create index provider_calls_user on makeit3d.provider_calls (user_id, created_at);
create index provider_calls_job on makeit3d.provider_calls (job_id, created_at);

create table makeit3d.providers (
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
  -- the lease that is the probe; when it has ended without a verdict, another job may be
  probe_job uuid,
  probe_attempt integer,
  updated_at timestamptz not null default now(),
  check ((state = 'closed') = (opened_at is null)),
  check (state = 'closed' or (tripped_at is not null and probe_at is not null and error_code is not null))
) with (fillfactor = 50);

-- A call as processes read it. Once its deadline has passed, anybody may say that the outcome is unknown.
create view makeit3d.calls with (security_invoker = true) as
  select id, job_id, task_id, user_id, worker_id, attempt, provider, pool, kind, state, fingerprint, estimate_micros,
    provider_task_id, provider_request_id, error_code, result, progress, created_at, deadline,
    deadline < now() as expired, extract(epoch from now() - created_at)::float8 as age_seconds
  from makeit3d.provider_calls;
