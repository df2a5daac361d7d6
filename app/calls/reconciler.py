"""Paid calls of a polled provider whose outcome is unknown are looked for in the provider's own listing.

A job that lives looks for its own call when it runs (``PaidCalls``); the calls of jobs that ended are looked for
here, so that their cost and their slot are true.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import structlog

from app.ai_clients.base import PolledProvider
from app.ai_clients.errors import ProviderError
from app.calls import accounting, journal, orphans
from app.calls.journal import Call
from app.config import Settings
from app.db.pool import UNREACHABLE, Database
from app.domain.crash_points import Boundary, boundary
from app.domain.statuses import CallState
from app.errors import ErrorCode
from app.queue.contracts import Committed
from app.services.publisher import Publisher
from app.tracing import detached

log = structlog.get_logger(__name__)

_CODE = ErrorCode.PROVIDER_OUTCOME_UNKNOWN.code
_PER_ROUND = 20


@dataclass(frozen=True, slots=True)
class Found:
    provider_task_id: str


@dataclass(frozen=True, slots=True)
class NotYet:
    """Not listed so far; look again after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Absent:
    """Looked for long enough: the provider never accepted it."""


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """More than one of the listed may be it, or the listing can not be had."""


LookupResult = Found | NotYet | Absent | Ambiguous


class Reconciler:
    def __init__(
        self, database: Database, publisher: Publisher, providers: Mapping[str, PolledProvider], settings: Settings
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._providers = providers
        self._first_look = settings.reconcile_first_seconds
        self._window = settings.reconcile_window_seconds
        self._give_up = settings.call_give_up_seconds
        self._next_lookup: dict[UUID, float] = {}
        self._round: asyncio.Task[None] | None = None

    async def lookup(self, provider: PolledProvider, call: Call) -> LookupResult:
        """Look once for an unknown call, or one whose sender is gone. Raises ProviderError."""
        if call.state is CallState.INTENT:
            with boundary(Boundary.UNKNOWN, [call.task_id]):
                await journal.unknown(self._database, call.id, error_code=_CODE, http_status=None)
        if call.age_seconds < self._first_look:
            return NotYet(self._first_look - call.age_seconds)
        known = await journal.known_task_ids(self._database, provider.name, call.created_at)
        with boundary(Boundary.LOOK, [call.task_id]):
            found = await provider.find_submitted(call.fingerprint, since=call.created_at, known_ids=known)
        if len(found) == 1:
            return Found(found[0])
        if call.age_seconds < self._window:
            # at growing intervals: a running task may be listed late
            return NotYet(max(self._first_look, call.age_seconds / 2))
        if not found:
            return Absent()
        log.warning("provider_call_ambiguous", call_id=str(call.id), candidates=len(found))
        return Ambiguous()

    # --- calls whose job has ended --------------------------------------------------------------------------

    def start_round(self) -> None:
        """Look for calls that no job looks for; at most one round runs at a time."""
        if self._round is None or self._round.done():
            self._round = detached(self._look_up_orphans())

    async def aclose(self) -> None:
        if self._round is not None:
            self._round.cancel()
            await asyncio.gather(self._round, return_exceptions=True)

    async def _look_up_orphans(self) -> None:
        try:
            found = await orphans.unknown(self._database, sorted(self._providers), limit=_PER_ROUND)
            self._next_lookup = {call.id: self._next_lookup.get(call.id, 0.0) for call in found}
            for call in found:
                if self._next_lookup[call.id] <= time.monotonic():
                    await self._follow(call)
        except UNREACHABLE as error:
            log.warning("reconciling_waits_for_database", error=type(error).__name__)
        except Exception:
            log.exception("reconciling_broke")

    async def _follow(self, call: Call) -> None:
        try:
            result = await self.lookup(self._providers[call.provider], call)
        except ProviderError as error:
            log.warning("reconciling_failed", provider=call.provider, code=error.code.code)
            result = Ambiguous() if call.age_seconds > self._give_up else NotYet(self._first_look)
        match result:
            case Found(provider_task_id):
                # from now on it is polled like every call whose job ended
                await accounting.adopt(self._database, call, provider_task_id, last=True)
                return
            case NotYet(seconds):
                self._next_lookup[call.id] = time.monotonic() + seconds
                return
            case Absent():
                await accounting.never_accepted(self._database, call)
            case Ambiguous():
                await accounting.give_up_unknown(self._database, call)
        committed = Committed()
        committed.free(call.pool, call.user_id)
        self._publisher.publish(committed)
