"""Housekeeping on a timer in every worker: rings for work nobody rang for, takes back jobs of dead workers, wakes what
waits for a time, ends what is overdue, adopts orphaned calls, and cleans uploads that belong to nobody. Every round is
safe to repeat."""

from __future__ import annotations

import asyncio
import random
import time

import structlog
from prometheus_client import Counter

from app.config import Settings
from app.db import breakers, events
from app.db.pool import UNREACHABLE
from app.domain.crash_points import Boundary, boundary
from app.queue import waits
from app.queue.contracts import Committed
from app.queue.maintenance import SweepResult, expire_stranded, sweep
from app.queue.transitions import Queue
from app.services import breaker
from app.services.bells import Bells
from app.services.leftovers import Leftovers
from app.services.open_calls import Upkeep
from app.services.publisher import Publisher
from app.tracing import detached

log = structlog.get_logger(__name__)

SWEPT = Counter("makeit3d_swept_total", "What sweeps of this process found to do", ["what"])
for _what in (
    *("dead_workers", "rescued", "dead_lettered", "overdue", "unstarted", "unstuck"),
    *("orphaned_calls", "abandoned_calls", "stranded_by_breaker"),
):
    SWEPT.labels(_what)

_EVENT_DAYS = 30
_SPREAD = 1.2  # sweeps of many processes do not go in step
_CLEAN_EVERY_ROUNDS = 60


class Sweeper:
    def __init__(
        self,
        queue: Queue,
        bells: Bells,
        leftovers: Leftovers,
        publisher: Publisher,
        calls: Upkeep,
        *,
        settings: Settings,
    ) -> None:
        self._queue = queue
        self._database = queue.database
        self._bells = bells
        self._leftovers = leftovers
        self._calls = calls
        self._publisher = publisher
        self._ttl = settings.worker_ttl_seconds
        self._every = settings.sweep_seconds
        self._max_crashes = settings.max_crashes
        self._max_wait = settings.max_wait_seconds
        self._loops: list[asyncio.Task[None]] = []
        self._rounds = 0
        self._removing: asyncio.Task[None] | None = None
        self._looked_at = time.monotonic()  # at the database, with success
        self._database_back_at = float("-inf")

    def start(self) -> None:
        self._looked_at = time.monotonic()
        self._loops = [asyncio.create_task(self._sweep_for_ever()), asyncio.create_task(self._wake_for_ever())]

    async def aclose(self) -> None:
        tasks = self._loops if self._removing is None else [*self._loops, self._removing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._every * random.uniform(2 - _SPREAD, _SPREAD))
            await self.sweep()

    async def sweep(self) -> None:
        """One round; what goes wrong is logged, for the next one comes soon."""
        try:
            await self.round()
        except UNREACHABLE as error:
            log.warning("sweep_failed", error=type(error).__name__)
        except Exception:
            log.exception("sweep_broke")

    async def _wake_for_ever(self) -> None:
        """Between sweeps, wake what becomes due, to the moment."""
        while True:
            try:
                due = await waits.next_due_seconds(self._database)
                probe = await breakers.next_probe_seconds(self._database)
                soonest = min((moment for moment in (due, probe) if moment is not None), default=None)
                if soonest is not None and soonest <= self._every:
                    await asyncio.sleep(soonest + 0.005)
                    with boundary(Boundary.PROMOTE):
                        promoted = await waits.promote_due(self._database)
                    self._publisher.publish(Committed(tasks=set(promoted)))
                    if promoted or soonest == probe:
                        self._bells.ring(("priority", "normal"))
                        continue
            except UNREACHABLE as error:
                log.warning("wake_failed", error=type(error).__name__)
            except Exception:
                log.exception("wake_broke")
            await asyncio.sleep(min(1.0, self._every))

    async def round(self) -> None:
        """One sweep. Skips the shared part when another process begins it just now."""
        with boundary(Boundary.TAKE_BACK):
            result = await sweep(
                self._queue,
                ttl_seconds=self._ttl,
                max_crashes=self._max_crashes,
                may_expire_leases=self._may_expire_leases,
            )
        self._looked_at = time.monotonic()
        if result is not None:
            _note(result)
            self._publisher.publish(result.committed)
            await self._clean()
            await self._publisher.repair()
        self._bells.ring(await self._calls.recover())
        SWEPT.labels("orphaned_calls").inc(await self._calls.adopt())

    def _may_expire_leases(self) -> bool:
        """Whether a worker that was not seen for its time to live is dead, asked when the database just answered. After
        a time without the database it may only not have been able to say that it lives: as long as that takes, nobody
        is buried."""
        now = time.monotonic()
        if now - self._looked_at > self._every * _SPREAD + self._ttl / 4:
            self._database_back_at = now
        return now - self._database_back_at > self._ttl

    async def _clean(self) -> None:
        SWEPT.labels("abandoned_calls").inc(await self._calls.settle())
        with boundary(Boundary.BREAKER):
            stranded, committed = await expire_stranded(self._queue, max_wait_seconds=self._max_wait)
        SWEPT.labels("stranded_by_breaker").inc(len(stranded))
        if stranded:
            log.error("jobs_stranded_by_breaker", jobs=len(stranded))
            self._publisher.publish(committed)
        await breaker.look(self._database)
        if self._removing is None or self._removing.done():
            self._removing = detached(self._remove_leftovers())
        self._rounds += 1
        if self._rounds % _CLEAN_EVERY_ROUNDS == 0:
            await events.remove_older_than(self._database, days=_EVENT_DAYS)

    async def _remove_leftovers(self) -> None:
        """Apart from the round: storage that hangs must not keep jobs of dead workers waiting."""
        try:
            await self._leftovers.sweep()
        except UNREACHABLE as error:
            log.warning("leftovers_not_removed", error=type(error).__name__)
        except Exception:
            log.exception("removing_leftovers_broke")


def _note(found: SweepResult) -> None:
    SWEPT.labels("dead_workers").inc(len(found.dead_workers))
    SWEPT.labels("rescued").inc(len(found.rescued))
    SWEPT.labels("dead_lettered").inc(len(found.dead_lettered))
    SWEPT.labels("overdue").inc(len(found.overdue))
    SWEPT.labels("unstarted").inc(len(found.unstarted))
    SWEPT.labels("unstuck").inc(found.unstuck)
    if found.dead_workers or found.rescued or found.dead_lettered:
        log.warning(
            "leases_expired",
            dead_workers=found.dead_workers,
            rescued=len(found.rescued),
            dead_lettered=len(found.dead_lettered),
        )
    for job in found.rescued:
        log.warning("job_rescued", **job.as_log())
    for job in found.dead_lettered:
        log.error("job_dead_lettered", **job.as_log())
    for job in found.unstarted:
        log.info("job_expired", **job.as_log())
    for job in found.overdue:
        log.error("job_overdue", **job.as_log())
