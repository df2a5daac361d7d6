"""One circuit breaker per provider, over all processes: a provider that takes nothing gets one job at a time to show
that it is well again, while the others wait.

A refusal for configuration (key, credits, model) opens it at once; being unreachable and unknown outcomes do after
some in a row. What a provider refuses of one request, or puts off, says nothing about the next.
"""

from __future__ import annotations

from uuid import UUID

import structlog
from prometheus_client import Counter, Gauge

from app.ai_clients.errors import Advice, OutcomeUnknown, ProviderError, Refused
from app.config import Settings
from app.db import breakers
from app.db.breakers import Breaker
from app.db.pool import UNREACHABLE, Database
from app.domain.breakers import BreakerState
from app.domain.crash_points import Boundary, boundary
from app.domain.jobs import LANES
from app.errors import ErrorCode
from app.services.bells import Bells

log = structlog.get_logger(__name__)

OPEN = Gauge("makeit3d_breaker_open", "1 while a provider's jobs wait for its circuit breaker", ["provider"])
TRIPS = Counter("makeit3d_breaker_trips_total", "Openings of a provider's circuit breaker", ["provider", "code"])


class Breakers:
    def __init__(self, database: Database, bells: Bells, settings: Settings) -> None:
        self._database = database
        self._bells = bells
        self._threshold = settings.breaker_failures
        self._cool_down = settings.breaker_cool_down_seconds
        self._longest = settings.breaker_longest_cool_down_seconds

    async def accepted(self, provider: str, call_id: UUID, task_id: str | None) -> None:
        """The provider took a paid call."""
        try:
            with boundary(Boundary.BREAKER, [task_id]):
                closed = await breakers.accepted(self._database, provider, call_id)
        except UNREACHABLE as error:
            log.warning("breaker_not_told", provider=provider, error=type(error).__name__)  # the next call tells
            return
        if closed:
            self._went_well(provider)

    async def failed(
        self, provider: str, error: ProviderError, *, job_id: UUID | None = None, task_id: str | None = None
    ) -> bool:
        """A call was not taken; whether jobs of the provider have to wait now."""
        try:
            with boundary(Boundary.BREAKER, [task_id]):
                return await self._count(provider, error, job_id)
        except UNREACHABLE as unreachable:
            log.warning("breaker_not_told", provider=provider, error=type(unreachable).__name__)
            return False

    async def _count(self, provider: str, error: ProviderError, job_id: UUID | None) -> bool:
        at_once = isinstance(error, Refused) and error.advice is Advice.CONFIGURATION
        if not at_once and not _is_outage(error):
            if isinstance(error, Refused) and error.advice is Advice.DEFER and job_id is not None:
                seconds = error.retry_after or self._cool_down
                await breakers.postpone(self._database, provider, job_id=job_id, seconds=min(seconds, self._longest))
            return False
        state, opened = await breakers.failed(
            self._database,
            provider,
            job_id=job_id,
            error_code=error.code.code,
            at_once=at_once,
            threshold=self._threshold,
            cool_down_seconds=self._cool_down,
            longest_seconds=self._longest,
        )
        if opened:
            log.error("breaker_opened", provider=provider, code=error.code.code)
            TRIPS.labels(provider, error.code.code).inc()
        OPEN.labels(provider).set(state is not BreakerState.CLOSED)
        return state is not BreakerState.CLOSED

    async def close(self, provider: str) -> bool:
        """An operator mended what was wrong; False when there was nothing to close."""
        closed = await breakers.close(self._database, provider)
        if closed:
            self._went_well(provider)
        return closed

    def _went_well(self, provider: str) -> None:
        log.info("breaker_closed", provider=provider)
        OPEN.labels(provider).set(0)
        self._bells.ring(LANES)


async def look(database: Database) -> list[Breaker]:
    """The breakers as they are now, also for this process's metrics."""
    found = await breakers.read_all(database)
    for breaker in found:
        OPEN.labels(breaker.provider).set(breaker.state is not BreakerState.CLOSED)
    return found


def _is_outage(error: ProviderError) -> bool:
    """Whether it says something about the provider rather than about one request."""
    return isinstance(error, OutcomeUnknown) or (
        isinstance(error, Refused) and error.code is ErrorCode.PROVIDER_UNAVAILABLE
    )
