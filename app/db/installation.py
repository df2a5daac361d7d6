"""The whole installation in numbers, for monitoring: cheap enough to be asked for every few seconds."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from app.db.claims import USED
from app.db.pool import Database


@dataclass(frozen=True, slots=True)
class Queue:
    """Queued jobs of one lane and pool that wait for the same thing: ``slot`` for those that can be claimed.

    ``age_seconds`` is how long the oldest that never ran could have been running: since its request, or the step
    before it, was done. Jobs that wait for their step or a repeat have none.
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


# Of queued jobs alone, by the partial index on them: what is over is never read.
QUEUES = """
select j.lane, j.pool, coalesce(j.waiting_for, 'slot') as waiting_for, count(*) as jobs,
  extract(epoch from now() - min(case when j.step = 1 then j.created_at else greatest(j.created_at, (
      select max(p.finished_at) from jobs p where p.request_id = j.request_id and p.step < j.step)) end)
    filter (where j.waiting_for is null and j.started_at is null))::float8 as age_seconds
from jobs j where j.status = 'queued'
group by 1, 2, 3 order by 1, 2, 3
"""

CALLS = """
select provider, state, count(*) as calls, extract(epoch from now() - min(created_at))::float8 as oldest_seconds
from provider_calls where state in ('intent', 'submitted', 'unknown') group by 1, 2 order by 1, 2
"""

WORKERS = """
select l.name as lane, count(w.id) as workers from unnest(array['normal', 'priority']) as l(name)
left join workers w on l.name = any(w.lanes) and not w.stopping and w.seen_at > now() - make_interval(secs => $1)
group by 1 order by 1
"""


async def read(database: Database, *, worker_ttl_seconds: float) -> Installation:
    """One moment of everything. Raises what an unreachable database raises."""
    async with database.snapshot() as connection:
        queues = await connection.fetch(QUEUES)
        slots = {row["name"]: row["slots"] for row in await connection.fetch("select name, slots from pools")}
        used = {row["name"]: row["used"] for row in await connection.fetch(USED, sorted(slots))}
        calls = await connection.fetch(CALLS)
        workers = await connection.fetch(WORKERS, worker_ttl_seconds)
    return Installation(
        queues=tuple(_queue(row) for row in queues),
        pools=tuple(PoolUse(name, used[name], slots[name]) for name in sorted(slots)),
        calls=tuple(OpenCalls(row["provider"], row["state"], row["calls"], row["oldest_seconds"]) for row in calls),
        workers={row["lane"]: row["workers"] for row in workers},
    )


def _queue(row: asyncpg.Record) -> Queue:
    return Queue(row["lane"], row["pool"], row["waiting_for"], row["jobs"], row["age_seconds"])
