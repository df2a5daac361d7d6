-- name: lock_user
-- From here to the end of the transaction nobody else gives out permits or budget of the user; the key is "user" in ASCII.
select pg_advisory_xact_lock(1970500978, hashtext(:user_id::uuid::text))

-- name: load_of_user
-- What the user has under way. Only what some limit asks for is counted, and only up to that limit. A job reserves its
-- estimate until its calls cost more, a step whose jobs are made later its own until then.
select
  case when :in_flight::bigint is null then '{}' else jsonb_build_object(
    'paid', makeit3d.permits_held(:user_id, 'paid', :in_flight),
    'gpu', makeit3d.permits_held(:user_id, 'gpu', :in_flight)) end as in_flight,
  case when :unfinished::bigint is null then 0 else makeit3d.unfinished_jobs(:user_id, :unfinished) end as unfinished,
  case when not :with_spent::boolean then 0 else (
    select coalesce(sum(coalesce(c.cost_micros, c.estimate_micros)), 0) from makeit3d.provider_calls c
    where c.user_id = :user_id and c.created_at >= date_trunc('day', now(), 'UTC')
  )::bigint + (
    select coalesce(sum(case when j.attempt = 0 then j.estimate_micros else greatest(0, j.estimate_micros - coalesce((
      select sum(coalesce(c.cost_micros, c.estimate_micros)) from makeit3d.provider_calls c
        where c.job_id = j.id), 0)) end), 0)
    from makeit3d.jobs j where j.user_id = :user_id and j.status in ('queued', 'running')
  )::bigint + (
    -- steps whose jobs are made later, request by request: joined, all requests might be read
    select coalesce(sum((s ->> 'estimate_micros')::bigint), 0) from (
      select distinct j.request_id as id from makeit3d.jobs j
      where j.user_id = :user_id and j.status in ('queued', 'running') and j.has_next
    ) as open cross join lateral (
      select r.steps from makeit3d.requests r where r.id = open.id offset 0
    ) as request cross join lateral jsonb_array_elements(request.steps) as s
    where s ->> 'items_from' is not null and coalesce((
      select false from makeit3d.jobs j where j.request_id = open.id and j.step = (s ->> 'step')::smallint limit 1), true)
  )::bigint end as spent_micros,
  extract(epoch from date_trunc('day', now(), 'UTC') + interval '1 day' - now())::float8 as day_left_seconds

-- name: release_permits
-- Jobs of a user that wait for a permit become claimable, as many as are free: the most urgent, then the oldest.
with ready as (
  select j.*, row_number() over () as position from (values ('paid'), ('gpu')) as class(permit)
  cross join lateral makeit3d.next_with_permit(:user_id, class.permit, :permits) as j
), {tagged}, woken as (
  update makeit3d.jobs j set waiting_for = null, fair_tag = tagged.fair_tag from tagged where j.id = tagged.id
  returning j.lane, j.task_id, j.user_id
)
select lane, task_id, user_id from woken

-- name: release_ownerless
-- Of users that were deleted: nobody's limit holds their jobs back.
with ready as (
  select j.id, j.user_id, j.lane, j.pool, j.priority, 1 as position from makeit3d.jobs j
  where j.user_id is null and j.status = 'queued' and j.waiting_for = 'user_limit'
  for no key update skip locked
), {tagged}, woken as (
  update makeit3d.jobs j set waiting_for = null, fair_tag = tagged.fair_tag from tagged where j.id = tagged.id
  returning j.lane, j.task_id, j.user_id
)
select lane, task_id, user_id from woken

-- name: waiting_among
-- Those of the users that have jobs waiting for a permit.
select u.id from unnest(:user_ids::uuid[]) as u(id) cross join lateral (
  select from makeit3d.jobs j where j.user_id = u.id and j.status = 'queued' and j.waiting_for = 'user_limit'
  order by j.permit, j.priority desc, j.created_at, j.id limit 1) as head

-- name: users_waiting
-- Every user that has jobs waiting for a permit. It hops from user to user: one who has thousands waiting costs one look.
with recursive waiting as (
  (select user_id from makeit3d.jobs where status = 'queued' and waiting_for = 'user_limit' and user_id is not null
   order by user_id limit 1)
  union all
  select (select j.user_id from makeit3d.jobs j where j.status = 'queued' and j.waiting_for = 'user_limit'
    and j.user_id > waiting.user_id order by j.user_id limit 1)
  from waiting where waiting.user_id is not null
)
select user_id from waiting where user_id is not null
