"""Liveness of worker processes."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from app.db.pool import Connection, Database
from app.db.sql import load
from app.domain.jobs import Lane

_SQL = load(__file__)


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


async def remove_dead(connection: Connection, *, ttl_seconds: float) -> list[str]:
    """Take the rows of workers away that were not seen for that long; their names. Their leases are expired by
    maintenance."""
    return [row["name"] for row in await connection.fetch(_SQL["bury_workers"], ttl_seconds=ttl_seconds)]
