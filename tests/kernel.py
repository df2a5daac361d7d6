"""The queue as tests use it: by a database, with the kinds of assets that the gateway has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from app.container import build_registry, open_queue
from app.db.pool import Database
from app.domain.jobs import Settlement
from app.domain.user_limits import NO_LIMITS, UserLimits
from app.queue import maintenance
from app.queue.claims import ClaimResult
from app.queue.maintenance import SweepResult
from app.queue.plans import RequestPlan
from app.queue.transitions import Finished, Queue

REGISTRY = build_registry()
ASSET_KINDS = REGISTRY.asset_kinds
_QUEUES: WeakKeyDictionary[Database, Queue] = WeakKeyDictionary()


def queue_of(database: Database) -> Queue:
    queue = _QUEUES.get(database)
    if queue is None:
        queue = _QUEUES[database] = open_queue(database, REGISTRY)
    return queue


async def accept(database: Database, plan: RequestPlan, limits: UserLimits = NO_LIMITS) -> bool:
    """Whether a job of it waits for a permit of the user."""
    return (await queue_of(database).accept(plan, limits)).waits


async def claim(database: Database, **wanted: Any) -> ClaimResult:  # noqa: ANN401 - arguments of Queue.claim
    """Of every registered type, unless others are wanted."""
    wanted.setdefault("types", REGISTRY.job_types.names)
    return await queue_of(database).claim(**wanted)


async def finish(database: Database, runs: Sequence[Settlement]) -> Finished:
    return await queue_of(database).finish(runs)


async def requeue(database: Database, worker_id: UUID, leases: Sequence[tuple[UUID, int]]) -> None:
    await queue_of(database).requeue(worker_id, leases)


async def cancel(database: Database, task_id: str, user_id: UUID) -> list[str] | None:
    """Pools of the jobs that ended; None where the task is not the user's."""
    canceled = await queue_of(database).cancel(task_id, user_id)
    return None if canceled is None else list(canceled.pools)


async def sweep(database: Database, **wanted: Any) -> SweepResult | None:  # noqa: ANN401 - arguments of sweep
    return await maintenance.sweep(queue_of(database), **wanted)


async def expire_stranded(database: Database, *, max_wait_seconds: float) -> list[tuple[str, UUID | None]]:
    """(task id, user id) of each job that ended."""
    expired, _ = await maintenance.expire_stranded(queue_of(database), max_wait_seconds=max_wait_seconds)
    return [(job.task_id, job.user_id) for job in expired]
