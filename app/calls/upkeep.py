"""What a host owes its paid calls from time to time: those of processes that died, and those that no job waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

import structlog

from app.calls import accounting, journal, orphans
from app.calls.executor import PaidCallExecutor
from app.calls.poller import Poller
from app.calls.reconciler import Reconciler
from app.calls.spool import Spool
from app.db.pool import Database
from app.domain.crash_points import Boundary, boundary
from app.domain.jobs import Lane
from app.queue import waits

log = structlog.get_logger(__name__)

_ORPHANS_PER_ROUND = 100


class CallUpkeep:
    """One per worker. Every method is safe to repeat."""

    def __init__(
        self,
        database: Database,
        spool: Spool,
        executor: PaidCallExecutor,
        pollers: Sequence[Poller],
        reconciler: Reconciler,
        *,
        worker_id: UUID,
    ) -> None:
        self._database = database
        self._spool = spool
        self._executor = executor
        self._pollers = pollers
        self._reconciler = reconciler
        self._worker_id = worker_id

    async def recover(self) -> frozenset[Lane]:
        """Go on, on this host, with the calls of processes that died: give back what was never sent, wake who waits for
        a reply that is here, and see to results that are kept here.

        Returns the lanes whose jobs became claimable by that.
        """
        lanes: set[Lane] = set()
        for call_id in await journal.abandoned_intents(self._database, self._spool.markers.unsent()):
            if self._spool.markers.revoke(call_id):
                lanes |= await self._executor.never_sent(call_id)
        if replied := self._spool.replied():
            with boundary(Boundary.PROMOTE):
                lanes |= await waits.reply_found(self._database, replied)
        if kept := self._spool.all_kept():
            with boundary(Boundary.PROMOTE):
                lanes |= await waits.kept_here(self._database, self._spool.host, kept)
            await asyncio.to_thread(self._spool.remove_expired)
        return frozenset(lanes)

    async def adopt(self) -> int:
        """Poll submitted calls whose job ended without them and that no live process polls; how many there were."""
        adopted = 0
        for poller in self._pollers:
            with boundary(Boundary.ADOPT):
                calls = await orphans.adopt(
                    self._database, worker_id=self._worker_id, provider=poller.provider_name, limit=_ORPHANS_PER_ROUND
                )
            adopted += len(calls)
            for call in calls:
                poller.adopt(call)
        return adopted

    async def settle(self) -> int:
        """Begin to look for unknown calls that no job looks for, and settle those that nobody can look for; how many
        were settled."""
        self._reconciler.start_round()
        with boundary(Boundary.GIVE_UP):
            settled = await orphans.settle(
                self._database, looked_for=[poller.provider_name for poller in self._pollers]
            )
        for provider, cost_micros in settled:
            accounting.record_cost(provider, cost_micros, is_estimate=True)
        if settled:
            log.error("abandoned_calls_settled", calls=len(settled))
        return len(settled)
