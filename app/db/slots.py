"""The slot of a running job, given back to its pool while the job's inputs are prepared, and taken again."""

from __future__ import annotations

from app.db.pool import Database
from app.domain.jobs import Claim

_LEND = """
update makeit3d.jobs set slot = 'lent' where id = $1 and worker_id = $2 and attempt = $3 and status = 'running'
"""

_LOCK_POOL = "select slots from makeit3d.pools where name = $1 for no key update"

# Slots that the job may not have: jobs that wait for one go before all that are queued, and among themselves in the
# order of claims.
_AHEAD = """
select makeit3d.slots_used(me.pool) - (
  select count(*) from makeit3d.jobs j
  where j.pool = me.pool and j.status = 'running' and j.slot = 'wanted' and j.id <> me.id and not j.calls_done
    and (-j.priority, j.fair_tag, j.id) > (-me.priority, me.fair_tag, me.id))
from makeit3d.jobs me where me.id = $1
"""

# The probe goes on; whoever else was claimed before the breaker opened waits for it like all that are queued.
_HELD = """
select makeit3d.admission(v.name) <> 'allow' and (v.probe_job, v.probe_attempt) is distinct from ($2::uuid, $3::integer)
from makeit3d.pools join makeit3d.providers v on v.name = pools.provider where pools.name = $1
"""

_TAKE = """
update makeit3d.jobs set slot = case when $4 then 'held' else 'wanted' end
where id = $1 and worker_id = $2 and attempt = $3 and status = 'running'
"""


class BreakerOpen(Exception):
    """The provider takes no work: nothing was written."""


async def lend(database: Database, claim: Claim) -> bool:
    """Give the job's slot back to its pool. False when the claim is lost."""
    return await database.execute(_LEND, claim.job_id, claim.worker_id, claim.attempt) == 1


async def take(database: Database, claim: Claim, pool: str) -> bool | None:
    """Take a slot of the pool again: whether one was free, else the job is in line for it. None when the claim is
    lost. Raises BreakerOpen."""
    async with database.transaction() as connection:
        slots = await connection.fetchval(_LOCK_POOL, pool)
        if await connection.fetchval(_HELD, pool, claim.job_id, claim.attempt):
            raise BreakerOpen
        # its own place in the line is no slot in use; whoever wants one later waits for it
        await connection.execute(_LEND, claim.job_id, claim.worker_id, claim.attempt)
        used = await connection.fetchval(_AHEAD, claim.job_id)
        free = used < slots
        changed = await connection.execute(_TAKE, claim.job_id, claim.worker_id, claim.attempt, free)
        return free if changed == 1 else None
