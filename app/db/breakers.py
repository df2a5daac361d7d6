"""The circuit breaker of each provider: one row, shared by all processes.

What waits for a breaker is derived from that row by the claim, so that opening and closing cost the same whatever
waits. Lock order: pools, then providers.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import asyncpg

from app.db.pool import Database
from app.db.sql import load
from app.domain.breakers import BreakerState

_SQL = load(__file__)


@dataclass(frozen=True, slots=True)
class Breaker:
    """``probe_seconds`` is the time until a job may be the probe, negative when that moment is past."""

    provider: str
    state: BreakerState
    failures: int
    trips: int
    error_code: str | None
    open_seconds: float | None
    probe_seconds: float | None


async def read_all(database: Database) -> list[Breaker]:
    """Of every provider that is paid."""
    return [_breaker(row) for row in await database.fetch(_SQL["breakers"])]


async def failed(
    database: Database,
    provider: str,
    *,
    job_id: UUID | None,
    error_code: str,
    at_once: bool,
    threshold: int,
    cool_down_seconds: float,
    longest_seconds: float,
) -> tuple[BreakerState, bool]:
    """Count a failure of the provider: the state it leaves, and whether it opened the breaker.

    ``at_once`` opens a closed one whatever was before, else the ``threshold`` of failures in a row does.
    """
    row = await database.fetchrow(
        _SQL["count_failure"],
        provider=provider,
        job_id=job_id,
        at_once=at_once,
        threshold=threshold,
        error_code=error_code,
        cool_down_seconds=cool_down_seconds,
        longest_seconds=longest_seconds,
    )
    return (BreakerState.CLOSED, False) if row is None else (BreakerState(row["state"]), row["opens"])


async def accepted(database: Database, provider: str, call_id: UUID) -> bool:
    """The provider took a call: nothing is written while all is well. Whether this closed the breaker, which a call
    that was sent before it opened does not."""
    state = await database.fetchval(_SQL["close_breaker"], provider=provider, call_id=call_id)
    return state is not None and state != BreakerState.CLOSED


async def postpone(database: Database, provider: str, *, job_id: UUID, seconds: float) -> None:
    """The probe was told to come again later: that is no verdict."""
    await database.execute(_SQL["postpone_probe"], provider=provider, job_id=job_id, seconds=seconds)


async def close(database: Database, provider: str) -> bool:
    """Close it by hand; False when it was closed already or there is no such provider."""
    state = await database.fetchval(_SQL["close_breaker"], provider=provider, call_id=None)
    return state is not None and state != BreakerState.CLOSED


async def next_probe_seconds(database: Database) -> float | None:
    """Seconds until a breaker may be probed next; None when no such moment is to come."""
    return await database.fetchval(_SQL["next_probe_seconds"])


def _breaker(row: asyncpg.Record) -> Breaker:
    values = dict(row)
    values["state"] = BreakerState(values["state"])
    return Breaker(**values)
