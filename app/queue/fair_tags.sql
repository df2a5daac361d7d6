-- Gives tags to the rows of the CTE "ready" (id, user_id, lane, pool, priority, position); the last CTE is "tagged"
-- (id, fair_tag). A user without turns of their own comes in at the tag last claimed, or at the lowest one that still
-- waits, which is less when claimed jobs came back. The upsert locks the user's row and reads its newest version, whatever
-- the statement's snapshot says: racing requests of one user get different turns.
flow as (
  select s.user_id, s.pool, s.lane, s.priority, count(*) as n, least(
      coalesce((select c.tag from makeit3d.pool_tags c
        where c.pool = s.pool and c.lane = s.lane and c.priority = s.priority), 0),
      makeit3d.lowest_tag(s.lane, s.pool, s.priority),
      (select min(q.fair_tag) from makeit3d.jobs q where q.status = 'queued' and q.waiting_for in ('retry', 'breaker')
        and not q.resume and q.lane = s.lane and q.pool = s.pool and q.priority = s.priority)
    ) as now
  from ready s group by s.user_id, s.pool, s.lane, s.priority
), turn as (
  insert into makeit3d.user_tags (user_id, pool, lane, priority, tag)
  select f.user_id, f.pool, f.lane, f.priority, f.now + f.n - 1 from flow f where f.user_id is not null
  order by f.user_id, f.pool, f.lane, f.priority
  on conflict (user_id, pool, lane, priority) do update set tag = greatest(excluded.tag, user_tags.tag + (
    select f.n from flow f where (f.user_id, f.pool, f.lane, f.priority)
      = (excluded.user_id, excluded.pool, excluded.lane, excluded.priority)))
  returning user_id, pool, lane, priority, tag
), tagged as (
  select s.id, coalesce(t.tag - f.n, f.now - 1)
    + row_number() over (partition by s.user_id, s.pool, s.lane, s.priority order by s.position, s.id) as fair_tag
  from ready s
  join flow f on f.user_id is not distinct from s.user_id
    and (f.pool, f.lane, f.priority) = (s.pool, s.lane, s.priority)
  left join turn t on (t.user_id, t.pool, t.lane, t.priority) = (s.user_id, s.pool, s.lane, s.priority)
)
