"""Slots of pools and places of users that came free go to the jobs that wait for them."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

import structlog

from app.db import claims, user_limits
from app.db.pool import UNREACHABLE, Database
from app.db.user_limits import Released
from app.domain.crash_points import Boundary, boundary
from app.domain.jobs import Lane
from app.domain.user_limits import UserLimits
from app.services.bells import Bells
from app.services.notifier import Notifier

log = structlog.get_logger(__name__)


class Vacancies:
    def __init__(self, database: Database, bells: Bells, notifier: Notifier, limits: UserLimits) -> None:
        self._database = database
        self._bells = bells
        self._notifier = notifier
        self._in_flight = limits.in_flight

    async def announce(self, *, pools: Iterable[str] = (), users: Iterable[UUID | None] = ()) -> None:
        """Jobs or calls of these pools and users ended: ring for who may go on now. Call it after the commit.

        An announcement that is lost costs one sweep.
        """
        try:
            lanes = await self._places_freed({user_id for user_id in users if user_id is not None})
            if freed := sorted(set(pools)):
                lanes.update(await claims.lanes_with_room(self._database, freed))
        except UNREACHABLE as error:
            log.warning("vacancies_not_announced", error=type(error).__name__)  # the sweep does
            return
        except Exception:  # what was committed before stands, and is not for its caller to doubt
            log.exception("vacancies_broke")
            return
        self._bells.ring(lanes)

    async def repair(self) -> None:
        """Give out every place that is free, also those that a crash or a changed setting left. Raises what the
        database raises."""
        lanes = await self._release(await user_limits.all_waiting(self._database))
        with boundary(Boundary.FREE):
            lanes |= self._told(await user_limits.release_ownerless(self._database))
        self._bells.ring(lanes)

    async def _places_freed(self, users: set[UUID]) -> set[Lane]:
        if self._in_flight is None or not users:
            return set()
        return await self._release(await user_limits.waiting(self._database, sorted(users)))

    async def _release(self, users: Iterable[UUID]) -> set[Lane]:
        lanes: set[Lane] = set()
        for user_id in users:
            with boundary(Boundary.FREE):
                lanes |= self._told(await user_limits.release(self._database, user_id, in_flight=self._in_flight))
        return lanes

    def _told(self, released: Released) -> frozenset[Lane]:
        self._notifier.changed(released.tasks)
        return released.lanes
