"""Ending jobs that took longer than they may, where their own process does not."""

from __future__ import annotations

import asyncpg

from app.db.events import job_columns, job_updates
from app.db.pool import Connection, Database
from app.db.rollup import lock_tasks, roll_up
from app.db.settle import FailedJob, fail_what_hangs_on
from app.errors import ErrorCode

OVERDUE_MESSAGE = "The job took longer than it may. What it paid for is followed to its end."

_OVERDUE = """
select j.task_id from jobs j
where j.status = 'running' and j.deadline < now() - make_interval(secs => $1)
order by j.deadline limit 500
"""

_FAIL = f"""
with ended as (
  update jobs j set status = 'failed', worker_id = null, resume = false, seconds_left = null, error_code = $3,
    error_message = $4, finished_at = now(), failures = j.failures + 1
  where j.task_id = any($1) and j.status = 'running' and j.deadline < now() - make_interval(secs => $2)
  returning {job_columns("j")}, j.trace_id
), event as (
  {job_updates("ended")}
)
select id, task_id, request_id, user_id, trace_id from ended
"""  # noqa: S608 - constants


async def fail_overdue(connection: Connection, database: Database, *, patience_seconds: float) -> list[asyncpg.Record]:
    """Fail running jobs whose deadline passed that long ago; the ids of each. Open calls stay open: they
    are polled on and their cost is booked."""
    overdue = await connection.fetch(_OVERDUE, patience_seconds)
    if not overdue:
        return []
    task_ids = sorted({row["task_id"] for row in overdue})
    await lock_tasks(connection, task_ids)
    error = ErrorCode.DEADLINE_EXCEEDED
    rows = await connection.fetch(_FAIL, task_ids, patience_seconds, error.code, OVERDUE_MESSAGE)
    if rows:
        failed = [FailedJob(row["id"], row["request_id"], error, OVERDUE_MESSAGE) for row in rows]
        await fail_what_hangs_on(connection, database, failed)
        await roll_up(connection, request_ids=[job.request_id for job in failed], task_ids=task_ids)
    return rows
