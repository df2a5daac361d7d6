"""The slot of a running job, given back to its pool while the job's inputs are prepared, and taken again."""

from __future__ import annotations

from typing import Any

from app.db.pool import Database
from app.db.sql import load
from app.domain.jobs import Claim

_SQL = load(__file__)


class BreakerOpen(Exception):
    """The provider takes no work: nothing was written."""


async def lend(database: Database, claim: Claim) -> bool:
    """Give the job's slot back to its pool. False when the claim is lost."""
    return await database.execute(_SQL["lend_slot"], **_lease(claim)) == 1


async def take(database: Database, claim: Claim, pool: str) -> bool | None:
    """Take a slot of the pool again: whether one was free, else the job is in line for it. None when the claim is
    lost. Raises BreakerOpen."""
    async with database.transaction() as connection:
        slots = await connection.fetchval(_SQL["lock_pool"], pool=pool)
        held = _SQL["held_by_breaker"]
        if await connection.fetchval(held, pool=pool, job_id=claim.job_id, attempt=claim.attempt):
            raise BreakerOpen
        # its own place in the line is no slot in use; whoever wants one later waits for it
        await connection.execute(_SQL["lend_slot"], **_lease(claim))
        free = slots is None or await connection.fetchval(_SQL["slots_ahead"], job_id=claim.job_id) < slots
        changed = await connection.execute(_SQL["take_slot"], **_lease(claim), free=free)
        return free if changed == 1 else None


def _lease(claim: Claim) -> dict[str, Any]:
    return {"job_id": claim.job_id, "worker_id": claim.worker_id, "attempt": claim.attempt}
