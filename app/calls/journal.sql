-- name: intend_call
-- Needs a live lease, a running job and (by a unique index) no open call of that job.
insert into makeit3d.provider_calls (id, job_id, task_id, user_id, attempt, worker_id, provider, pool, kind, state,
  request_hash, fingerprint, estimate_micros, price_version, deadline)
select :call_id, j.id, j.task_id, j.user_id, j.attempt, j.worker_id, :provider, :pool, :kind, 'intent', :request_hash,
  :fingerprint, :estimate_micros, :price_version, now() + make_interval(secs => :deadline_seconds)
from makeit3d.jobs j
where j.id = :job_id and j.worker_id = :worker_id and j.attempt = :attempt and j.status = 'running'
for no key update of j

-- name: withdraw_call
-- A row even where there was none: an intent that is still on its way finds its id taken.
insert into makeit3d.provider_calls (id, job_id, task_id, user_id, attempt, worker_id, provider, pool, kind, state,
  request_hash, fingerprint, estimate_micros, price_version, deadline, error_code, cost_micros, settled_at)
select :call_id, j.id, j.task_id, j.user_id, :attempt, :worker_id, :provider, :pool, :kind, 'refused', :request_hash,
  :fingerprint, :estimate_micros, :price_version, now(), :error_code, 0, now()
from makeit3d.jobs j where j.id = :job_id
on conflict (id) do update set state = 'refused', error_code = excluded.error_code, cost_micros = 0, settled_at = now()
  where provider_calls.state = 'intent'

-- name: journal_of_job
-- All calls of a job, oldest first.
select * from makeit3d.calls where job_id = :job_id order by created_at

-- name: call_by_id
-- One call.
select * from makeit3d.calls where id = :call_id

-- name: inherited_call
-- The newest call of a kind of the jobs whose place a job takes, where the provider has its result or works on it.
with recursive line (id, retry_of) as (
  select id, retry_of from makeit3d.jobs where id = :job_id
  union all
  select j.id, j.retry_of from makeit3d.jobs j join line on j.id = line.retry_of
)
select * from (
  select * from makeit3d.calls where job_id in (select id from line where id <> :job_id) and kind = :kind
  order by created_at desc limit 1
) as c
where provider_task_id is not null and (state = 'submitted' or (state = 'settled' and error_code is null))

-- name: submit_call
-- The provider accepted.
with c as (
  update makeit3d.provider_calls set state = 'submitted', submitted_at = now(), provider_task_id = :provider_task_id,
    provider_request_id = :provider_request_id, result = :result, error_code = null
  where id = :call_id and state in ('intent', 'unknown') returning job_id
)
select makeit3d.call_answered(job_id, :last) from c

-- name: refuse_call
-- Nothing was paid.
with c as (
  update makeit3d.provider_calls set state = 'refused', error_code = :error_code, provider_code = :provider_code,
    http_status = :http_status, cost_micros = 0, settled_at = now()
  where id = :call_id and state in ('intent', 'unknown') returning job_id
)
select makeit3d.call_answered(job_id) from c

-- name: lose_call
-- The request left and nobody knows what became of it.
with c as (
  update makeit3d.provider_calls set state = 'unknown', error_code = :error_code, http_status = :http_status
  where id = :call_id and state = 'intent' returning job_id
)
select makeit3d.call_answered(job_id) from c

-- name: abandoned_intents
-- Those of the calls that are mere intents of jobs that nobody runs.
select c.id from makeit3d.provider_calls c where c.id = any(:call_ids) and c.state = 'intent'
  and not exists (select from makeit3d.jobs j where j.id = c.job_id and j.status = 'running')

-- name: take_call_back
-- No byte of the call was sent; the lane of its job where that became claimable.
with c as (
  update makeit3d.provider_calls set state = 'refused', error_code = :error_code, cost_micros = 0, settled_at = now()
  where id = :call_id and state in ('intent', 'unknown') returning job_id
)
select lane from c cross join lateral makeit3d.call_never_left(c.job_id) as lane

-- name: call_is_wanted
-- Whether somebody may still ask for the result of the call.
select exists (select from makeit3d.provider_calls c join makeit3d.jobs j on j.id = c.job_id
  where c.id = :call_id and j.status in ('queued', 'running'))

-- name: settle_call
-- The provider is done with the call. One that succeeded with a result ends the paid work of its job.
with c as (
  update makeit3d.provider_calls set state = 'settled', cost_micros = :cost_micros, cost_is_estimate = :is_estimate,
    error_code = :error_code, result = coalesce(:result, result), settled_at = now(),
    progress = case when :error_code::text is null then 100 else progress end
  where id = :call_id and is_open returning job_id, cost_micros
)
select makeit3d.call_settled(job_id, cost_micros, :error_code::text is null and :result::jsonb is not null) from c

-- name: record_call_progress
-- For the jobs of polled calls and their readers. Never backwards.
with p as (
  select * from unnest(:call_ids::uuid[], :progress::smallint[]) as p(id, progress)
), c as (
  update makeit3d.provider_calls set progress = p.progress from p
  where provider_calls.id = p.id and coalesce(provider_calls.progress, -1) < p.progress
  returning provider_calls.job_id, p.progress
)
select makeit3d.calls_progressed(array_agg(job_id), array_agg(progress)) from c having count(*) > 0

-- name: known_provider_tasks
-- Ids by which the journal knows a provider's tasks since a day before a moment.
select provider_task_id from makeit3d.provider_calls
where provider = :provider and provider_task_id is not null and created_at >= :since::timestamptz - interval '1 day'
