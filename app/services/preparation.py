"""Inputs are fetched and decoded while the provider's slot is another job's, a few of each user at a time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from app.db.pool import Database
from app.domain.crash_points import Boundary, boundary
from app.domain.jobs import Deferred
from app.domain.statuses import WaitingFor
from app.errors import AppError, ErrorCode
from app.queue import slots
from app.queue.contracts import Committed
from app.services.job_run import ClaimLost, JobEnded, JobRun
from app.services.publisher import Publisher
from app.services.turns import Turns

_AT_ONCE = 2
MOST_PREPARING = 8  # of a user and process; a further job goes back to the queue for a while
_COME_BACK_SECONDS = (1.0, 3.0)
_LONGEST_COME_BACK = 5  # times that
_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 1.0


class Preparation:
    def __init__(self, database: Database, publisher: Publisher) -> None:
        self._database = database
        self._publisher = publisher
        self._turns = Turns(at_once=_AT_ONCE, most=MOST_PREPARING)

    @asynccontextmanager
    async def of(self, run: JobRun) -> AsyncGenerator[None]:
        """While inside, the job holds no slot of its pool; at the end it has one again. Nothing is paid yet: a stop
        interrupts it.

        Raises ClaimLost, HandBack, JobEnded when enough of the user's jobs are at it or the provider takes no work any
        more, and what the inside raises.
        """
        with run.exposed():
            try:
                # who is sent away keeps the slot until then: given back, it would only bring the next one of a flood
                with self._turns.place(run.job.user_id) as gate:
                    with boundary(Boundary.SLOT, [run.job.task_id]):
                        if not await slots.lend(self._database, run.claim):
                            raise ClaimLost
                    self._publisher.publish(Committed(capacity={run.job.pool}))
                    async with gate:
                        yield
            except AppError as error:
                if error.error is not ErrorCode.TOO_MANY_INPUTS:
                    raise
                raise JobEnded(Deferred(None, None, come_back_seconds(run.job.deferrals))) from None
            await self._slot_again(run)

    async def _slot_again(self, run: JobRun) -> None:
        pause = _PAUSE_SECONDS
        while True:
            with boundary(Boundary.SLOT, [run.job.task_id]):
                try:
                    taken = await slots.take(self._database, run.claim, run.job.pool)
                except slots.BreakerOpen:
                    raise JobEnded(
                        Deferred(None, None, come_back_seconds(run.job.deferrals), WaitingFor.BREAKER)
                    ) from None
            if taken is None:
                raise ClaimLost
            if taken:
                return
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)


def come_back_seconds(deferrals: int) -> float:
    """Longer for who was sent away before: a flood that is prepared slowly is not claimed in vain all the time."""
    return random.uniform(*_COME_BACK_SECONDS) * min(1 + deferrals, _LONGEST_COME_BACK)
