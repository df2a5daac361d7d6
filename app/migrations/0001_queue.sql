-- Tasks, requests and jobs; the pools, workers and fair tags by which jobs are claimed.
-- All of it is internal: schema makeit3d is in no list of exposed schemas.

create table makeit3d.tasks (
  id text collate "C" primary key check (id ~ '^[A-Za-z0-9_-]{8,64}$'),
  user_id uuid references auth.users (id) on delete set null,
  type text not null default 'generate',
  label text,
  source text not null default 'user' check (source in ('user', 'maintenance')),
  user_relevant boolean not null default true,
  status text not null default 'queued' check (status in ('queued', 'running', 'completed', 'failed', 'canceled')),
  -- how many numbers of output files were handed out so far, by kind; they are never reused
  reserved jsonb not null default '{}',
  -- a request of it ended for which others wait that were not told yet
  dependents_pending boolean not null default false,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  finished_at timestamptz
) with (fillfactor = 80);
create index tasks_dependents_pending on makeit3d.tasks (id) where dependents_pending;
create index tasks_user on makeit3d.tasks (user_id, created_at desc, id);

create table makeit3d.requests (
  id uuid primary key,
  task_id text collate "C" not null references makeit3d.tasks (id) on delete cascade,
  user_id uuid references auth.users (id) on delete set null,
  operation text not null,
  -- what the client set of the task type's parameters; inputs as lasting URLs of their objects, which open nothing
  params jsonb not null default '{}',
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
  -- the steps as they were planned, so that no deploy changes the way of a request under way
  steps jsonb not null default '[]',
  -- an operator's retry of a failed request is a new request of the same task: final states stay final
  retry_of uuid references makeit3d.requests (id) on delete set null,
  error_code text,
  -- position among the requests of the task; the newest one decides the task's status
  number bigint generated always as identity,
  created_at timestamptz not null default now(),
  finished_at timestamptz
) with (fillfactor = 80);
create unique index requests_idempotency on makeit3d.requests (user_id, scope, idempotency_key) where matches;
create index requests_task on makeit3d.requests (task_id, number desc);
-- a failed request is retried once; when that fails, it is the retry that is retried
create unique index requests_retry on makeit3d.requests (retry_of) where retry_of is not null;

create table makeit3d.pools (
  name text primary key,
  provider text not null,
  -- null: who claims is the only limit
  slots integer check (slots > 0),
  updated_at timestamptz not null default now()
) with (fillfactor = 50);

-- the fair tag last claimed
create table makeit3d.pool_tags (
  pool text not null references makeit3d.pools (name) on delete cascade,
  lane text not null check (lane in ('priority', 'normal')),
  priority smallint not null,
  tag bigint not null,
  primary key (pool, lane, priority)
) with (fillfactor = 50);

-- the fair tag last given to a job of the user, also when that job is no longer queued
create table makeit3d.user_tags (
  user_id uuid not null references auth.users (id) on delete cascade,
  pool text not null references makeit3d.pools (name) on delete cascade,
  lane text not null check (lane in ('priority', 'normal')),
  priority smallint not null,
  tag bigint not null,
  primary key (user_id, pool, lane, priority)
) with (fillfactor = 50);

create table makeit3d.workers (
  id uuid primary key,
  name text not null,
  host text not null,
  pid integer not null,
  -- of the code that the process runs, so that one that an update forgot is found
  version text not null default '',
  lanes text[] not null,
  -- it claims no other, and jobs that no live process handles are found
  job_types text[] not null default '{}',
  slots integer not null,
  stopping boolean not null default false,
  started_at timestamptz not null default now(),
  seen_at timestamptz not null default now()
) with (fillfactor = 50);

create table makeit3d.jobs (
  id uuid primary key,
  task_id text collate "C" not null references makeit3d.tasks (id) on delete cascade,
  request_id uuid not null references makeit3d.requests (id) on delete cascade,
  user_id uuid references auth.users (id) on delete set null,
  step smallint not null check (step > 0),
  chunk integer not null default 0,
  type text not null,
  -- what it takes of its user while it runs
  permit text not null default 'paid' check (permit in ('paid', 'gpu', 'none')),
  provider text,
  pool text not null references makeit3d.pools (name),
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
  -- of a running job that has not been submitted: it has the slot, it gave it back while pictures are decoded, or it
  -- waits to have it again
  slot text not null default 'held' check (slot in ('held', 'lent', 'wanted')),
  -- runs with nothing else in its process, because it was there at repeated crashes
  alone boolean not null default false,
  -- the lease is (worker_id, attempt): every write for the job names both
  worker_id uuid,
  attempt integer not null default 0,
  failures integer not null default 0,
  crashes integer not null default 0,
  deferrals integer not null default 0,
  -- when the current run must have ended; time in the queue does not count
  deadline timestamptz,
  -- what is left of the job's time when another run goes on with what was paid; null: all of it
  seconds_left double precision,
  params jsonb not null,
  output jsonb,
  -- who takes part in the transactions in which it is accepted and ends
  participants text[] not null default '{}',
  -- what it costs its user, frozen when it was accepted, and what it used of that
  price jsonb,
  usage jsonb,
  -- of what it works through; null where that is not counted
  items_total integer,
  items_done integer not null default 0,
  -- later steps of its request wait for it
  has_next boolean not null default false,
  -- how its run ended, where that could not be written: the lease stays, nobody runs it again, and maintenance tries on
  stuck jsonb,
  -- it fails unless its request was started by then
  expires_at timestamptz,
  progress smallint not null default 0 check (progress between 0 and 100),
  -- what the paid calls of the job may cost, said when it was accepted
  estimate_micros bigint not null default 0,
  cost_micros bigint not null default 0,
  -- the failed job whose place this one takes; it goes on with what that one paid for
  retry_of uuid references makeit3d.jobs (id) on delete set null,
  -- A paid result that storage refused for good is in the spool of this host, under the call that paid for it, until
  -- then. A queued job that has one runs there.
  kept_call uuid,
  kept_host text,
  kept_until timestamptz,
  -- which pictures of the reply are still to be stored, in the order of the rows that want them
  kept_pictures smallint[],
  error_code text,
  error_message text,
  -- W3C trace id of the HTTP request that the job comes from, so that logs of all processes meet
  trace_id text check (trace_id ~ '^[0-9a-f]{32}$'),
  created_at timestamptz not null default now(),
  started_at timestamptz,
  finished_at timestamptz,
  unique (task_id, request_id, step, chunk),
  check ((status = 'running') = (worker_id is not null)),
  check (waiting_for is null or status = 'queued'),
  check (run_after is null or waiting_for is not null),
  constraint jobs_kept check (num_nonnulls(kept_call, kept_host, kept_until) in (0, 3))
) with (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.02);
-- exactly the claimable rows, in claim order: a claim is a scan of the head of each type that it handles, whatever waits
-- behind it and of whatever other types
create index jobs_claimable on makeit3d.jobs (lane, pool, type, priority desc, fair_tag, id)
  where status = 'queued' and waiting_for is null and not resume;
create index jobs_resumable on makeit3d.jobs (lane, priority desc, fair_tag, id)
  where status = 'queued' and waiting_for is null and resume;
-- jobs that were claimed before and will be again, with the tag they had
create index jobs_backing_off on makeit3d.jobs (lane, pool, priority, fair_tag)
  where status = 'queued' and waiting_for in ('retry', 'breaker') and not resume;
create index jobs_due on makeit3d.jobs (run_after) where status = 'queued' and run_after is not null;
create index jobs_running_pool on makeit3d.jobs (pool) where status = 'running';
create index jobs_running_worker on makeit3d.jobs (worker_id) where status = 'running';
create index jobs_deadline on makeit3d.jobs (deadline) where status = 'running';
create index jobs_unstarted on makeit3d.jobs (expires_at)
  where status = 'queued' and attempt = 0 and expires_at is not null;
create index jobs_stuck on makeit3d.jobs (id) where status = 'running' and stuck is not null;
create index jobs_request on makeit3d.jobs (request_id, step);
create index jobs_user_open on makeit3d.jobs (user_id, task_id) where status in ('queued', 'running');
-- jobs that hold one of their user's permits; a retry keeps it
create index jobs_user_in_flight on makeit3d.jobs (user_id, permit, id)
  where status in ('queued', 'running') and (waiting_for is null or waiting_for in ('retry', 'breaker'));
-- jobs that wait for a permit, in the order in which they get it
create index jobs_user_waiting on makeit3d.jobs (user_id, permit, priority desc, created_at, id)
  where status = 'queued' and waiting_for = 'user_limit';
create index jobs_retry on makeit3d.jobs (retry_of) where retry_of is not null;
create index jobs_failed on makeit3d.jobs (finished_at desc) where status = 'failed';
create index jobs_kept on makeit3d.jobs (kept_call) where kept_call is not null;
-- Monitoring counts what waits, by reason, without reading all of it. One expression, so that no claim takes this index
-- for its own.
create function makeit3d.queue_kind(lane text, pool text, waiting_for text, resume boolean) returns text
language sql immutable as $$
  select lane || '/' || pool || '/' || coalesce(waiting_for, '') || case when resume then '/resume' else '' end
$$;
create index jobs_queue on makeit3d.jobs (makeit3d.queue_kind(lane, pool, waiting_for, resume), created_at)
  where status = 'queued';

-- What a job works through, one row each; a bad one fails no job.
create table makeit3d.job_items (
  job_id uuid not null references makeit3d.jobs (id) on delete cascade,
  key text collate "C" not null,
  position integer not null,
  status text not null default 'pending' check (status in ('pending', 'done', 'skipped', 'failed')),
  error_code text,
  error_message text,
  output jsonb,
  updated_at timestamptz not null default now(),
  primary key (job_id, key)
) with (fillfactor = 80);
-- what another run of the job goes on with
create index job_items_pending on makeit3d.job_items (job_id, position) where status = 'pending';

-- What a request waits for in other tasks: the request that was their newest when it was accepted. So a request depends
-- on earlier ones alone, and there is no cycle.
create table makeit3d.task_dependencies (
  request_id uuid not null references makeit3d.requests (id) on delete cascade,
  task_id text collate "C" not null references makeit3d.tasks (id) on delete cascade,
  depends_on text collate "C" not null references makeit3d.tasks (id) on delete cascade,
  depends_on_request uuid not null references makeit3d.requests (id) on delete cascade,
  -- that request ended, and this one was told
  met boolean not null default false,
  primary key (request_id, depends_on),
  check (depends_on <> task_id)
) with (fillfactor = 80);
create index task_dependencies_open on makeit3d.task_dependencies (depends_on_request, task_id) where not met;
create index task_dependencies_of_task on makeit3d.task_dependencies (depends_on, task_id) where not met;
