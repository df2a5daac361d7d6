"""The whole installation in numbers, for monitoring: cheap enough to be asked for every few seconds."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from app.db.pool import Database
from app.db.waits import reason
from app.domain.statuses import WaitingFor


@dataclass(frozen=True, slots=True)
class Queue:
    """Queued jobs of one lane and pool that wait for the same thing. Of more than ``COUNTED`` only so many are counted.

    ``age_seconds`` is how long the oldest that never ran could have been running: since its request, or the step
    before it, was done. Only jobs that wait for a slot or a worker have one.
    """

    lane: str
    pool: str
    waiting_for: str
    jobs: int
    age_seconds: float | None


@dataclass(frozen=True, slots=True)
class PoolUse:
    name: str
    used: int
    slots: int


@dataclass(frozen=True, slots=True)
class OpenCalls:
    provider: str
    state: str
    calls: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class Installation:
    queues: tuple[Queue, ...]
    pools: tuple[PoolUse, ...]
    calls: tuple[OpenCalls, ...]
    workers: dict[str, int]  # live ones, by lane they serve


# However many wait, so many of each kind are read: lane, pool and reason are a stretch of one index, read in its order.
# A bitmap would read all of a kind before the first row. The oldest is looked for among a hundred: what is in a later
# step was asked for long before it could run.
COUNTED = 500
NO_BITMAP = "set local enable_bitmapscan = off"
_KIND = (  # as the index has it
    "(j.lane || '/' || j.pool || '/' || coalesce(j.waiting_for, '') || case when j.resume then '/resume' else '' end)"
)
_REASON = reason(stored="s.word", resume="r.resume", held="state.held", full="state.full_up")
QUEUES = f"""
with state as materialized (
  select p.name, v.name is not null as held, makeit3d.slots_used(p.name) >= p.slots as full_up
  from makeit3d.pools p left join makeit3d.providers v on v.name = p.provider and v.state <> 'closed'
), kinds as materialized (
  select lane.name as lane, state.name as pool, {_REASON} as reason, lane.name || '/' || state.name || '/'
    || coalesce(s.word, '') || case when r.resume then '/resume' else '' end as name
  from unnest(array['normal', 'priority']) as lane(name), state, unnest(array_append($1::text[], null)) as s(word),
    (values (false), (true)) as r(resume)
)
select k.lane, k.pool, k.reason as waiting_for, least(sum(found.jobs), {COUNTED})::bigint as jobs,
  extract(epoch from now() - min(oldest.since))::float8 as age_seconds
from kinds k cross join lateral (
  select count(*) as jobs from (
    select from makeit3d.jobs j where j.status = 'queued' and {_KIND} = k.name
    order by {_KIND}, j.created_at limit {COUNTED}) as head) as found
cross join lateral (
  select min(case when head.step = 1 then head.created_at else greatest(head.created_at, (
      select max(f.finished_at) from makeit3d.jobs f where f.request_id = head.request_id
        and f.step < head.step)) end) as since
  from (
    select j.request_id, j.step, j.created_at from makeit3d.jobs j
    where j.status = 'queued' and {_KIND} = k.name and j.started_at is null and k.reason in ('slot', 'worker')
    order by {_KIND}, j.created_at limit 100) as head) as oldest
where found.jobs > 0
group by 1, 2, 3 order by 1, 2, 3
"""  # noqa: S608 - constants

# the words that a row may store; the others are derived
STORED = [word.value for word in WaitingFor if word not in (WaitingFor.SLOT, WaitingFor.WORKER)]

CALLS = """
select provider, state, count(*) as calls, extract(epoch from now() - min(created_at))::float8 as oldest_seconds
from makeit3d.provider_calls where is_open group by 1, 2 order by 1, 2
"""

WORKERS = """
select l.name as lane, count(w.id) as workers from unnest(array['normal', 'priority']) as l(name)
left join makeit3d.workers w on l.name = any(w.lanes) and not w.stopping
  and w.seen_at > now() - make_interval(secs => $1)
group by 1 order by 1
"""


async def read(database: Database, *, worker_ttl_seconds: float) -> Installation:
    """One moment of everything. Raises what an unreachable database raises."""
    async with database.snapshot() as connection:
        await connection.execute(NO_BITMAP)
        queues = [_queue(row) for row in await connection.fetch(QUEUES, STORED)]
        await connection.execute("reset enable_bitmapscan")
        pools = await connection.fetch(
            "select name, slots, makeit3d.slots_used(name) as used from makeit3d.pools order by name"
        )
        calls = await connection.fetch(CALLS)
        workers = await connection.fetch(WORKERS, worker_ttl_seconds)
    return Installation(
        queues=tuple(queues),
        pools=tuple(PoolUse(row["name"], row["used"], row["slots"]) for row in pools),
        calls=tuple(OpenCalls(row["provider"], row["state"], row["calls"], row["oldest_seconds"]) for row in calls),
        workers={row["lane"]: row["workers"] for row in workers},
    )


def _queue(row: asyncpg.Record) -> Queue:
    return Queue(row["lane"], row["pool"], row["waiting_for"], row["jobs"], row["age_seconds"])
