"""Paid calls of a polled provider whose outcome is unknown are looked for in the provider's own listing.

A job that lives looks for its own call when it runs (``Journal``); the calls of jobs that ended are looked for here, so
that their cost and their slot are true.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import structlog

from app.ai_clients.base import ModelProvider
from app.ai_clients.errors import ProviderError
from app.config import Settings
from app.db import orphaned_calls, provider_calls
from app.db.pool import UNREACHABLE, Database
from app.db.provider_calls import Call
from app.domain.crash_points import Boundary, boundary
from app.domain.statuses import CallState
from app.errors import ErrorCode
from app.services import bookings
from app.services.vacancies import Vacancies
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


Sighting = Found | NotYet | Absent | Ambiguous


class Reconciler:
    def __init__(
        self, database: Database, vacancies: Vacancies, providers: Mapping[str, ModelProvider], settings: Settings
    ) -> None:
        self._database = database
        self._vacancies = vacancies
        self._providers = providers
        self._first_look = settings.reconcile_first_seconds
        self._window = settings.reconcile_window_seconds
        self._give_up = settings.call_give_up_seconds
        self._next_look: dict[UUID, float] = {}
        self._round: asyncio.Task[None] | None = None

    async def look(self, provider: ModelProvider, call: Call) -> Sighting:
        """One look for an unknown call, or one whose sender is gone. Raises ProviderError."""
        if call.state is CallState.INTENT:
            with boundary(Boundary.UNKNOWN, [call.task_id]):
                await provider_calls.unknown(self._database, call.id, error_code=_CODE, http_status=None)
        if call.age_seconds < self._first_look:
            return NotYet(self._first_look - call.age_seconds)
        known = await provider_calls.known_task_ids(self._database, provider.name, call.created_at)
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
            self._round = detached(self._look_for_orphans())

    async def aclose(self) -> None:
        if self._round is not None:
            self._round.cancel()
            await asyncio.gather(self._round, return_exceptions=True)

    async def _look_for_orphans(self) -> None:
        try:
            orphans = await orphaned_calls.unknown(self._database, sorted(self._providers), limit=_PER_ROUND)
            self._next_look = {call.id: self._next_look.get(call.id, 0.0) for call in orphans}
            for call in orphans:
                if self._next_look[call.id] <= time.monotonic():
                    await self._follow(call)
        except UNREACHABLE as error:
            log.warning("reconciling_waits_for_database", error=type(error).__name__)
        except Exception:
            log.exception("reconciling_broke")

    async def _follow(self, call: Call) -> None:
        try:
            sighting = await self.look(self._providers[call.provider], call)
        except ProviderError as error:
            log.warning("reconciling_failed", provider=call.provider, code=error.code.code)
            sighting = Ambiguous() if call.age_seconds > self._give_up else NotYet(self._first_look)
        match sighting:
            case Found(provider_task_id):
                # from now on it is polled like every call whose job ended
                await bookings.adopt(self._database, call, provider_task_id, last=True)
                return
            case NotYet(seconds):
                self._next_look[call.id] = time.monotonic() + seconds
                return
            case Absent():
                await bookings.never_accepted(self._database, call)
            case Ambiguous():
                await bookings.give_up_unknown(self._database, call)
        await self._vacancies.announce(pools=[call.pool], users=[call.user_id])
