-- name: failed_requests
-- Requests that failed and were not retried, the newest first; or the one asked for, whatever became of it.
-- Calls are those of a job and of those whose place it took. The newest may still be good for something: a polled
-- provider's are, whose result can be fetched again; what a reply brought went with the reply, unless storage refused it.
select f.* from (
  select r.id as request_id, j.id as job_id, r.task_id, r.user_id, r.operation, j.step, j.type, j.provider,
    coalesce(j.error_code, (
      select min(a.error_code) from (
-- each table union all
        select job_id, status, error_code from {table}
-- end
      ) as a where a.job_id = j.id and a.status = 'failed' and a.error_code = any(:refused_codes::text[])),
      'internal_error') as error_code,
    j.error_message, j.failures, j.crashes, j.finished_at,
    (select coalesce(sum(o.cost_micros), 0)::bigint from makeit3d.jobs o where o.request_id = r.id) as cost_micros,
    coalesce(money.keeps, false) as keeps_paid_work, coalesce(money.again, 0)::bigint as paid_again_micros,
    (select n.id from makeit3d.requests n where n.retry_of = r.id) as retried_by,
    j.kept_call, j.kept_host, j.kept_until, j.kept_pictures, kept.in_reach as kept_is_in_reach
  from makeit3d.jobs j join makeit3d.requests r on r.id = j.request_id
  cross join lateral (
    select coalesce(j.kept_until > now(), false)
      and exists (select from makeit3d.workers w where w.host = j.kept_host and not w.stopping) as in_reach
  ) as kept
  cross join lateral (
    with recursive line (id, retry_of) as (
      select j.id, j.retry_of
      union all select o.id, o.retry_of from makeit3d.jobs o join line on o.id = line.retry_of
    ), calls as (
      select c.state, coalesce(c.cost_micros, c.estimate_micros) as micros,
        (row_number() over (order by c.created_at desc) = 1 and c.provider_task_id is not null and c.estimate_micros > 0
          and (c.state = 'submitted' or (c.state = 'settled' and c.error_code is null)))
        or (c.id = j.kept_call and kept.in_reach) as good
      from makeit3d.provider_calls c join line on c.job_id = line.id
    )
    select bool_or(good) as keeps, sum(micros) filter (where not good) as again from calls
  ) as money
  where case r.status when 'failed' then j.status = 'failed' and not exists (
        select from makeit3d.jobs o where o.request_id = j.request_id and o.status = 'failed'
          and (o.step, o.chunk, o.id) < (j.step, j.chunk, j.id))
      when 'completed' then j.kept_call is not null end
    and (:request_id::uuid is null or r.id = :request_id)
) as f
where (:request_id is not null or f.retried_by is null)
  and (:since_seconds::float8 is null or f.finished_at > now() - make_interval(secs => :since_seconds))
  and (:code::text is null or f.error_code = :code) and (:user_id::uuid is null or f.user_id = :user_id)
order by f.finished_at desc limit :limit

-- name: request_of
-- The request that a job, a request or (its newest one) a task stands for.
select coalesce((select request_id from makeit3d.jobs where id::text = :id),
  (select id from makeit3d.requests where id::text = :id),
  (select id from makeit3d.requests where task_id = :id order by number desc limit 1))

-- name: unfinished_jobs_of
-- Jobs of a failed request that have no result; of a completed one those that lack what storage refused.
select j.id, j.step, j.chunk, j.type, j.permit, j.provider, j.pool, j.lane, j.priority, j.params, j.estimate_micros,
  j.participants, j.price, array(select i.key from makeit3d.job_items i
    where i.job_id = j.id and i.status = 'pending' order by i.position) as items
from makeit3d.jobs j join makeit3d.requests r on r.id = j.request_id
where r.id = :request_id and case r.status when 'failed' then j.status = 'failed' else j.kept_call is not null end
order by j.step, j.chunk

-- name: empty_outputs_of
-- The asset rows that these jobs left empty; of a job that completed those that storage refused.
select a.id, a.kind, a.job_id, a.prompt, a.style, a.source_input_asset_id, a.source_concept_image_id,
  a.source_model_id, a.metadata
from (
-- each table union all
  select id, {kind} as kind, number, status, error_code, job_id, prompt, style, {source_input_asset_id},
    {source_concept_image_id}, {source_model_id}, metadata from {table}
-- end
) as a
where a.job_id = any(:job_ids::uuid[]) and a.status = 'failed' and (a.error_code = any(:refused_codes::text[])
  or exists (select from makeit3d.jobs j where j.id = a.job_id and j.status = 'failed'))
order by a.kind, a.number

-- name: plan_of_request
-- What the client of a request had set, and those of its steps of which no job is completed.
select r.params, (
  select coalesce(jsonb_agg(s order by n), '[]') from jsonb_array_elements(r.steps) with ordinality as each(s, n)
  where not exists (select from makeit3d.jobs j
    where j.request_id = r.id and j.step = (s ->> 'step')::smallint and j.status = 'completed')
) as steps
from makeit3d.requests r where r.id = :request_id

-- name: jobs_of_request
-- In their order.
select id from makeit3d.jobs where request_id = :request_id order by step, chunk

-- name: calls_of_job
-- Paid calls of a job, oldest first.
select id, kind, state, provider_task_id, provider_request_id, cost_micros, cost_is_estimate, estimate_micros,
  error_code, provider_code, http_status, attempt, created_at, submitted_at, settled_at, deadline
from makeit3d.provider_calls where job_id = :job_id order by created_at

-- name: files_of_job
-- Files of a job, oldest first.
select key, kind, state, size, content_type, attempt, created_at, stored_at from makeit3d.files
where job_id = :job_id order by created_at

-- name: outputs_of_job
-- Asset rows of a job.
-- each table union all
select {kind} as kind, id, number, status, error_code from {table} where job_id = :job_id
-- end
order by kind, number

-- name: told_of_job
-- The newest events of a job.
select created_at, payload->>'status' as status, payload->>'progress' as progress,
  payload->>'waiting_for' as waiting_for, payload->>'error_code' as error_code from makeit3d.events
where task_id = :task_id and type = 'job_update' and payload->>'job_id' = :job_id order by id desc limit :limit

-- name: job_in_full
-- A job, with its worker and what it waits for.
select j.id, j.task_id, j.request_id, j.user_id, j.step, (
    select format('%s of %s', j.chunk + 1, count(*)) from makeit3d.jobs o
    where o.request_id = j.request_id and o.step = j.step having count(*) > 1) as chunk, j.type, j.provider, j.pool, j.lane, j.priority, j.status,
  wait.reason as waiting_for, case wait.reason when 'dependency' then (
    select string_agg(d.depends_on, ' ' order by d.depends_on) from makeit3d.task_dependencies d
    where d.request_id = j.request_id and not d.met) end as waits_for_tasks, j.run_after, j.expires_at, j.resume, j.calls_done, j.alone, j.worker_id, w.name as worker,
  w.seen_at as worker_seen_at, j.attempt, j.failures, j.crashes, j.deferrals, j.progress,
  case when j.items_total is not null then format('%s of %s', j.items_done, j.items_total) end as items, j.cost_micros,
  wait.error_code, j.error_message, j.stuck #>> '{columns,status}' as end_not_written, j.created_at, j.started_at, j.deadline, j.finished_at, j.retry_of, j.trace_id,
  r.operation, j.kept_host, j.kept_until
from makeit3d.jobs j join makeit3d.requests r on r.id = j.request_id
left join makeit3d.workers w on w.id = j.worker_id cross join lateral makeit3d.wait_of(j) as wait
where j.id = :job_id

-- name: dependencies_left
-- Tasks that a request depends on, and whose request did not complete.
select d.depends_on from makeit3d.task_dependencies d join makeit3d.requests r on r.id = d.depends_on_request
where d.request_id = :request_id and r.status <> 'completed' order by d.depends_on
