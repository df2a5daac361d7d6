"""Numbers of outputs: accepting a request reserves them, and a second paid call takes fresh ones."""

from __future__ import annotations

from app.db import assets
from app.db.pool import Database
from app.db.sql import load
from app.domain.jobs import AssetSlot, Claim

_SQL = load(__file__)


async def renumber(database: Database, claim: Claim) -> list[AssetSlot] | None:
    """Give the unfinished outputs of a job fresh numbers, for a second paid call; None when the claim is lost. An
    upload of the first call's files may still arrive under the old ones."""
    changed: int = await database.fetchval(
        _SQL["renumber_outputs"], job_id=claim.job_id, worker_id=claim.worker_id, attempt=claim.attempt
    )
    return (await assets.slots_of(database, [claim.job_id]))[claim.job_id] if changed else None
