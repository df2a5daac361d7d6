"""Paid calls whose job ended without them: somebody still has to learn what they cost and when their slot is free."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from app.calls.journal import Call, call_of
from app.db.pool import Database
from app.db.sql import load

_SQL = load(__file__)


async def adopt(database: Database, *, worker_id: UUID, provider: str, limit: int) -> list[Call]:
    """Submitted calls whose job ended without them and that no live process polls: from now on this one does."""
    rows = await database.fetch(_SQL["adopt_calls"], worker_id=worker_id, provider=provider, limit=limit)
    return [call_of(row) for row in rows]


async def unknown(database: Database, providers: Sequence[str], *, limit: int) -> list[Call]:
    """Calls of these providers without a known outcome, whose job ended without them, oldest first."""
    rows = await database.fetch(_SQL["unknown_calls"], providers=list(providers), limit=limit)
    return [call_of(row) for row in rows]


async def settle(database: Database, *, looked_for: Sequence[str]) -> list[tuple[str, int]]:
    """Calls that nobody can answer any more, of jobs that ended without them: booked at their estimate; the provider
    and the cost of each, in USD micros. Those of the providers ``looked_for`` are left to whoever looks for them."""
    rows = await database.fetch(_SQL["settle_abandoned"], looked_for=list(looked_for))
    return [(row["provider"], row["cost_micros"]) for row in rows]
