"""A claim of one job in milliseconds: alone, behind jobs that cannot run, and in queues of two sizes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from uuid import uuid4

import asyncpg
from app.db.pool import Database
from app.db.workers import WorkerIdentity
from app.domain.jobs import Completed, Settlement
from tests import kernel
from tests.integration.factories import accept, image_plan, make_user, make_worker, model_plan, multiply_blocked

from bench.backlog import on_postgres, open_database
from bench.bench import Bench, BenchFailed
from bench.figures import Figure
from bench.rows import copy_job

_BLOCKED, _QUICK_BLOCKED = 100_000, 10_000
_SMALL, _LARGE, _QUICK_LARGE = 10_000, 1_000_000, 50_000

# what the driver alone takes for the same row, without slots, fairness, asset rows and events
_BARE = """
update makeit3d.jobs set status = 'running', worker_id = $1, attempt = attempt + 1, started_at = now()
where id = (select id from makeit3d.jobs where status = 'queued' and waiting_for is null and not resume
  and lane = 'normal'
  and pool = 'openai' order by priority desc, fair_tag, id limit 1 for update skip locked)
returning *
"""


@dataclass(frozen=True, slots=True)
class _Queue:
    database: Database
    worker: WorkerIdentity


def claims(bench: Bench) -> list[Figure]:
    bench.say("claims: starting Postgres")
    return on_postgres(lambda dsns, home: _measure(bench, dsns, home), databases=4)


async def _measure(bench: Bench, dsns: list[str], home: Path) -> list[Figure]:
    blocking, large = (_QUICK_BLOCKED, _QUICK_LARGE) if bench.quick else (_BLOCKED, _LARGE)
    each = 10 if bench.quick else 30
    async with contextlib.AsyncExitStack() as stack:
        queues = [await _open(stack, dsn, home) for dsn in dsns]
        idle, blocked, few, many = queues
        bare = await asyncpg.connect(dsns[2])
        stack.push_async_callback(bare.close)
        await _add(idle, each * bench.rounds)
        bench.say(f"claims: adding {blocking:,} blocked jobs")
        await _block(blocked, blocking)
        await _add(blocked, each * bench.rounds)
        for queue, dsn, size in ((few, dsns[2], _SMALL), (many, dsns[3], large)):
            bench.say(f"claims: adding {size:,} jobs")
            await _multiply(queue, dsn, size)
        targets: list[tuple[str, str, Callable[[], Awaitable[float]]]] = [
            ("claims.idle", "claim, nothing else waits", lambda: _claim(idle, each)),
            ("claims.blocked", f"claim, {blocking:,} blocked jobs before it", lambda: _claim(blocked, each)),
            ("claims.ten_thousand", f"claim of {_SMALL:,} jobs", lambda: _claim(few, each)),
            ("claims.million", f"claim of {large:,} jobs", lambda: _claim(many, each)),
            ("claims.bare_driver", "asyncpg, one row by skip locked", lambda: _claim_bare(bare, each)),
        ]
        samples: dict[str, list[float]] = {name: [] for name, _, _ in targets}
        for _ in bench.each_round("claims"):
            for name, _, measure in targets:
                samples[name].append(await measure())
    how = f"medians of {each}, one after the other; Postgres durable"
    return [Figure(name, label, "ms", tuple(samples[name]), how) for name, label, _ in targets]


async def _open(stack: contextlib.AsyncExitStack, dsn: str, home: Path) -> _Queue:
    database = await stack.enter_async_context(open_database(dsn, home))
    return _Queue(database, await make_worker(database))


async def _add(queue: _Queue, jobs: int) -> None:
    user = await make_user(queue.database)
    for number in range(jobs):
        await accept(queue.database, image_plan(user, f"task-claimable-{number:06}"))


async def _block(queue: _Queue, jobs: int) -> None:
    """Jobs that wait for anything there is to wait for, the claimable ones for a full pool."""
    plan = await accept(queue.database, model_plan(await make_user(queue.database), "task-blocked-01"))
    await kernel.claim(queue.database, worker_id=queue.worker.id, lanes=queue.worker.lanes, limit=1)
    await multiply_blocked(queue.database, plan, jobs)
    await queue.database.execute("vacuum analyze makeit3d.jobs")


async def _multiply(queue: _Queue, dsn: str, jobs: int) -> None:
    plan = await accept(queue.database, image_plan(await make_user(queue.database), "task-many-0001"))
    connection = await asyncpg.connect(dsn)
    try:
        await copy_job(connection, plan.job_id, jobs - 1)
    finally:
        await connection.close()


async def _claim(queue: _Queue, number: int) -> float:
    times: list[float] = []
    claimed: list[Settlement] = []
    for _ in range(number):
        began = time.perf_counter()
        result = await kernel.claim(queue.database, worker_id=queue.worker.id, lanes=queue.worker.lanes, limit=1)
        times.append(1000 * (time.perf_counter() - began))
        if len(result.jobs) != 1:
            raise BenchFailed("A claim found no job though jobs are queued; `make test SUITE=tests/integration` first.")
        claimed.append(Settlement(result.jobs[0], Completed(())))
    await kernel.finish(queue.database, claimed)  # as many run in every round
    return median(times)


async def _claim_bare(connection: asyncpg.Connection, number: int) -> float:
    worker, times = uuid4(), list[float]()
    for _ in range(number):
        began = time.perf_counter()
        await connection.fetchrow(_BARE, worker)
        times.append(1000 * (time.perf_counter() - began))
    await connection.execute(
        "update makeit3d.jobs set status = 'queued', worker_id = null where worker_id = $1", worker
    )
    return median(times)
