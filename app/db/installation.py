"""The whole installation in numbers, for monitoring: cheap enough to be asked for every few seconds."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from app.db.pool import Database
from app.db.sql import load
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
    slots: int | None  # None: who claims is the only limit


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


_SQL = load(__file__)
WITHOUT_BITMAPS, QUEUES = _SQL["plan_without_bitmaps"], _SQL["queues"]

COUNTED = 500  # of each kind of queue, however many wait
# the words that a row may store; the others are derived
STORED = [word.value for word in WaitingFor if word not in (WaitingFor.SLOT, WaitingFor.WORKER)]


async def read(database: Database, *, worker_ttl_seconds: float) -> Installation:
    """One moment of everything. Raises what an unreachable database raises."""
    async with database.snapshot() as connection:
        await connection.execute(WITHOUT_BITMAPS)
        queues = [_queue(row) for row in await connection.fetch(QUEUES, stored=STORED, counted=COUNTED)]
        await connection.execute(_SQL["plan_as_usual"])
        pools = await connection.fetch(_SQL["pools_in_use"])
        calls = await connection.fetch(_SQL["open_calls"])
        workers = await connection.fetch(_SQL["workers_by_lane"], ttl_seconds=worker_ttl_seconds)
    return Installation(
        queues=tuple(queues),
        pools=tuple(PoolUse(row["name"], row["used"], row["slots"]) for row in pools),
        calls=tuple(OpenCalls(row["provider"], row["state"], row["calls"], row["oldest_seconds"]) for row in calls),
        workers={row["lane"]: row["workers"] for row in workers},
    )


def _queue(row: asyncpg.Record) -> Queue:
    return Queue(row["lane"], row["pool"], row["waiting_for"], row["jobs"], row["age_seconds"])
