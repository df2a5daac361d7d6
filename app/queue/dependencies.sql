-- Requests that wait for requests of other tasks. A request depends on one that was there before it: no cycle can be.

-- name: lock_own_tasks
-- Those of the tasks that are the user's, by id, before anything else of them.
select t.id from makeit3d.tasks t where t.id = any(:task_ids) and t.user_id = :user_id order by t.id for no key update;

-- name: newest_requests
-- What a task stands for when another depends on it: its newest request. Executed while the tasks are locked.
select t.id as task_id, r.id as request_id, r.status from makeit3d.tasks t
cross join lateral (
  select n.id, n.status from makeit3d.requests n where n.task_id = t.id order by n.number desc limit 1) as r
where t.id = any(:task_ids) and t.user_id = :user_id;

-- name: add_dependencies
-- Of a request that was just accepted; those that are completed already hold nothing back.
insert into makeit3d.task_dependencies (request_id, task_id, depends_on, depends_on_request, met)
select :request_id, :task_id, x.depends_on, x.request_id, x.met
from unnest(:depends_on::text[], :requests::uuid[], :met::boolean[]) as x(depends_on, request_id, met);

-- name: pending_dependents
-- Tasks that have word for their dependents, each with the tasks of those; null where none is left.
select p.id as task_id, d.task_id as dependent from (
  select t.id from makeit3d.tasks t
  where t.dependents_pending and (:task_ids::text[] is null or t.id = any(:task_ids)) and t.id <> all(:without::text[])
  order by t.id limit :most
) as p left join lateral (
  select d.task_id from makeit3d.task_dependencies d join makeit3d.requests r on r.id = d.depends_on_request
  where d.depends_on = p.id and not d.met and r.status in ('completed', 'failed', 'canceled')
  order by d.task_id
) as d on true
order by p.id, d.task_id limit :most;

-- name: advance_dependents
-- One level: jobs whose last dependency is completed become claimable, or wait for a permit of their user where there
-- are limits; those of which a dependency did not complete fail. Executed while all of these tasks are locked.
with met as (
  update makeit3d.task_dependencies d set met = true from makeit3d.requests r
  where d.depends_on = any(:task_ids::text[]) and d.task_id = any(:dependents::text[]) and not d.met
    and r.id = d.depends_on_request and r.status in ('completed', 'failed', 'canceled')
  returning d.request_id, d.depends_on, r.status, r.error_code
), failed as (
  select distinct on (request_id) request_id, depends_on, status, error_code from met
  where status <> 'completed' order by request_id, depends_on
), ended as (
  update makeit3d.jobs n set status = 'failed', waiting_for = null, error_code = :error_code, finished_at = now(),
    error_message = format('The task %s, which it depends on, %s.', f.depends_on, case f.status
      when 'canceled' then 'was canceled' else 'failed: ' || coalesce(f.error_code, 'internal_error') end)
  from failed f where n.request_id = f.request_id and n.status = 'queued' and n.waiting_for = 'dependency'
  returning makeit3d.changed(n, 'queued') as changed
), free as (
  select n.id, n.user_id, n.lane, n.pool, n.priority, n.step as position,
    :limited and n.permit <> 'none' and n.user_id is not null as needs_permit
  from makeit3d.jobs n
  where n.request_id in (select request_id from met) and n.status = 'queued' and n.waiting_for = 'dependency'
    and not exists (select from failed f where f.request_id = n.request_id)
    and not exists (
      select from makeit3d.task_dependencies d where d.request_id = n.request_id and not d.met and not exists (
        select from met m where m.request_id = d.request_id and m.depends_on = d.depends_on))
  for no key update of n
), ready as (
  select * from free where not needs_permit
), {tagged}, woken as (
  update makeit3d.jobs j set waiting_for = null, fair_tag = tagged.fair_tag from tagged where j.id = tagged.id
  returning j.task_id, j.user_id, j.lane, false as needs_permit
), held as (
  update makeit3d.jobs j set waiting_for = 'user_limit' from free f where j.id = f.id and f.needs_permit
  returning j.task_id, j.user_id, j.lane, true as needs_permit
), told as (
  update makeit3d.tasks t set dependents_pending = exists (
    select from makeit3d.task_dependencies d join makeit3d.requests r on r.id = d.depends_on_request
    where d.depends_on = t.id and not d.met and r.status in ('completed', 'failed', 'canceled')
      and d.task_id <> all(:dependents::text[]))
  where t.id = any(:task_ids::text[])
)
select task_id, user_id, lane, needs_permit, null::jsonb as changed from woken
union all select task_id, user_id, lane, needs_permit, null from held
union all select null, null, null, null, changed from ended;
