"""Writes the ends of runs, those that come together in one transaction."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import nullcontext
from uuid import UUID

import structlog
from prometheus_client import Counter, Histogram

from app.db.pool import UNREACHABLE
from app.domain.crash_points import Boundary, boundary
from app.domain.jobs import Deferred, Failed, Outcome, Retry, Settlement
from app.errors import ErrorCode
from app.queue.maintenance import STUCK
from app.queue.transitions import Queue
from app.services.publisher import Publisher
from app.tracing import detached

log = structlog.get_logger(__name__)

ENDED = Counter("makeit3d_job_runs_ended_total", "Ends of runs that were recorded", ["job_type", "outcome", "code"])
BATCH_JOBS = Histogram("makeit3d_settle_batch_jobs", "Jobs settled together", buckets=(1, 2, 5, 10, 20, 50, 100, 200))
SETTLE_SECONDS = Histogram(
    "makeit3d_settle_seconds",
    "Time to record a batch, waits for the database included",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 120),
)

_BATCH = 200
_LONGEST_PAUSE = 5.0


class Settler:
    def __init__(self, queue: Queue, publisher: Publisher, *, window_seconds: float) -> None:
        self._queue = queue
        self._publisher = publisher
        self._window = window_seconds
        self._waiting: list[tuple[Settlement, asyncio.Future[bool]]] = []
        self._several = False  # in the last batch
        self._flusher: asyncio.Task[None] | None = None

    async def settle(self, settlement: Settlement) -> bool:
        """Write how a run ended; waits until the database has it. False when the claim had been lost."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((settlement, future))
        if self._flusher is None or self._flusher.done():
            self._flusher = detached(self._flush())
        return await asyncio.shield(future)

    async def _flush(self) -> None:
        while self._waiting:
            # one that comes alone waits for nobody; what comes while it is written makes the next batch
            if self._several and len(self._waiting) < _BATCH:
                await asyncio.sleep(self._window)
            batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
            self._several = len(batch) > 1
            try:
                settled = await self._write([settlement for settlement, _ in batch])
            except Exception:
                log.exception("settle_batch_failed", jobs=len(batch))
                settled = await self._each_alone([settlement for settlement, _ in batch])
            for settlement, future in batch:
                if not future.done():
                    future.set_result(settlement.job.claim.job_id in settled)

    async def _each_alone(self, settlements: Sequence[Settlement]) -> frozenset[UUID]:
        """One poisoned settlement must not hold back the others: it fails its own job and nothing else."""
        done: set[UUID] = set()
        for settlement in settlements:
            try:
                done |= await self._write([settlement])
            except Exception:
                log.exception("settle_failed", job_id=str(settlement.job.claim.job_id))
                failed = Failed(ErrorCode.INTERNAL_ERROR, "The result could not be recorded.")
                try:
                    done |= await self._write([Settlement(settlement.job, failed)])
                except Exception:
                    # the lease stays ours until its deadline or the process ends; maintenance tries again then
                    STUCK.inc()
                    log.exception("finish_stuck", job_id=str(settlement.job.claim.job_id))
        return frozenset(done)

    async def _write(self, settlements: Sequence[Settlement]) -> frozenset[UUID]:
        pause = 0.1
        begun = time.perf_counter()
        while True:
            try:
                with boundary(Boundary.SETTLE, (item.job.task_id for item in settlements)):
                    finished = await self._queue.finish(settlements)
                break
            except UNREACHABLE as error:
                log.warning("settle_waits_for_database", error=type(error).__name__, jobs=len(settlements))
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        SETTLE_SECONDS.observe(time.perf_counter() - begun)
        BATCH_JOBS.observe(len(settlements))
        for item in settlements:
            if item.job.claim.job_id in finished.jobs:
                ENDED.labels(item.job.type, word(item.outcome), code(item.outcome)).inc()
        tasks = (item.job.task_id for item in settlements)
        with boundary(Boundary.NEXT_STEP, tasks) if finished.committed.lanes else nullcontext():
            self._publisher.publish(finished.committed)
        return finished.jobs

    async def aclose(self) -> None:
        if self._flusher is not None:
            await self._flusher


def word(outcome: Outcome) -> str:
    """One of a few, for labels."""
    return type(outcome).__name__.lower()


def code(outcome: Outcome) -> str:
    """Of the catalogue, so that there are only so many."""
    match outcome:
        case Failed() | Retry() | Deferred():
            return "" if outcome.error is None else outcome.error.code
        case _:
            return ""
