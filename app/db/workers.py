"""Liveness of worker processes, and what becomes due."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from app.db.pool import Connection, Database
from app.db.sql import load
from app.domain.jobs import Lane

_SQL = load(__file__)
CLAIMABLE_LANES = _SQL["claimable_lanes"]


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
        _SQL["renew_worker"],
        id=worker.id,
        name=worker.name,
        host=worker.host,
        pid=worker.pid,
        lanes=list(worker.lanes),
        slots=worker.slots,
        stopping=stopping,
        version=worker.version,
        job_types=list(worker.job_types),
    )


async def remove(database: Database, worker_id: UUID) -> None:
    await database.execute(_SQL["remove_worker"], id=worker_id)


async def running_claims(database: Database, worker_id: UUID) -> dict[tuple[UUID, int], bool]:
    """(job id, attempt) of every job whose claim is the worker's, and whether its run has ended: maintenance writes
    that end."""
    rows = await database.fetch(_SQL["running_claims"], worker_id=worker_id)
    return {(row["id"], row["attempt"]): row["ended"] for row in rows}


async def promote_due(database: Database) -> frozenset[tuple[str, UUID | None]]:
    """Make jobs claimable whose waiting time is over; the (task id, user id) whose readers have news."""
    return frozenset((row["task_id"], row["user_id"]) for row in await database.fetch(_SQL["promote_due"]))


async def promote_due_within(connection: Connection) -> frozenset[tuple[str, UUID | None]]:
    return frozenset((row["task_id"], row["user_id"]) for row in await connection.fetch(_SQL["promote_due"]))


async def claimable_lanes(connection: Connection) -> set[Lane]:
    return {row["lane"] for row in await connection.fetch(CLAIMABLE_LANES)}


async def remove_dead(connection: Connection, *, ttl_seconds: float) -> list[str]:
    """Take the rows of workers away that were not seen for that long; their names. Their leases are expired by
    maintenance."""
    return [row["name"] for row in await connection.fetch(_SQL["bury_workers"], ttl_seconds=ttl_seconds)]


async def next_due_seconds(database: Database) -> float | None:
    """Seconds until the next waiting job is due; None when none waits for a time."""
    value = await database.fetchval(_SQL["next_due_seconds"])
    return None if value is None else max(0.0, value)
