"""The slot of a running job, given back to its pool while the job's inputs are prepared, and taken again."""

from __future__ import annotations

from app.db.breakers import GATE
from app.db.claims import LOCK_POOLS, USED
from app.db.pool import Database
from app.domain.jobs import Claim

_LEND = """
update jobs set slot = 'lent' where id = $1 and worker_id = $2 and attempt = $3 and status = 'running'
"""

# Jobs that wait for a slot go before all that are queued, and among themselves in the order of claims.
_BEHIND = """
select count(*) from jobs me join jobs j on j.pool = me.pool and j.status = 'running' and j.slot = 'wanted'
  and j.id <> me.id and not j.calls_done
  and (-j.priority, j.fair_tag, j.id) > (-me.priority, me.fair_tag, me.id)
where me.id = $1
"""

# The probe goes on; whoever else was claimed before the breaker opened waits for it like all that are queued.
_HELD = f"""
select {GATE} <> 'all' and (v.probe_job, v.probe_attempt) is distinct from ($2::uuid, $3::integer)
from pools join providers v on v.name = pools.provider where pools.name = $1
"""  # noqa: S608 - constants

_TAKE = """
update jobs set slot = case when $4 then 'held' else 'wanted' end
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
        slots = (await connection.fetchrow(LOCK_POOLS, [pool]))["slots"]
        if await connection.fetchval(_HELD, pool, claim.job_id, claim.attempt):
            raise BreakerOpen
        # its own place in the line is no slot in use; whoever wants one later waits for it
        await connection.execute(_LEND, claim.job_id, claim.worker_id, claim.attempt)
        used = (await connection.fetchrow(USED, [pool]))["used"] - await connection.fetchval(_BEHIND, claim.job_id)
        free = used < slots
        changed = await connection.execute(_TAKE, claim.job_id, claim.worker_id, claim.attempt, free)
        return free if changed == "UPDATE 1" else None
