"""Lets a dead worker's time run out at once: the waiting is the product's, and is shown elsewhere.

Nothing else is touched: the sweep finds and buries the dead, the claims and the parked calls as it always does.
"""

from __future__ import annotations

import asyncio
import os

import asyncpg

# who waits for the answer to an open call waits another moment, not minutes
_OVER = """
with dead as (
  update makeit3d.workers set seen_at = '-infinity' where pid = $1 returning id
)
update makeit3d.provider_calls c set deadline = least(c.deadline, now() + interval '0.3 seconds')
from makeit3d.jobs j join dead on dead.id = j.worker_id
where c.job_id = j.id and j.status = 'running' and c.state = 'intent'
"""


async def _serve(dsn: str, deaths: int) -> None:
    connection = await asyncpg.connect(dsn)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, os.read, deaths, 4096):
        for pid in line.split():
            await connection.execute(_OVER, int(pid))


def undertaker(dsn: str, deaths: int) -> None:
    """Read process ids, one a line, from the descriptor until its other end closes."""
    asyncio.run(_serve(dsn, deaths))
