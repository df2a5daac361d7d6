"""Housekeeping on a timer in every worker: rings for work nobody rang for, takes back jobs of dead workers, wakes what
waits for a time, ends what is overdue, adopts orphaned calls, and cleans uploads that belong to nobody. Every round is
safe to repeat."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from uuid import UUID

import structlog
from prometheus_client import Counter

from app.config import Settings
from app.db import breakers, events, orphaned_calls, workers
from app.db.pool import UNREACHABLE, Database
from app.db.workers import SweepResult
from app.domain.crash_points import Boundary, boundary
from app.services import breaker
from app.services.bells import Bells
from app.services.bookings import booked
from app.services.leftovers import Leftovers
from app.services.notifier import Notifier
from app.services.poller import Poller
from app.services.posts import Posts
from app.services.reconciler import Reconciler
from app.services.vacancies import Vacancies
from app.tracing import detached

log = structlog.get_logger(__name__)

SWEPT = Counter("makeit3d_swept_total", "What sweeps of this process found to do", ["what"])
for _what in (
    *("dead_workers", "taken_back", "crashed_out", "overdue"),
    *("orphaned_calls", "abandoned_calls", "stranded_by_breaker"),
):
    SWEPT.labels(_what)

_EVENT_DAYS = 30
_ORPHANS_PER_ROUND = 100
_SPREAD = 1.2  # sweeps of many processes do not go in step
_CLEAN_EVERY_ROUNDS = 60


class Sweeper:
    def __init__(
        self,
        database: Database,
        bells: Bells,
        notifier: Notifier,
        pollers: Sequence[Poller],
        leftovers: Leftovers,
        reconciler: Reconciler,
        vacancies: Vacancies,
        *,
        posts: Posts,
        worker_id: UUID,
        settings: Settings,
    ) -> None:
        self._database = database
        self._posts = posts
        self._bells = bells
        self._notifier = notifier
        self._pollers = pollers
        self._leftovers = leftovers
        self._reconciler = reconciler
        self._vacancies = vacancies
        self._worker_id = worker_id
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
                due = await workers.next_due_seconds(self._database)
                probe = await breakers.next_probe_seconds(self._database)
                soonest = min((moment for moment in (due, probe) if moment is not None), default=None)
                if soonest is not None and soonest <= self._every:
                    await asyncio.sleep(soonest + 0.005)
                    with boundary(Boundary.PROMOTE):
                        promoted = await workers.promote_due(self._database)
                    self._notifier.changed(promoted)
                    if promoted or soonest == probe:
                        self._bells.ring(("priority", "normal"))
                        continue
            except UNREACHABLE as error:
                log.warning("wake_failed", error=type(error).__name__)
            except Exception:
                log.exception("wake_broke")
            await asyncio.sleep(min(1.0, self._every))

    async def round(self) -> None:
        """One sweep. Skips the shared part when another process is at it."""
        with boundary(Boundary.TAKE_BACK):
            result = await workers.sweep(
                self._database, ttl_seconds=self._ttl, max_crashes=self._max_crashes, may_bury=self._may_bury
            )
        self._looked_at = time.monotonic()
        if result is not None:
            _note(result)
            self._notifier.changed(result.tasks)
            self._bells.ring(result.lanes)
            await self._clean()
            await self._vacancies.repair()
        self._bells.ring(await self._posts.recover())
        for poller in self._pollers:
            with boundary(Boundary.ADOPT):
                orphans = await orphaned_calls.adopt(
                    self._database, worker_id=self._worker_id, provider=poller.provider_name, limit=_ORPHANS_PER_ROUND
                )
            SWEPT.labels("orphaned_calls").inc(len(orphans))
            for call in orphans:
                poller.adopt(call)

    def _may_bury(self) -> bool:
        """Whether a worker that was not seen for its time to live is dead, asked when the database just answered. After
        a time without the database it may only not have been able to say that it lives: as long as that takes, nobody
        is buried."""
        now = time.monotonic()
        if now - self._looked_at > self._every * _SPREAD + self._ttl / 4:
            self._database_back_at = now
        return now - self._database_back_at > self._ttl

    async def _clean(self) -> None:
        self._reconciler.start_round()
        with boundary(Boundary.GIVE_UP):
            settled = await orphaned_calls.settle(
                self._database, looked_for=[poller.provider_name for poller in self._pollers]
            )
        SWEPT.labels("abandoned_calls").inc(len(settled))
        for provider, cost_micros in settled:
            booked(provider, cost_micros, is_estimate=True)
        if settled:
            log.error("abandoned_calls_settled", calls=len(settled))
        with boundary(Boundary.BREAKER):
            stranded = await breakers.fail_stranded(self._database, max_wait_seconds=self._max_wait)
        SWEPT.labels("stranded_by_breaker").inc(len(stranded))
        if stranded:
            log.error("jobs_stranded_by_breaker", jobs=len(stranded))
            self._notifier.changed(stranded)
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
    SWEPT.labels("taken_back").inc(len(found.taken_back))
    SWEPT.labels("crashed_out").inc(len(found.crashed_out))
    SWEPT.labels("overdue").inc(len(found.overdue))
    if found.dead_workers or found.taken_back or found.crashed_out:
        log.warning(
            "took_back_jobs",
            dead_workers=found.dead_workers,
            taken_back=len(found.taken_back),
            crashed_out=len(found.crashed_out),
        )
    for job in found.taken_back:
        log.warning("job_taken_back", **job.as_log())
    for job in found.crashed_out:
        log.error("job_crashed_out", **job.as_log())
    for job in found.overdue:
        log.error("job_overdue", **job.as_log())
