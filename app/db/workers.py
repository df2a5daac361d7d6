"""Liveness of worker processes, and what becomes due."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from app.db.pool import Connection, Database
from app.domain.jobs import Lane


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    id: UUID
    name: str
    host: str
    pid: int
    lanes: tuple[Lane, ...]
    slots: int
    version: str = ""  # of the code
    job_types: tuple[str, ...] = ()  # the only ones that it claims


async def renew(database: Database, worker: WorkerIdentity, *, stopping: bool) -> None:
    """Say that the process lives; also registers it, so that a row lost to a sweep comes back."""
    await database.execute(
        "insert into makeit3d.workers (id, name, host, pid, lanes, slots, stopping, version, job_types)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
        " on conflict (id) do update set seen_at = now(), stopping = excluded.stopping",
        worker.id,
        worker.name,
        worker.host,
        worker.pid,
        list(worker.lanes),
        worker.slots,
        stopping,
        worker.version,
        list(worker.job_types),
    )


async def remove(database: Database, worker_id: UUID) -> None:
    await database.execute("delete from makeit3d.workers where id = $1", worker_id)


async def running_claims(database: Database, worker_id: UUID) -> set[tuple[UUID, int]]:
    """(job id, attempt) of every job whose claim is the worker's."""
    rows = await database.fetch(
        "select id, attempt from makeit3d.jobs where worker_id = $1 and status = 'running'", worker_id
    )
    return {(row["id"], row["attempt"]) for row in rows}


_DEAD = "delete from makeit3d.workers where seen_at < now() - make_interval(secs => $1) returning name"

_PROMOTE_DUE = """
with due as (
  select id from makeit3d.jobs where status = 'queued' and run_after <= now()
  order by run_after limit 5000 for no key update skip locked
), woken as (
  update makeit3d.jobs j set waiting_for = null, run_after = null from due where j.id = due.id
  returning j.task_id, j.user_id
)
select distinct task_id, user_id from woken
"""

CLAIMABLE_LANES = """
select h.lane from makeit3d.claimable_heads() h join makeit3d.pools p on p.name = h.pool
where makeit3d.admission(p.provider) <> 'reject'
union
select l.name from unnest(array['priority', 'normal']) as l(name)
where exists (
  select from makeit3d.jobs j where j.status = 'queued' and j.waiting_for is null and j.resume and j.lane = l.name)
"""


async def promote_due(database: Database) -> frozenset[tuple[str, UUID | None]]:
    """Make jobs claimable whose waiting time is over; the (task id, user id) whose readers have news."""
    return frozenset((row["task_id"], row["user_id"]) for row in await database.fetch(_PROMOTE_DUE))


async def promote_due_within(connection: Connection) -> frozenset[tuple[str, UUID | None]]:
    return frozenset((row["task_id"], row["user_id"]) for row in await connection.fetch(_PROMOTE_DUE))


async def claimable_lanes(connection: Connection) -> set[Lane]:
    return {row["lane"] for row in await connection.fetch(CLAIMABLE_LANES)}


async def remove_dead(connection: Connection, *, ttl_seconds: float) -> list[str]:
    """Take the rows of workers away that were not seen for that long; their names. Their leases are expired by
    maintenance."""
    return [row["name"] for row in await connection.fetch(_DEAD, ttl_seconds)]


async def next_due_seconds(database: Database) -> float | None:
    """Seconds until the next waiting job is due; None when none waits for a time."""
    value = await database.fetchval(
        "select extract(epoch from min(run_after) - clock_timestamp())::float8 from makeit3d.jobs"
        " where status = 'queued' and run_after is not null"
    )
    return None if value is None else max(0.0, value)
