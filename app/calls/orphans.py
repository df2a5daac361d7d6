"""Paid calls whose job ended without them: somebody still has to learn what they cost and when their slot is free."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from app.calls.journal import COLUMNS, Call, call_of
from app.db.pool import Database


async def adopt(database: Database, *, worker_id: UUID, provider: str, limit: int) -> list[Call]:
    """Submitted calls whose job ended without them and that no live process polls: from now on this one does."""
    rows = await database.fetch(
        "with orphan as (select c.id as orphan_id from makeit3d.provider_calls c"  # noqa: S608 - constants
        " left join makeit3d.jobs j on j.id = c.job_id"
        "   where c.state = 'submitted' and c.provider_task_id is not null and c.provider = $2"
        "   and (j.id is null or j.status in ('completed', 'failed', 'canceled'))"
        "   and (c.worker_id = $1 or not exists (select from makeit3d.workers w where w.id = c.worker_id))"
        "   limit $3 for no key update of c skip locked)"
        f" update makeit3d.provider_calls set worker_id = $1 from orphan where id = orphan_id returning {COLUMNS}",
        worker_id,
        provider,
        limit,
    )
    return [call_of(row) for row in rows]


async def unknown(database: Database, providers: Sequence[str], *, limit: int) -> list[Call]:
    """Calls of these providers without a known outcome, whose job ended without them, oldest first."""
    rows = await database.fetch(
        f"select {COLUMNS} from makeit3d.provider_calls c"  # noqa: S608 - constant columns
        " where provider = any($1) and provider_task_id is null"
        " and (state = 'unknown' or (state = 'intent' and deadline < now()))"
        " and not exists (select from makeit3d.jobs j where j.id = c.job_id and j.status in ('queued', 'running'))"
        " order by created_at limit $2",
        list(providers),
        limit,
    )
    return [call_of(row) for row in rows]


_SETTLE_ABANDONED = """
with over as (
  update makeit3d.provider_calls c set state = 'settled', cost_micros = estimate_micros, cost_is_estimate = true,
    error_code = coalesce(error_code, 'provider_outcome_unknown'), settled_at = now()
  where c.is_open and c.provider_task_id is null and c.provider <> all($1)
    and c.deadline < now() - interval '1 minute'
    and not exists (select from makeit3d.jobs j where j.id = c.job_id and j.status in ('queued', 'running'))
  returning c.job_id, c.provider, c.cost_micros
), booked as (
  update makeit3d.jobs set cost_micros = jobs.cost_micros + over.cost_micros from over where jobs.id = over.job_id
)
select provider, cost_micros from over
"""


async def settle(database: Database, *, looked_for: Sequence[str]) -> list[tuple[str, int]]:
    """Calls that nobody can answer any more, of jobs that ended without them: booked at their estimate; the provider
    and the cost of each, in USD micros. Those of the providers ``looked_for`` are left to whoever looks for them."""
    rows = await database.fetch(_SETTLE_ABANDONED, list(looked_for))
    return [(row["provider"], row["cost_micros"]) for row in rows]
