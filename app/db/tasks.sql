-- name: status_of_task
-- What a status document of the newest request of a user's task is made of.
with request as (
  select r.id, r.task_id, r.operation, r.job_id, r.retry_of, false as single_job,
    jsonb_array_length(r.steps) as steps
  from makeit3d.requests r join makeit3d.tasks t on t.id = r.task_id
  where t.id = :task_id and t.user_id = :user_id order by r.number desc limit 1
)
select request.*, (
  select coalesce(json_agg(makeit3d.told_job(j, wait.reason, wait.error_code, wait.probe_seconds)
    order by j.step, j.chunk), '[]')
  from makeit3d.jobs j cross join lateral makeit3d.wait_of(j) as wait where j.request_id = request.id
) as jobs, (
  select coalesce(json_agg(json_build_object('kind', a.kind, 'id', a.id, 'job_id', a.job_id, 'number', a.number,
    'status', a.status, 'asset_url', a.asset_url, 'preview_url', a.preview_url, 'error_code', a.error_code)
    order by a.number), '[]') from (
-- each table union all
    select {kind} as kind, id, job_id, number, status, asset_url, preview_url, error_code
    from {table} where request_id = request.id
-- end
  ) as a
) as assets
from request

-- name: status_of_job
-- The same of the request of one job. A statement of its own: a plan for both is slow to begin.
with request as (
  select r.id, r.task_id, r.operation, j.id as job_id, r.retry_of, true as single_job, 1 as steps from makeit3d.jobs j
  join makeit3d.requests r on r.id = j.request_id join makeit3d.tasks t on t.id = j.task_id
  where j.id = :job_id and t.user_id = :user_id
)
select request.*, (
  select coalesce(json_agg(makeit3d.told_job(j, wait.reason, wait.error_code, wait.probe_seconds)
    order by j.step, j.chunk), '[]')
  from makeit3d.jobs j cross join lateral makeit3d.wait_of(j) as wait where j.request_id = request.id
) as jobs, (
  select coalesce(json_agg(json_build_object('kind', a.kind, 'id', a.id, 'job_id', a.job_id, 'number', a.number,
    'status', a.status, 'asset_url', a.asset_url, 'preview_url', a.preview_url, 'error_code', a.error_code)
    order by a.number), '[]') from (
-- each table union all
    select {kind} as kind, id, job_id, number, status, asset_url, preview_url, error_code
    from {table} where request_id = request.id
-- end
  ) as a
) as assets
from request

-- name: task_of_user
-- A task, where it is the user's.
select id, type, label, status, user_relevant, created_at, updated_at, finished_at from makeit3d.tasks
where id = :task_id and user_id = :user_id

-- name: task_is_foreign
-- Whether the task id belongs to somebody else.
select exists (select from makeit3d.tasks where id = :task_id and user_id is distinct from :user_id)

-- name: tasks_of_user
-- A page of the user's tasks, newest first, behind the last one of the page before.
select id, type, label, status, user_relevant, created_at, updated_at, finished_at from makeit3d.tasks
where user_id = :user_id and (:status::text is null or status = :status)
  and (:before_time::timestamptz is null or (created_at, id) < (:before_time, :before_id::text collate "C"))
order by created_at desc, id desc limit :limit

-- name: requests_of_task
-- The requests of a task with their jobs, oldest first.
select r.id, r.operation, r.status, r.job_id, r.error_code, r.created_at, r.finished_at, r.retry_of, array(
  select d.depends_on from makeit3d.task_dependencies d where d.request_id = r.id order by d.depends_on
) as depends_on, (
  select coalesce(jsonb_agg(jsonb_build_object('id', j.id, 'step', j.step, 'chunk', j.chunk, 'type', j.type,
    'status', j.status, 'progress', j.progress, 'items_done', j.items_done, 'items_total', j.items_total,
    'waiting_for', wait.reason, 'error_code', wait.error_code, 'cost_micros', j.cost_micros) order by j.step, j.chunk), '[]')
  from makeit3d.jobs j cross join lateral makeit3d.wait_of(j) as wait where j.request_id = r.id
) as jobs from makeit3d.requests r where r.task_id = :task_id order by r.number
