"""Claiming jobs: a batch per call, in fair order, never over a pool's slots.

A claim locks the rows of the pools it looks at, so that two processes never count the same free slot, and locks each
job together with its task, skipping what another transaction holds: it never waits for a job or a task.
A job of a type that the caller does not handle stays queued for a process that does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from app.db import breakers
from app.db.breakers import GATE
from app.db.events import select_job_updates
from app.db.pool import Connection, Database
from app.db.waits import slots_used
from app.domain.jobs import Claim, ClaimedJob, JobType, KeptResult, Lane


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """``more`` is true when claimable work was left that this call had room for but could not lock."""

    jobs: tuple[ClaimedJob, ...]
    more: bool
    full: bool  # work is left that only the caller's own limit kept back


# One look at the head of each lane and pool: with order and limit, because for a mere `exists` the planner may choose
# to read everything that waits for full pools.
# In no order of pools, or a process with few slots of its own would serve the first one alone.
WAITING = f"""
select lane.name as lane, pools.name as pool, pools.provider
from unnest($1::text[]) with ordinality as lane(name, rank)
cross join pools left join providers v on v.name = pools.provider
cross join lateral (
  select from jobs j where j.status = 'queued' and j.waiting_for is null and not j.resume
    and j.lane = lane.name and j.pool = pools.name and j.type = any($2)
  order by j.priority desc, j.fair_tag, j.id limit 1) as head
where {GATE} <> 'none'
order by lane.rank, random()
"""  # noqa: S608 - constants

# what only one host has runs there, as long as it is kept; after that anybody may find that it is gone
RUNS_HERE = "(j.kept_host is null or j.kept_host = {host} or j.kept_until < now())"

RESUMABLE = f"""
select lane.name as lane from unnest($1::text[]) with ordinality as lane(name, rank)
cross join lateral (
  select from jobs j where j.status = 'queued' and j.waiting_for is null and j.resume and j.lane = lane.name
    and j.type = any($2) and {RUNS_HERE.format(host="$3")}
  order by j.priority desc, j.fair_tag, j.id limit 1) as head
order by lane.rank
"""  # noqa: S608 - constants

LOCK_POOLS = "select name, slots from pools where name = any($1) order by name for no key update"

USED = f"select p.name, {slots_used('p.name')} as used from unnest($1::text[]) as p(name)"  # noqa: S608 - constants

PICK_NEW = """
select j.id, j.alone from jobs j join tasks t on t.id = j.task_id
where j.status = 'queued' and j.waiting_for is null and not j.resume and j.lane = $1 and j.pool = $2
  and j.type = any($4)
order by j.priority desc, j.fair_tag, j.id
limit $3
for no key update of j, t skip locked
"""

PICK_RESUMABLE = f"""
select j.id, j.pool, j.alone from jobs j join tasks t on t.id = j.task_id
where j.status = 'queued' and j.waiting_for is null and j.resume and j.lane = $1
  and j.type = any($3) and {RUNS_HERE.format(host="$4")}
order by j.priority desc, j.fair_tag, j.id
limit $2
for no key update of j, t skip locked
"""  # noqa: S608 - constants

# Asked once the pools are locked: a call that was refused meanwhile gave its slot back, and its job needs a new one.
_STILL_PAID = """
select j.id from jobs j where j.id = any($1::uuid[]) and (j.calls_done or exists (
  select from provider_calls c where c.job_id = j.id and c.state in ('intent', 'submitted', 'unknown')))
"""

_NEEDS_SLOT = "update jobs set resume = false, seconds_left = null where id = any($1::uuid[])"

_TAKE = f"""
with taken as (
  update jobs set status = 'running', worker_id = $2, attempt = attempt + 1, resume = false, slot = 'held',
    started_at = coalesce(started_at, now()),
    deadline = now() + make_interval(secs => coalesce(seconds_left, ($3::jsonb ->> type)::float8))
  where id = any($1::uuid[])
  returning *
), concept as (
  update {{concepts}} a set status = 'processing', updated_at = now() from taken
  where a.job_id = taken.id and a.status = 'pending' returning a.id, a.task_id, a.user_id
), model as (
  update {{models}} a set status = 'processing', updated_at = now() from taken
  where a.job_id = taken.id and a.status = 'pending' returning a.id, a.task_id, a.user_id
), request as (
  update requests r set status = 'running' from taken
  where r.id = taken.request_id and r.status = 'queued'
), task as (
  update tasks t set status = 'running', updated_at = now()
  where t.id in (select task_id from taken) and t.status = 'queued'
  returning t.id, t.user_id
), tag as (
  -- the pools of new jobs are locked by this claim; a resumed job had its turn before
  insert into pool_tags (pool, lane, priority, tag)
  select pool, lane, priority, max(fair_tag) from taken where id = any($4::uuid[]) group by pool, lane, priority
  on conflict (pool, lane, priority) do update set tag = excluded.tag where pool_tags.tag < excluded.tag
), event as (
  insert into events (type, user_id, task_id, payload)
  select 'task_update', user_id, id, jsonb_build_object('task_id', id, 'status', 'running') from task
  union all
  {select_job_updates("taken", error_code="null")}
  union all
  select 'asset_update', a.user_id, a.task_id, jsonb_build_object('task_id', a.task_id, 'asset_id', a.id,
    'table', a.name, 'status', 'processing', 'asset_url', null, 'error_code', null)
  from (
    select id, task_id, user_id, 'concept_images' as name from concept
    union all select id, task_id, user_id, 'models' from model
  ) as a
)
select *, extract(epoch from now() - created_at)::float8 as age_seconds,
  extract(epoch from deadline - now())::float8 as time_left_seconds
from taken
order by array_position($1::uuid[], id)
"""  # noqa: S608 - constants


async def claim(
    database: Database,
    *,
    worker_id: UUID,
    lanes: Sequence[Lane],
    limit: int,
    types: Collection[JobType] = tuple(JobType),
    host: str = "",
    time_limits: Mapping[str, float] | None = None,
) -> ClaimResult:
    """Claim up to ``limit`` jobs of the lanes, in order of the lanes, for a worker that handles ``types``; one that
    runs alone is claimed alone. ``host`` is the worker's: what is kept on its disk runs there. ``time_limits`` are in
    seconds, by job type; a type without one has none."""
    handled = [type_.value for type_ in types]
    waiting = await database.fetch(WAITING, list(lanes), handled)
    resumable = [row["lane"] for row in await database.fetch(RESUMABLE, list(lanes), handled, host)]
    if not waiting and not resumable:
        return ClaimResult((), more=False, full=False)
    if limit <= 0:
        return ClaimResult((), more=False, full=True)
    batch = _Batch(limit)
    async with database.transaction() as connection:
        resumed: list[asyncpg.Record] = []
        for lane in resumable:
            resumed += await connection.fetch(PICK_RESUMABLE, lane, limit - len(resumed), handled, host)
        room = await _room(connection, sorted({row["pool"] for row in (*waiting, *resumed)}))
        # after the slots: who sees the slot that a refusal gave back also sees the breaker that it opened before
        gates = await breakers.gates(connection, sorted({row["provider"] for row in waiting}))
        batch.take(await _still_paid(connection, resumed))
        more = bool(resumable) and not batch.job_ids
        fresh, probes, locked = await _pick_new(connection, batch, waiting, room, gates, handled)
        more = more or locked
        if not batch.job_ids:
            return ClaimResult((), more=more, full=False)
        tables = database.tables
        take = _TAKE.format(concepts=tables.concepts, models=tables.models)
        taken = await connection.fetch(take, batch.job_ids, worker_id, dict(time_limits or {}), fresh)
        for row in taken:
            if row["id"] in probes:
                await breakers.begin_probe(connection, probes[row["id"]], job_id=row["id"], attempt=row["attempt"])
    full = batch.left <= 0
    return ClaimResult(tuple(_claimed(row) for row in taken), more=more and not full, full=full)


class _Batch:
    """What one claim takes. A job that runs alone comes first and closes it, or waits for a claim of its own."""

    def __init__(self, limit: int) -> None:
        self.job_ids: list[UUID] = []
        self._limit = limit

    @property
    def left(self) -> int:
        return self._limit - len(self.job_ids)

    def take(self, rows: Sequence[asyncpg.Record]) -> list[UUID]:
        """Those of the rows that may join."""
        if rows and rows[0]["alone"] and not self.job_ids:
            joined = [rows[0]["id"]]
            self._limit = 1
        else:
            joined = [row["id"] for row in rows if not row["alone"]]
        self.job_ids += joined
        return joined


async def _pick_new(
    connection: Connection,
    batch: _Batch,
    waiting: Sequence[asyncpg.Record],
    room: dict[str, int],
    gates: dict[str, str],
    handled: list[str],
) -> tuple[list[UUID], dict[UUID, str], bool]:
    """Fill the batch with jobs that need a slot: which, the providers that some of them probe, and whether others were
    there that could not be locked."""
    fresh: list[UUID] = []
    probes: dict[UUID, str] = {}
    locked = False
    for row in waiting:
        provider = row["provider"]
        gate = gates[provider]
        wanted = min(room.get(row["pool"], 0), batch.left, 1 if gate == "one" else batch.left)
        if wanted <= 0 or gate == "none":
            continue
        rows = await connection.fetch(PICK_NEW, row["lane"], row["pool"], wanted, handled)
        locked = locked or not rows
        joined = batch.take(rows)
        room[row["pool"]] -= len(joined)
        fresh += joined
        if joined and gate == "one":
            gates[provider] = "none"
            probes[joined[0]] = provider
    return fresh, probes, locked


async def _still_paid(connection: Connection, rows: Sequence[asyncpg.Record]) -> list[asyncpg.Record]:
    """Those of the locked jobs that still need no slot; the others queue for one."""
    if not rows:
        return []
    paid = {row["id"] for row in await connection.fetch(_STILL_PAID, [row["id"] for row in rows])}
    unpaid = [row["id"] for row in rows if row["id"] not in paid]
    if unpaid:
        await connection.execute(_NEEDS_SLOT, unpaid)
    return [row for row in rows if row["id"] in paid]


async def _room(connection: Connection, pools: Sequence[str]) -> dict[str, int]:
    """Free slots of the pools, whose rows stay locked until the claim commits."""
    if not pools:
        return {}
    slots = {row["name"]: row["slots"] for row in await connection.fetch(LOCK_POOLS, list(pools))}
    # a statement of its own: its snapshot must be younger than the lock
    used = {row["name"]: row["used"] for row in await connection.fetch(USED, list(pools))}
    return {name: slots[name] - used[name] for name in slots}


async def lanes_with_room(database: Database, pools: Sequence[str]) -> list[Lane]:
    """Lanes that hold claimable work of these pools: those to ring when one of their slots came free."""
    rows = await database.fetch(
        "select distinct lane.name as lane from unnest(array['priority', 'normal']) as lane(name)"  # noqa: S608
        " cross join pools left join providers v on v.name = pools.provider cross join lateral ("
        "   select from jobs j where j.status = 'queued' and j.waiting_for is null and not j.resume"
        "   and j.lane = lane.name and j.pool = pools.name order by j.priority desc, j.fair_tag, j.id limit 1) as head"
        f" where pools.name = any($1) and {GATE} <> 'none'",
        list(pools),
    )
    return [row["lane"] for row in rows]


def _claimed(row: asyncpg.Record) -> ClaimedJob:
    return ClaimedJob(
        claim=Claim(job_id=row["id"], worker_id=row["worker_id"], attempt=row["attempt"]),
        task_id=row["task_id"],
        request_id=row["request_id"],
        user_id=row["user_id"],
        step=row["step"],
        type=JobType(row["type"]),
        provider=row["provider"],
        pool=row["pool"],
        lane=row["lane"],
        params=row["params"],
        failures=row["failures"],
        deferrals=row["deferrals"],
        crashes=row["crashes"],
        alone=row["alone"],
        age_seconds=row["age_seconds"],
        time_left_seconds=row["time_left_seconds"],
        retry_of=row["retry_of"],
        trace_id=row["trace_id"],
        kept=KeptResult.of_row(dict(row)),
    )
