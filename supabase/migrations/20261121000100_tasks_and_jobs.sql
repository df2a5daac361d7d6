-- Tasks, requests and jobs, and what runs them: pools, workers, the journal of paid calls, files and events.
-- Portable to Postgres 15-18, no extension needed. Forward only: never edit an applied file.
set lock_timeout = '5s';

create table public.tasks (
  id text collate "C" primary key check (id ~ '^[A-Za-z0-9_-]{8,64}$'),
  user_id uuid references auth.users (id) on delete set null,
  type text not null default 'generate',
  label text,
  source text not null default 'user' check (source in ('user', 'maintenance')),
  user_relevant boolean not null default true,
  status text not null default 'queued' check (status in ('queued', 'running', 'completed', 'failed', 'canceled')),
  -- numbers of output files handed out so far; never reused
  concepts_reserved integer not null default 0,
  models_reserved integer not null default 0,
  refined_models_reserved integer not null default 0,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  finished_at timestamptz
) with (fillfactor = 80);
create index tasks_user on public.tasks (user_id, created_at desc, id);

create table public.requests (
  id uuid primary key,
  task_id text collate "C" not null references public.tasks (id) on delete cascade,
  user_id uuid references auth.users (id) on delete set null,
  operation text not null,
  -- what the idempotency key is unique within: the task id, or '' where the client sent none
  scope text collate "C" not null,
  idempotency_key text collate "C" not null,
  explicit_key boolean not null,
  body_hash text not null,
  -- an implicit key stops matching when the request fails or is canceled, so that a plain repeat tries again
  matches boolean not null default true,
  status text not null default 'queued' check (status in ('queued', 'running', 'completed', 'failed', 'canceled')),
  -- the job that makes what was asked for
  job_id uuid not null,
  error_code text,
  -- position among the requests of the task; the newest one decides the task's status
  number bigint generated always as identity,
  created_at timestamptz not null default now(),
  finished_at timestamptz
) with (fillfactor = 80);
create unique index requests_idempotency on public.requests (user_id, scope, idempotency_key) where matches;
create index requests_task on public.requests (task_id, number desc);

create table public.pools (
  name text primary key,
  provider text not null,
  slots integer not null check (slots > 0),
  -- fair tag last claimed, per lane
  priority_tag bigint not null default 0,
  normal_tag bigint not null default 0,
  updated_at timestamptz not null default now()
) with (fillfactor = 50);

create table public.workers (
  id uuid primary key,
  name text not null,
  host text not null,
  pid integer not null,
  lanes text[] not null,
  slots integer not null,
  stopping boolean not null default false,
  started_at timestamptz not null default now(),
  seen_at timestamptz not null default now()
) with (fillfactor = 50);

create table public.jobs (
  id uuid primary key,
  task_id text collate "C" not null references public.tasks (id) on delete cascade,
  request_id uuid not null references public.requests (id) on delete cascade,
  user_id uuid references auth.users (id) on delete set null,
  step smallint not null check (step > 0),
  chunk integer not null default 0,
  type text not null,
  provider text,
  pool text not null references public.pools (name),
  lane text not null check (lane in ('priority', 'normal')),
  priority smallint not null check (priority between 0 and 100),
  fair_tag bigint not null,
  status text not null check (status in ('queued', 'running', 'completed', 'failed', 'canceled')),
  waiting_for text check (waiting_for in ('retry', 'user_limit', 'step', 'dependency', 'breaker')),
  run_after timestamptz,
  -- the paid work is already under way or done: continuing needs no slot
  resume boolean not null default false,
  -- the last paid call of the job was accepted; it takes no further slot
  calls_done boolean not null default false,
  -- runs with nothing else in its process, because it was there at repeated crashes
  alone boolean not null default false,
  -- the claim is (worker_id, attempt): every write for the job names both
  worker_id uuid,
  attempt integer not null default 0,
  failures integer not null default 0,
  crashes integer not null default 0,
  deferrals integer not null default 0,
  params jsonb not null,
  output jsonb,
  progress smallint not null default 0 check (progress between 0 and 100),
  cost_micros bigint not null default 0,
  error_code text,
  error_message text,
  created_at timestamptz not null default now(),
  started_at timestamptz,
  finished_at timestamptz,
  unique (task_id, request_id, step, chunk),
  check ((status = 'running') = (worker_id is not null)),
  check (waiting_for is null or status = 'queued'),
  check (run_after is null or waiting_for is not null)
) with (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.02);
-- exactly the claimable rows, in claim order: a claim is a scan of the head whatever waits behind
create index jobs_claimable on public.jobs (lane, pool, priority desc, fair_tag, id)
  where status = 'queued' and waiting_for is null and not resume;
create index jobs_resumable on public.jobs (lane, priority desc, fair_tag, id)
  where status = 'queued' and waiting_for is null and resume;
create index jobs_running_pool on public.jobs (pool) where status = 'running';
create index jobs_running_worker on public.jobs (worker_id) where status = 'running';
create index jobs_due on public.jobs (run_after) where status = 'queued' and run_after is not null;
create index jobs_user_queue on public.jobs (user_id, lane, pool, fair_tag) where status = 'queued';
create index jobs_request on public.jobs (request_id, step);

create table public.provider_calls (
  id uuid primary key,
  -- the journal outlives jobs and tasks: it is the record of money
  job_id uuid references public.jobs (id) on delete set null,
  task_id text collate "C",
  user_id uuid,
  attempt integer not null,
  worker_id uuid not null,
  provider text not null,
  pool text not null,
  kind text not null,
  state text not null check (state in ('intent', 'submitted', 'unknown', 'refused', 'settled')),
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
  -- what was stored of the result: enough to settle the job without asking the provider again
  result jsonb,
  created_at timestamptz not null default now(),
  submitted_at timestamptz,
  settled_at timestamptz,
  check (state <> 'submitted' or provider_task_id is not null or result is not null)
) with (fillfactor = 75);
-- paying once: a job has at most one open call
create unique index provider_calls_open on public.provider_calls (job_id)
  where state in ('intent', 'submitted', 'unknown');
create unique index provider_calls_provider_task on public.provider_calls (provider, provider_task_id)
  where provider_task_id is not null;
create index provider_calls_open_pool on public.provider_calls (pool, state)
  where state in ('intent', 'submitted', 'unknown');
create index provider_calls_job on public.provider_calls (job_id, created_at);

create table public.files (
  id uuid primary key,
  bucket text collate "C" not null,
  key text collate "C" not null,
  task_id text collate "C",
  user_id uuid,
  job_id uuid references public.jobs (id) on delete set null,
  attempt integer,
  kind text not null check (kind in ('input', 'concept', 'model', 'preview')),
  state text not null default 'uploading' check (state in ('uploading', 'stored', 'removed')),
  content_type text not null,
  size bigint check (size >= 0),
  sha256 text,
  width integer,
  height integer,
  -- unguessable part of the never-expiring link; null revokes it
  content_key text,
  created_at timestamptz not null default now(),
  stored_at timestamptz
);
create unique index files_key on public.files (bucket, key) where state <> 'removed';
create index files_job on public.files (job_id);
create index files_uploading on public.files (created_at) where state = 'uploading';

create table public.events (
  id bigint generated always as identity primary key,
  -- a reader goes by (xid, id) below its snapshot's xmin, so a late commit is never skipped
  xid xid8 not null default pg_current_xact_id(),
  type text not null check (type in ('task_update', 'job_update', 'item_update', 'asset_update')),
  user_id uuid,
  task_id text collate "C",
  payload jsonb not null,
  created_at timestamptz not null default now()
);
create index events_user on public.events (user_id, xid, id);
create index events_task on public.events (task_id, id);
