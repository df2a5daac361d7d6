"""Writes the ends of runs, those that come together in one transaction."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from enum import StrEnum
from typing import TypeVar
from uuid import UUID

import asyncpg
import structlog
from prometheus_client import Counter, Histogram

from app.db.pool import UNREACHABLE
from app.domain.crash_points import Boundary, boundary
from app.domain.jobs import Deferred, Failed, Outcome, Retry, Settlement
from app.errors import ErrorCode
from app.queue.maintenance import STUCK
from app.queue.transitions import NOT_RECORDED_MESSAGE, Finished, Queue
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


class Written(StrEnum):
    """What became of the end of a run."""

    DONE = "done"
    LEASE_LOST = "lease_lost"  # nothing was written
    STUCK = "stuck"  # it cannot be written now: the lease stays, and maintenance tries again


_BATCH = 200
_LONGEST_PAUSE = 5.0
_TRIES = 3  # of what the server ends because it takes too long
T = TypeVar("T")


class Settler:
    def __init__(self, queue: Queue, publisher: Publisher, *, window_seconds: float) -> None:
        self._queue = queue
        self._publisher = publisher
        self._window = window_seconds
        self._waiting: list[tuple[Settlement, asyncio.Future[Written]]] = []
        self._several = False  # in the last batch
        self._flusher: asyncio.Task[None] | None = None

    async def settle(self, settlement: Settlement) -> Written:
        """Write how a run ended; waits until the database has it."""
        future: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
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
            stuck: set[UUID] = set()
            try:
                settled = await self._write([settlement for settlement, _ in batch])
            except Exception:
                log.exception("settle_batch_failed", jobs=len(batch))
                settled, stuck = await self._each_alone([settlement for settlement, _ in batch])
            for settlement, future in batch:
                job_id = settlement.job.claim.job_id
                if not future.done():
                    done = Written.DONE if job_id in settled else Written.LEASE_LOST
                    future.set_result(Written.STUCK if job_id in stuck else done)

    async def _each_alone(self, settlements: Sequence[Settlement]) -> tuple[frozenset[UUID], set[UUID]]:
        """One poisoned settlement must not hold back the others: it fails its own job and nothing else. The jobs that
        ended, and those that are stuck."""
        done: set[UUID] = set()
        stuck: set[UUID] = set()
        for settlement in settlements:
            job_id = settlement.job.claim.job_id
            try:
                done |= await self._write([settlement])
            except asyncpg.QueryCanceledError:  # as a failure it could be written, and its result would be lost
                STUCK.inc()
                log.exception("finish_stuck", job_id=str(job_id))
                await self._keep(settlement)
                stuck.add(job_id)
            except Exception:
                log.exception("settle_failed", job_id=str(job_id))
                failed = Settlement(settlement.job, Failed(ErrorCode.INTERNAL_ERROR, NOT_RECORDED_MESSAGE))
                try:
                    done |= await self._write([failed])
                except Exception:
                    STUCK.inc()
                    log.exception("finish_stuck", job_id=str(job_id))
                    await self._keep(settlement, failed)
                    stuck.add(job_id)
        return frozenset(done), stuck

    async def _keep(self, *ends: Settlement) -> None:
        """The first end that the database takes."""
        for end in ends:
            try:
                await _when_reachable(lambda end=end: self._queue.keep_end(end), jobs=1)
            except Exception:
                log.exception("end_not_kept", job_id=str(end.job.claim.job_id))
            else:
                return

    async def _write(self, settlements: Sequence[Settlement]) -> frozenset[UUID]:
        begun = time.perf_counter()

        async def finish() -> Finished:
            with boundary(Boundary.SETTLE, (item.job.task_id for item in settlements)):
                return await self._queue.finish(settlements)

        finished = await _when_reachable(finish, jobs=len(settlements))
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


async def _when_reachable(write: Callable[[], Awaitable[T]], *, jobs: int) -> T:
    """Nobody but us knows how the runs ended: wait for the database, however long it is away. A server that lives and
    ends it again and again is not away: raises QueryCanceledError then."""
    pause = 0.1
    ended = 0
    while True:
        try:
            return await write()
        except UNREACHABLE as error:
            ended += isinstance(error, asyncpg.QueryCanceledError)
            if ended == _TRIES:
                raise
            log.warning("settle_waits_for_database", error=type(error).__name__, jobs=jobs)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)


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
