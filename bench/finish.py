"""Claims in batches and finishes, by the statements alone: no handler and no worker around them."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import asyncpg
from app.db import assets
from app.db.pool import Database
from app.db.workers import WorkerIdentity
from app.domain.jobs import ClaimedJob, Settlement
from tests import kernel
from tests.integration.factories import make_worker

from bench.backlog import completed, fill, on_postgres, open_database
from bench.bench import Bench, BenchFailed
from bench.figures import Figure

_BATCH = 100
_ALONE = 20
_BATCHES = 4  # of a round

# what the driver alone takes to end as many rows
_BARE = (
    "update makeit3d.jobs set status = 'completed', worker_id = null, progress = 100, finished_at = now()"
    " where id = any($1)"
)


def finish(bench: Bench) -> list[Figure]:
    bench.say("finish: starting Postgres")
    return on_postgres(lambda dsns, home: _measure(bench, dsns[0], home))


async def _measure(bench: Bench, dsn: str, home: Path) -> list[Figure]:
    samples: dict[str, list[float]] = {name: [] for name in ("claim", "finish", "bare", "alone")}
    connection = await asyncpg.connect(dsn)
    async with open_database(dsn, home) as database:
        worker = await make_worker(database)
        await fill(database, connection, bench.rounds * (2 * _BATCH * _BATCHES + _ALONE), outputs=1)
        for _ in bench.each_round("finish"):
            claimed: list[float] = []
            finished: list[float] = []
            bare: list[float] = []
            for _ in range(_BATCHES):
                began = time.perf_counter()
                jobs = await _claim(database, worker, _BATCH)
                claimed.append(_BATCH / (time.perf_counter() - began))
                finished.append(_BATCH / await _finish(database, jobs))
                ids = [job.claim.job_id for job in await _claim(database, worker, _BATCH)]
                began = time.perf_counter()
                await connection.execute(_BARE, ids)
                bare.append(_BATCH / (time.perf_counter() - began))
            alone = [1000 * await _finish(database, await _claim(database, worker, 1)) for _ in range(_ALONE)]
            for name, values in (("claim", claimed), ("finish", finished), ("bare", bare), ("alone", alone)):
                samples[name].append(median(values))
    await connection.close()
    how = "Postgres durable"
    return [
        Figure("finish.claim_batch", f"claim, batches of {_BATCH}", "/s", tuple(samples["claim"]), f"jobs; {how}"),
        Figure(
            "finish.batch",
            f"finish with an output, batches of {_BATCH}",
            "/s",
            tuple(samples["finish"]),
            f"jobs; file, asset row, events and roll-up with each; {how}",
        ),
        Figure(
            "finish.bare_driver", f"asyncpg, {_BATCH} rows of jobs by one update", "/s", tuple(samples["bare"]), how
        ),
        Figure("finish.alone", "finish with an output, alone", "ms", tuple(samples["alone"]), how),
    ]


async def _claim(database: Database, worker: WorkerIdentity, limit: int) -> tuple[ClaimedJob, ...]:
    result = await kernel.claim(database, worker_id=worker.id, lanes=worker.lanes, limit=limit)
    if len(result.jobs) != limit:
        raise BenchFailed(f"A claim of {limit} jobs got {len(result.jobs)}; the queue was filled with enough.")
    return result.jobs


async def _finish(database: Database, jobs: tuple[ClaimedJob, ...]) -> float:
    """Seconds of the transaction."""
    outputs = await assets.slots_of(database, [job.claim.job_id for job in jobs])
    ended = [Settlement(job, completed(job, outputs[job.claim.job_id][0].id)) for job in jobs]
    began = time.perf_counter()
    await kernel.finish(database, ended)
    return time.perf_counter() - began
