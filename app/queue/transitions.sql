-- What changes jobs.status after accept.sql and claim.sql; that of advance_dependents stands in dependencies.sql. Each
-- returns makeit3d.changed(…) of the jobs that it changed, and is executed while their tasks are locked. Readers are told
-- by a trigger.

-- name: lock_tasks
-- By id, before anything else of the tasks.
select t.id from makeit3d.tasks t where t.id = any(:task_ids) order by t.id for no key update;

-- name: lock_own_task
-- None where the task is not the user's.
select t.id from makeit3d.tasks t where t.id = :task_id and t.user_id = :user_id for no key update;

-- name: unfinished_tasks_of
-- Tasks of a user that have something to end.
select distinct j.task_id as id from makeit3d.jobs j where j.user_id = :user_id and j.status in ('queued', 'running')
order by j.task_id limit :most;

-- name: finish_jobs
-- How runs ended, also those that want another; a stale lease changes nothing.
update makeit3d.jobs j set
  status = o.status,
  worker_id = null,
  stuck = null,
  waiting_for = case when o.status = 'queued' and o.delay > 0 then o.waiting_for end,
  run_after = case when o.status = 'queued' and o.delay > 0 then now() + make_interval(secs => o.delay) end,
  calls_done = j.calls_done and not o.start_over,
  resume = o.status = 'queued' and not o.start_over and makeit3d.holds_paid_work(j.id, j.calls_done),
  -- work that was paid goes on with the time that is left; without, the next attempt has all of it
  seconds_left = case when o.status = 'queued' and not o.start_over and makeit3d.holds_paid_work(j.id, j.calls_done)
    then greatest(0, extract(epoch from j.deadline - now())) end,
  failures = j.failures + o.failed,
  deferrals = j.deferrals + o.deferred,
  error_code = o.error_code,
  error_message = o.error_message,
  output = coalesce(o.output, j.output),
  usage = coalesce(o.usage, j.usage),
  kept_call = coalesce(o.kept_call, case when not o.drops_kept then j.kept_call end),
  kept_host = coalesce(o.kept_host, case when not o.drops_kept then j.kept_host end),
  kept_until = coalesce(o.kept_until, case when not o.drops_kept then j.kept_until end),
  kept_pictures = coalesce(o.kept_pictures, case when not o.drops_kept then j.kept_pictures end),
  items_done = case when o.status = 'completed' then coalesce(j.items_total, o.items) else j.items_done end,
  items_total = case when o.status = 'completed' then coalesce(j.items_total, nullif(o.items, 0)) else j.items_total end,
  progress = case when o.status = 'completed' then 100 when o.start_over then 0 else j.progress end,
  finished_at = case when o.status = 'queued' then null else now() end
from jsonb_to_recordset(:runs::jsonb) as o(id uuid, worker_id uuid, attempt integer, status text, delay float8,
  waiting_for text, failed integer, deferred integer, start_over boolean, error_code text, error_message text,
  output jsonb, usage jsonb, items integer, kept_call uuid, kept_host text, kept_until timestamptz, kept_pictures smallint[],
  drops_kept boolean)
where j.id = o.id and j.worker_id = o.worker_id and j.attempt = o.attempt and j.status = 'running'
returning makeit3d.changed(j, 'running') as changed, j.waiting_for is not null and not j.resume as freed;

-- name: keep_end
-- How a run ended that could not be written. The lease stays, also when its worker leaves: nobody runs the job again.
update makeit3d.jobs j set stuck = :stuck::jsonb
where j.id = :job_id and j.worker_id = :worker_id and j.attempt = :attempt and j.status = 'running';

-- name: stuck_jobs
-- Running jobs whose end is kept. It is written as it was, or else they fail.
select j.id, j.task_id, j.stuck from makeit3d.jobs j
where j.status = 'running' and j.stuck is not null order by j.id limit :most;

-- name: expire_stuck
-- The end that was kept cannot be written either: one that says so can.
update makeit3d.jobs j set status = 'failed', worker_id = null, resume = false, seconds_left = null, stuck = null,
  error_code = :error_code, error_message = :error_message, finished_at = now(), failures = j.failures + 1
where j.id = any(:job_ids::uuid[]) and j.status = 'running' and j.stuck is not null
returning makeit3d.changed(j, 'running') as changed;

-- name: tasks_of
-- Tasks of jobs that a worker is said to hold.
select distinct j.task_id from makeit3d.jobs j where j.id = any(:job_ids::uuid[]);

-- name: requeue_jobs
-- Leases that a worker holds without knowing: the claim's answer never reached it.
update makeit3d.jobs j set status = 'queued', worker_id = null,
  resume = makeit3d.holds_paid_work(j.id, j.calls_done)
from unnest(:job_ids::uuid[], :attempts::integer[]) as lease(id, attempt)
where j.id = lease.id and j.attempt = lease.attempt and j.worker_id = :worker_id and j.status = 'running'
  and j.stuck is null
returning makeit3d.changed(j, 'running') as changed;

-- name: cancel_jobs
-- Everything unfinished of the tasks, whatever it is doing.
update makeit3d.jobs j set status = 'canceled', worker_id = null, waiting_for = null, run_after = null, resume = false,
  stuck = null, error_code = :error_code, finished_at = now()
from makeit3d.jobs before
where before.id = j.id and j.task_id = any(:task_ids) and j.status in ('queued', 'running')
returning makeit3d.changed(j, before.status) as changed;

-- name: overdue_jobs
-- Running jobs whose deadline passed that long ago.
select j.id, j.task_id from makeit3d.jobs j
where j.status = 'running' and j.stuck is null
  and j.deadline < now() - make_interval(secs => :patience_seconds::float8)
order by j.deadline limit :most;

-- name: expire_deadlines
-- Open calls stay open: they are polled on and their cost is recorded.
update makeit3d.jobs j set status = 'failed', worker_id = null, resume = false, seconds_left = null,
  error_code = :error_code, error_message = :error_message, finished_at = now(), failures = j.failures + 1
where j.id = any(:job_ids::uuid[]) and j.status = 'running' and j.stuck is null
  and j.deadline < now() - make_interval(secs => :patience_seconds::float8)
returning makeit3d.changed(j, 'running') as changed;

-- name: lost_jobs
-- Leases of workers that are gone, one way or another.
select j.id, j.task_id from makeit3d.jobs j
where j.status = 'running' and j.stuck is null
  and not exists (select from makeit3d.workers w where w.id = j.worker_id) and j.started_at < now() - interval '1 second'
order by j.task_id, j.id limit :most;

-- name: expire_leases
-- An intent that another process may still answer parks the job until the call's deadline. Of the runs that crashes
-- leave to a job, the last two are alone, not more: whoever is alone keeps a whole process busy.
update makeit3d.jobs j set
  status = case when j.crashes + 1 >= :max_crashes then 'failed' else 'queued' end,
  worker_id = null,
  crashes = j.crashes + 1,
  alone = j.crashes + 1 >= greatest(2, :max_crashes - 2),
  resume = j.crashes + 1 < :max_crashes and (j.calls_done or c.id is not null),
  waiting_for = case when j.crashes + 1 < :max_crashes and c.state = 'intent' and c.deadline > now() then 'retry' end,
  run_after = case when j.crashes + 1 < :max_crashes and c.state = 'intent' and c.deadline > now() then c.deadline end,
  error_code = case when j.crashes + 1 >= :max_crashes then :error_code else j.error_code end,
  error_message = case when j.crashes + 1 >= :max_crashes then :error_message else j.error_message end,
  finished_at = case when j.crashes + 1 >= :max_crashes then now() end
from makeit3d.jobs k left join makeit3d.provider_calls c on c.job_id = k.id and c.is_open
where k.id = j.id and j.id = any(:job_ids::uuid[]) and j.status = 'running' and j.stuck is null
  and not exists (select from makeit3d.workers w where w.id = j.worker_id)
returning makeit3d.changed(j, 'running') as changed;

-- name: unstarted_jobs
-- Queued past the time in which their request was to be started, and no job of it was.
select j.id, j.task_id from makeit3d.jobs j
where j.status = 'queued' and j.attempt = 0 and j.expires_at <= now()
  and not exists (select from makeit3d.jobs o where o.request_id = j.request_id and o.attempt > 0)
order by j.expires_at limit :most;

-- name: expire_unstarted
-- Whatever they wait for.
update makeit3d.jobs j set status = 'failed', waiting_for = null, run_after = null, resume = false,
  error_code = :error_code, error_message = :error_message, finished_at = now()
where j.id = any(:job_ids::uuid[]) and j.status = 'queued' and j.attempt = 0 and j.expires_at <= now()
  and not exists (select from makeit3d.jobs o where o.request_id = j.request_id and o.attempt > 0)
returning makeit3d.changed(j, 'queued') as changed;

-- name: stranded_jobs
-- Queued for longer than an outage may keep them, and not paid for: the head of each kind of queue that a breaker holds.
select j.id, j.task_id from makeit3d.providers v join makeit3d.pools p on p.provider = v.name
cross join unnest(array['priority', 'normal']) as l(lane) cross join unnest(array[null, 'retry', 'breaker']) as w(word)
cross join lateral (
  select q.id, q.task_id from makeit3d.jobs q
  where q.status = 'queued'
    and makeit3d.queue_kind(q.lane, q.pool, q.waiting_for, q.resume) = makeit3d.queue_kind(l.lane, p.name, w.word, false)
    and q.created_at < now() - make_interval(secs => :max_wait_seconds::float8)
  order by makeit3d.queue_kind(q.lane, q.pool, q.waiting_for, q.resume), q.created_at limit :most
) as j
where v.state <> 'closed' and v.opened_at < now() - make_interval(secs => :max_wait_seconds::float8)
limit :most;

-- name: expire_stranded
-- With the reason of the provider whose breaker is open.
update makeit3d.jobs j set status = 'failed', waiting_for = null, run_after = null,
  error_code = coalesce(v.error_code, j.error_code), error_message = :error_message, finished_at = now()
from makeit3d.pools p join makeit3d.providers v on v.name = p.provider
where p.name = j.pool and j.id = any(:job_ids::uuid[]) and j.status = 'queued' and not j.resume
  and v.state <> 'closed'
returning makeit3d.changed(j, 'queued') as changed;

-- name: advance_steps
-- Within a request: a step starts when every earlier one is completed.
-- Its jobs have waited as rows, or are made now of what an earlier step yielded, here or in the request that this one
-- retries. Of each class as many jobs start as gave a permit back; the others wait for one, where permits are limited.
-- When a job failed, the steps that waited for it fail for the same reason.
-- Conditions that say a thing twice, and offset 0, keep the planner at the indexes of requests, whatever it guesses.
with recursive due as (
  select j.request_id, max(j.step) filter (where j.status = 'completed') as at,
    min(j.step) filter (where j.status = 'queued') as waiting, min(j.trace_id) as trace_id
  from makeit3d.jobs j where j.request_id = any(:completed::uuid[]) group by j.request_id
  having bool_and(j.status = 'completed' or j.waiting_for is not distinct from 'step')
), line as (
  select d.request_id, d.request_id as id from due d
  union all
  select l.request_id, r.retry_of from line l
  cross join lateral (select one.retry_of from makeit3d.requests one where one.id = l.id offset 0) as r
  where r.retry_of is not null
), step as (
  select r.id as request_id, r.task_id, r.user_id, r.operation, r.retry_of, d.trace_id, s.*, d.waiting is not null
    or exists (select from jsonb_array_elements(r.steps) as n where (n ->> 'step')::smallint > s.step) as has_next
  from due d join makeit3d.requests r on r.id = d.request_id and r.id = any(:completed) cross join lateral (
    select * from jsonb_to_recordset(r.steps) as p(step smallint, type text, permit text, provider text, pool text,
      lane text, priority smallint, params jsonb, estimate_micros bigint, price jsonb, participants text[],
      items_from smallint, items_per_job integer)
    where p.items_from is not null and p.step > d.at and (d.waiting is null or p.step < d.waiting)
    order by p.step limit 1
  ) as s
), yielded as (
  select each.request_id, each.key, row_number() over (
    partition by each.request_id order by each.chunk, each.position, each.key) as n
  from (
    select distinct on (s.request_id, i.key) s.request_id, i.key, j.chunk, i.position
    from step s join line l on l.request_id = s.request_id cross join lateral (
      select e.id, e.chunk, e.output from makeit3d.jobs e
      where e.request_id = l.id and e.step = s.items_from offset 0
    ) as j cross join lateral (
      select o.key, o.position from jsonb_array_elements_text(
        case jsonb_typeof(j.output -> 'items') when 'array' then j.output -> 'items' else '[]' end
      ) with ordinality as o(key, position)
      union all
      select d.key, d.position from makeit3d.job_items d
      where d.job_id = j.id and d.status = 'done' and j.output -> 'items' is null
    ) as i
    order by s.request_id, i.key, j.chunk, i.position
  ) as each
), chunk as materialized (
  select s.*, gen_random_uuid() as id, c.chunk, n.jobs, least(s.items_per_job, n.items - c.chunk * s.items_per_job)
    as items
  from step s cross join lateral (
    select count(*)::integer as items, greatest(1, ceil(count(*)::numeric / s.items_per_job))::integer as jobs
    from yielded y where y.request_id = s.request_id
  ) as n cross join lateral generate_series(0, n.jobs - 1) as c(chunk)
), waiting as (
  select n.id, n.request_id, n.user_id, n.permit, n.lane, n.pool, n.priority, n.chunk
  from due d join makeit3d.jobs n on n.request_id = d.request_id and n.step = d.waiting
  where n.request_id = any(:completed) and not exists (select from step s where s.request_id = d.request_id)
  for no key update of n
), starting as (
  select * from waiting
  union all select c.id, c.request_id, c.user_id, c.permit, c.lane, c.pool, c.priority, c.chunk from chunk c
), judged as (
  select s.*, case when :limited::boolean and s.permit <> 'none' and s.user_id is not null and row_number() over (
      partition by s.request_id, s.permit order by s.chunk, s.id) > coalesce(f.permits, 0)
    then 'user_limit' end as waiting_for
  from starting s left join jsonb_to_recordset(:freed::jsonb) as f(request_id uuid, permit text, permits bigint)
    on f.request_id = s.request_id and f.permit = s.permit
), ready as (
  select g.id, g.user_id, g.lane, g.pool, g.priority, g.chunk as position from judged g where g.waiting_for is null
), {tagged}, woken as (
  update makeit3d.jobs j set waiting_for = g.waiting_for, fair_tag = coalesce(tagged.fair_tag, j.fair_tag)
  from judged g left join tagged on tagged.id = g.id
  where j.id = g.id and j.request_id = any(:completed)
  returning j.lane, j.waiting_for
), made as (
  insert into makeit3d.jobs (id, task_id, request_id, user_id, step, chunk, type, permit, provider, pool, lane,
    priority, fair_tag, status, waiting_for, estimate_micros, params, has_next, participants, price, items_total,
    trace_id)
  select c.id, c.task_id, c.request_id, c.user_id, c.step, c.chunk, c.type, c.permit, c.provider, c.pool, c.lane,
    c.priority, coalesce(tagged.fair_tag, 0), 'queued', g.waiting_for,
    makeit3d.share(c.estimate_micros, c.chunk, c.jobs), c.params, c.has_next, coalesce(c.participants, '{}'),
    c.price || case when c.price -> 'micros' is null then '{}' else
      jsonb_build_object('micros', makeit3d.share((c.price ->> 'micros')::bigint, c.chunk, c.jobs)) end,
    c.items, c.trace_id
  from chunk c join judged g on g.id = c.id left join tagged on tagged.id = c.id
  returning id, task_id, request_id, user_id, type, step, lane, status, progress, waiting_for, error_code,
    estimate_micros, price, participants
), item as (
  insert into makeit3d.job_items (job_id, key, position)
  select c.id, y.key, y.n - c.chunk * c.items_per_job from chunk c join yielded y
    on y.request_id = c.request_id and (y.n - 1) / c.items_per_job = c.chunk
), told as (
  insert into makeit3d.events (type, user_id, task_id, payload)
  select 'job_update', m.user_id, m.task_id, makeit3d.job_event(m.task_id, m.id, m.request_id, m.type, m.step,
    m.status, m.progress, m.waiting_for, m.error_code)
  from made m
), ended as (
  update makeit3d.jobs n set status = 'failed', waiting_for = null,
    error_code = x.error_code, error_message = x.error_message, finished_at = now()
  from jsonb_to_recordset(:failed::jsonb) as x(request_id uuid, error_code text, error_message text)
  where n.request_id = x.request_id and n.status = 'queued' and n.waiting_for = 'step' and n.request_id = any(array(
    select (one ->> 'request_id')::uuid from jsonb_array_elements(:failed::jsonb) as one))
  returning makeit3d.changed(n, 'queued') as changed
)
select w.lane, null::jsonb as made, null::jsonb as changed from woken w where w.waiting_for is null
union all
select case when m.waiting_for is null then m.lane end, jsonb_build_object('job_id', m.id, 'type', m.type,
  'step', m.step, 'estimate_micros', m.estimate_micros, 'price', m.price, 'participants', m.participants,
  'request_id', m.request_id, 'task_id', m.task_id, 'user_id', m.user_id, 'operation', s.operation,
  'retry_of', s.retry_of), null
from made m join step s on s.request_id = m.request_id
union all
select null, null, changed from ended;

-- name: refuse_jobs
-- Jobs of this transaction that a participant does not let in.
update makeit3d.jobs j set status = 'failed', waiting_for = null, error_code = :error_code,
  error_message = :error_message, finished_at = now()
where j.id = any(:job_ids::uuid[]) and j.status = 'queued'
returning makeit3d.changed(j, 'queued') as changed;

-- name: roll_up
-- Brings requests and tasks up to date with their jobs, and tells of each task that changed.
with state as (
  select request_id,
    bool_or(status = 'running') or (bool_or(status = 'queued') and bool_or(status = 'completed')) as running,
    bool_or(status = 'queued') as queued,
    bool_or(status = 'failed') as failed,
    bool_or(status = 'canceled') as canceled,
    (array_agg(error_code order by step, chunk) filter (where status = 'failed'))[1] as error_code
  from makeit3d.jobs where request_id = any(:request_ids::uuid[]) group by request_id
), word as (
  select request_id, error_code, case when running then 'running' when queued then 'queued' when failed then 'failed'
    when canceled then 'canceled' else 'completed' end as status
  from state
), request as (
  update makeit3d.requests r set
    status = word.status,
    error_code = word.error_code,
    finished_at = case when word.status in ('queued', 'running') then null else now() end,
    matches = r.matches and (r.explicit_key or word.status not in ('failed', 'canceled'))
  from word where r.id = word.request_id and r.status <> word.status
  returning r.id, r.task_id, r.status
), awaited as (
  -- who waits is told by a transaction of its own: the locks of this one are those of its own tasks
  select distinct e.task_id from request e where e.status in ('completed', 'failed', 'canceled')
    and exists (select from makeit3d.task_dependencies d where d.depends_on_request = e.id and not d.met)
), each as (
  select r.task_id, r.number, coalesce(word.status, r.status) as status
  from makeit3d.requests r left join word on word.request_id = r.id where r.task_id = any(:task_ids)
), outcome as (
  -- active while any request is, else as its newest one ended
  select task_id, coalesce(max(status) filter (where status in ('queued', 'running')),
    (array_agg(status order by number desc))[1]) as status
  from each group by task_id
), changed as (
  update makeit3d.tasks t set status = outcome.status, updated_at = now(),
    finished_at = case when outcome.status in ('queued', 'running') then null else now() end,
    dependents_pending = t.dependents_pending or awaited.task_id is not null
  from outcome left join awaited on awaited.task_id = outcome.task_id
  where t.id = outcome.task_id and (t.status <> outcome.status or awaited.task_id is not null)
  returning t.id, t.user_id, t.status, awaited.task_id is not null as awaited,
    (select b.status from makeit3d.tasks b where b.id = t.id) as before
), event as (
  insert into makeit3d.events (type, user_id, task_id, payload)
  select 'task_update', c.user_id, c.id, makeit3d.task_event(c.id, c.status) from changed c
  where c.status <> c.before
)
select c.id from changed c where c.awaited;
