-- name: plan_without_bitmaps
-- A bitmap would read all of a kind of queued jobs before the first row.
set local enable_bitmapscan = off

-- name: plan_as_usual
-- The other statements of the transaction may have them.
reset enable_bitmapscan

-- name: queues
-- What is queued, by lane, pool and reason: each kind is a stretch of one index, read in its order up to a number. The
-- oldest is looked for among a hundred: what is in a later step was asked for long before it could run.
with state as materialized (
  select p.name, v.name is not null as held, makeit3d.slots_used(p.name) >= p.slots as full_up
  from makeit3d.pools p left join makeit3d.providers v on v.name = p.provider and v.state <> 'closed'
), kinds as materialized (
  select lane.name as lane, state.name as pool,
    makeit3d.wait_reason(s.word, r.resume, state.held, state.full_up) as reason,
    makeit3d.queue_kind(lane.name, state.name, s.word, r.resume) as name
  from unnest(array['normal', 'priority']) as lane(name), state, unnest(array_append(:stored::text[], null)) as s(word),
    (values (false), (true)) as r(resume)
)
select k.lane, k.pool, k.reason as waiting_for, least(sum(found.jobs), :counted::integer)::bigint as jobs,
  extract(epoch from now() - min(oldest.since))::float8 as age_seconds
from kinds k cross join lateral (
  select count(*) as jobs from (
    select from makeit3d.jobs j
    where j.status = 'queued' and makeit3d.queue_kind(j.lane, j.pool, j.waiting_for, j.resume) = k.name
    order by makeit3d.queue_kind(j.lane, j.pool, j.waiting_for, j.resume), j.created_at limit :counted) as head) as found
cross join lateral (
  select min(case when head.step = 1 then head.created_at else greatest(head.created_at, (
      select max(f.finished_at) from makeit3d.jobs f where f.request_id = head.request_id
        and f.step < head.step)) end) as since
  from (
    select j.request_id, j.step, j.created_at from makeit3d.jobs j
    where j.status = 'queued' and makeit3d.queue_kind(j.lane, j.pool, j.waiting_for, j.resume) = k.name
      and j.started_at is null and k.reason in ('slot', 'worker')
    order by makeit3d.queue_kind(j.lane, j.pool, j.waiting_for, j.resume), j.created_at limit 100) as head) as oldest
where found.jobs > 0
group by 1, 2, 3 order by 1, 2, 3

-- name: pools_in_use
-- Slots of each pool, and how many are taken.
select name, slots, makeit3d.slots_used(name) as used from makeit3d.pools order by name

-- name: open_calls
-- Paid calls without an end, by provider and state.
select provider, state, count(*) as calls, extract(epoch from now() - min(created_at))::float8 as oldest_seconds
from makeit3d.provider_calls where is_open group by 1, 2 order by 1, 2

-- name: workers_by_lane
-- Live workers that take new jobs, by lane.
select l.name as lane, count(w.id) as workers from unnest(array['normal', 'priority']) as l(name)
left join makeit3d.workers w on l.name = any(w.lanes) and not w.stopping
  and w.seen_at > now() - make_interval(secs => :ttl_seconds)
group by 1 order by 1
