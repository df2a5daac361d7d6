"""Fair tags: whose turn it is within lane, pool and priority. A job gets its tag when it becomes claimable, so that
nobody saves up turns while a step or a limit holds a job back; a retry keeps the tag it had.

Lock order: a user's tags come after tasks and jobs. They are held until the transaction ends.
"""

from __future__ import annotations

# Where a user without turns of their own comes in: at the tag last claimed, or at the lowest one that still waits,
# which is less when claimed jobs came back.
_NOW = """least(
      coalesce((select c.tag from makeit3d.pool_tags c
        where c.pool = s.pool and c.lane = s.lane and c.priority = s.priority), 0),
      makeit3d.lowest_tag(s.lane, s.pool, s.priority),
      (select min(q.fair_tag) from makeit3d.jobs q where q.status = 'queued' and q.waiting_for in ('retry', 'breaker')
        and not q.resume and q.lane = s.lane and q.pool = s.pool and q.priority = s.priority)
    )"""


def tagging(source: str) -> str:
    """CTEs that give tags to the rows of the CTE ``source`` (id, user_id, lane, pool, priority, position).

    The last one is ``tagged`` (id, fair_tag). The upsert locks the user's row and reads its newest version, whatever
    the statement's snapshot says: racing requests of one user get different turns.
    """
    return f"""flow as (
  select s.user_id, s.pool, s.lane, s.priority, count(*) as n, {_NOW} as now
  from {source} s group by s.user_id, s.pool, s.lane, s.priority
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
  from {source} s
  join flow f on f.user_id is not distinct from s.user_id
    and (f.pool, f.lane, f.priority) = (s.pool, s.lane, s.priority)
  left join turn t on (t.user_id, t.pool, t.lane, t.priority) = (s.user_id, s.pool, s.lane, s.priority)
)"""  # noqa: S608 - the name of a CTE
