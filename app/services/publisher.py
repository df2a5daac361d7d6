"""What others are told after a commit: readers of tasks, workers of lanes, jobs that wait for what came free."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from uuid import UUID

import structlog

from app.db.pool import UNREACHABLE
from app.domain.crash_points import Boundary, boundary
from app.domain.user_limits import UserLimits
from app.queue import permits, waits
from app.queue.contracts import Committed
from app.queue.maintenance import advance_dependents
from app.queue.permits import Released
from app.queue.transitions import Queue
from app.services.bells import Bells
from app.services.notifier import Notifier
from app.tracing import detached

log = structlog.get_logger(__name__)


class Publisher:
    """One per process. What is lost costs one round of maintenance."""

    def __init__(self, queue: Queue, bells: Bells, notifier: Notifier, limits: UserLimits) -> None:
        self._queue = queue
        self._database = queue.database
        self._bells = bells
        self._notifier = notifier
        self._in_flight = limits.in_flight
        self._freed = Committed()
        self._giving: asyncio.Task[None] | None = None

    def publish(self, committed: Committed) -> None:
        """Tell of a transaction that was committed. Nobody waits for it: in the background dependents of what ended are
        told, and permits and slots that came free are given to who waits for them, those of one moment together."""
        self._notifier.changed(committed.tasks)
        if committed.lanes:
            self._bells.ring(committed.lanes)
        if committed.capacity or committed.users or committed.dependents:
            self._freed.capacity |= committed.capacity
            self._freed.users |= committed.users
            self._freed.dependents |= committed.dependents
            if self._giving is None or self._giving.done():
                self._giving = detached(self._give())

    async def _give(self) -> None:
        while self._freed:
            freed, self._freed = self._freed, Committed()
            try:
                if freed.capacity:
                    lanes = await waits.lanes_with_room(self._database, sorted(freed.capacity))
                    self.publish(Committed(lanes=lanes))
                if freed.dependents:  # a part of a long line: the rest goes on behind what comes free meanwhile
                    self.publish(await self._advance(freed.dependents))
                self.publish(await self._release_permits(freed.users))
            except UNREACHABLE as error:
                log.warning("capacity_not_published", error=type(error).__name__)  # maintenance does
            except Exception:
                log.exception("publish_failed", unexpected=True)

    async def repair(self) -> None:
        """Tell every dependent that was not told, and give out every permit that is free, also those that a crash or a
        changed setting left. Raises what the database raises."""
        self.publish(await self._advance(None))
        released = await self._release(await permits.all_waiting(self._database))
        with boundary(Boundary.FREE):
            _add(released, await permits.release_ownerless(self._database))
        self.publish(released)

    async def _advance(self, task_ids: set[str] | None) -> Committed:
        return await advance_dependents(self._queue, limited=self._in_flight is not None, task_ids=task_ids)

    async def _release_permits(self, users: set[UUID]) -> Committed:
        if self._in_flight is None or not users:
            return Committed()
        return await self._release(await permits.waiting(self._database, sorted(users)))

    async def _release(self, users: Iterable[UUID]) -> Committed:
        released = Committed()
        for user_id in users:
            with boundary(Boundary.FREE):
                _add(released, await permits.release(self._database, user_id, in_flight=self._in_flight))
        return released

    async def aclose(self) -> None:
        if self._giving is not None:
            await self._giving


def _add(committed: Committed, released: Released) -> None:
    committed.lanes |= released.lanes
    committed.tasks |= released.tasks
