-- name: accept_request
-- Task, request, jobs, outputs and events of one request, or nothing: the request that is stored under its key, or
-- the word that its task belongs to somebody else. Rows that outputs are made from are locked first: clients may delete
-- theirs at any moment, and the foreign key would refuse the whole request.
with existing as (
  select r.id, r.task_id, r.job_id, r.body_hash, r.status from makeit3d.requests r
  where r.user_id = :user_id and r.scope = :scope and r.idempotency_key = :idempotency_key and r.matches
), task as (
  insert into makeit3d.tasks (id, user_id, reserved)
  select :task_id, :user_id, :reserved::jsonb where not exists (select from existing)
  on conflict (id) do update set
    status = case when tasks.status in ('queued', 'running') then tasks.status else 'queued' end,
    finished_at = null,
    updated_at = now(),
    reserved = makeit3d.add_counts(tasks.reserved, excluded.reserved)
  where tasks.user_id = excluded.user_id
  returning id, status, reserved
), request as (
  insert into makeit3d.requests (id, task_id, user_id, operation, scope, idempotency_key, explicit_key, body_hash,
    job_id, retry_of, steps, params)
  select :request_id, task.id, :user_id, :operation, :scope, :idempotency_key, :explicit_key, :body_hash, :job_id,
    :retry_of, :steps::jsonb, :params::jsonb
  from task
  returning id, user_id
), planned as (
  select p.*, case
      when p.later then 'step'
      when p.blocked then 'dependency'
      when row_number() over (partition by p.later, p.permit order by p.step, p.id)
        > (:permits::jsonb ->> p.permit)::bigint then 'user_limit'
    end as waiting_for
  from jsonb_to_recordset(:jobs::jsonb) as p(id uuid, step smallint, chunk integer, type text, permit text,
    provider text, pool text, lane text, priority smallint, estimate_micros bigint, params jsonb, later boolean,
    has_next boolean, retry_of uuid, paid boolean, participants text[], price jsonb, items text[], kept_call uuid,
    kept_host text, kept_until timestamptz,
    kept_pictures smallint[], blocked boolean, expires_in float8)
), ready as (
  select p.id, request.user_id, p.lane, p.pool, p.priority, p.step as position
  from planned p, request where p.waiting_for is null
), {tagged}, job as (
  insert into makeit3d.jobs (id, task_id, request_id, user_id, step, chunk, type, permit, provider, pool, lane,
    priority, fair_tag, status, waiting_for, estimate_micros, params, has_next, retry_of, resume, calls_done,
    participants, price, items_total, trace_id, kept_call, kept_host, kept_until, kept_pictures, expires_at)
  select p.id, task.id, request.id, :user_id, p.step, p.chunk, p.type, p.permit, p.provider, p.pool, p.lane, p.priority,
    coalesce(tagged.fair_tag, 0), 'queued', p.waiting_for, p.estimate_micros, p.params, p.has_next, p.retry_of, p.paid,
    p.paid, coalesce(p.participants, '{}'), p.price, cardinality(p.items), :trace_id, p.kept_call, p.kept_host, p.kept_until, p.kept_pictures,
    now() + make_interval(secs => p.expires_in)
  from task, request, planned p left join tagged on tagged.id = p.id
  returning id, task_id, request_id, user_id, type, step, status, progress, waiting_for, error_code, pool,
    resume
), item as (
  insert into makeit3d.job_items (job_id, key, position)
  select p.id, i.key, i.position from request, planned p, unnest(p.items) with ordinality as i(key, position)
), plan as (
  select a.*, row_number() over (partition by a.kind order by a.position) - 1 + (task.reserved ->> a.kind)::integer
    - (:reserved::jsonb ->> a.kind)::integer as number
  from task, jsonb_to_recordset(:assets::jsonb) as a(id uuid, kind text, position integer, job_id uuid, prompt text,
    style text, source_input_asset_id uuid, source_concept_image_id uuid, source_model_id uuid, metadata jsonb)
), kept as (
  {sources}
  union all select id from plan
), {insert_outputs}, input as (
  update {inputs} i
  set status = 'complete', width = coalesce(x.width, i.width), height = coalesce(x.height, i.height),
    updated_at = now()
  from jsonb_to_recordset(:inputs::jsonb) as x(id uuid, width integer, height integer), request
  where i.id = x.id and i.user_id = :user_id and i.status in ('pending', 'processing')
  returning i.id, i.status
), event as (
  insert into makeit3d.events (type, user_id, task_id, payload)
  select 'task_update', :user_id, task.id,
    makeit3d.task_event(task.id, task.status) || jsonb_build_object('request_id', request.id)
  from task, request
  union all
  select 'job_update', user_id, task_id, makeit3d.job_event(task_id, id, request_id, type, step, status, progress,
    waiting_for, error_code)
  from job
  union all
  select 'asset_update', :user_id, task.id,
    makeit3d.asset_event(task.id, changed.id, changed.table_name, changed.status, null, null)
  from task, (select id, table_name, status from output union all select id, 'input_assets', status from input)
    as changed
)
select existing.id as existing_id, existing.task_id, existing.job_id, existing.body_hash, existing.status,
  request.id is not null as accepted,
  exists (select from job where job.waiting_for = 'user_limit') as waits,
  exists (select from job where job.waiting_for is null and (job.resume or makeit3d.has_room(job.pool))) as has_room
from (select) as one left join existing on true left join request on true;

-- name: look_up
-- Whether the task is somebody else's, and the live request under the key.
select exists (select from makeit3d.tasks where id = :task_id and user_id is distinct from :user_id) as task_is_foreign,
  r.id, r.task_id, r.job_id, r.body_hash, r.status
from (select) as one left join makeit3d.requests r
  on r.user_id = :user_id and r.scope = :scope and r.idempotency_key = :idempotency_key and r.matches;
