"""Reading tasks. Everything here is scoped to the owner: what is not theirs is absent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

import asyncpg

from app.db.asset_tables import AssetTables
from app.db.pool import Database
from app.db.waits import WAIT
from app.domain.tasks import TaskRow


@dataclass(frozen=True, slots=True)
class StatusRows:
    """The rows a status document is made of, from one snapshot. ``jobs`` and ``assets`` are those of one request."""

    task_id: str
    request_id: UUID
    operation: str
    job_id: UUID  # the job that makes what was asked for, or the job that was asked about
    retry_of: UUID | None  # the failed request that this one repeats
    single_job: bool
    steps: int  # of the request as planned, also those that have no jobs yet
    jobs: list[dict[str, Any]]
    assets: list[dict[str, Any]]


_TASK_COLUMNS = "id, type, label, status, user_relevant, created_at, updated_at, finished_at"

_STATUS = """
with request as (
  {request}
)
select request.*, (
  select coalesce(json_agg(json_build_object('id', j.id, 'step', j.step, 'chunk', j.chunk, 'type', j.type,
    'status', j.status, 'pool', j.pool, 'progress', j.progress, 'items_done', j.items_done,
    'items_total', j.items_total, 'waiting_for', wait.reason, 'error_code', wait.error_code,
    'probe_seconds', case when v.state = 'open' then extract(epoch from v.probe_at - now())::float8 end,
    'error_message', j.error_message, 'cost_micros', j.cost_micros,
    'provider_task_id', j.output->>'provider_task_id') order by j.step, j.chunk), '[]')
  from makeit3d.jobs j {wait} where j.request_id = request.id
) as jobs, (
  select coalesce(json_agg(json_build_object('kind', a.kind, 'id', a.id, 'job_id', a.job_id, 'number', a.number,
    'status', a.status, 'asset_url', a.asset_url, 'preview_url', a.preview_url, 'error_code', a.error_code)
    order by a.number), '[]') from (
    {outputs}
  ) as a
) as assets
from request
"""

_BY_TASK = """
  select r.id, r.task_id, r.operation, r.job_id, r.retry_of, false as single_job,
    jsonb_array_length(r.steps) as steps from makeit3d.requests r
  join makeit3d.tasks t on t.id = r.task_id
  where t.id = $1 and t.user_id = $2 order by r.number desc limit 1
"""

_BY_JOB = """
  select r.id, r.task_id, r.operation, j.id as job_id, r.retry_of, true as single_job, 1 as steps from makeit3d.jobs j
  join makeit3d.requests r on r.id = j.request_id join makeit3d.tasks t on t.id = j.task_id
  where j.id = $1 and t.user_id = $2
"""


async def status(database: Database, id: str, user_id: UUID) -> StatusRows | None:  # noqa: A002 - a task's or a job's
    """Rows of the newest request of the task, else of the job with this id; None where neither is the user's."""
    by_task, by_job = _status_statements(database.tables)
    row = await database.fetchrow(by_task, id, user_id)
    if row is None and (job_id := _uuid(id)) is not None:  # apart: a plan for both is slow to begin
        row = await database.fetchrow(by_job, job_id, user_id)
    if row is None:
        return None
    return StatusRows(
        task_id=row["task_id"],
        request_id=row["id"],
        operation=row["operation"],
        job_id=row["job_id"],
        retry_of=row["retry_of"],
        single_job=row["single_job"],
        steps=row["steps"],
        jobs=row["jobs"],
        assets=row["assets"],
    )


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


@cache
def _status_statements(tables: AssetTables) -> tuple[str, str]:
    def statement(request: str) -> str:
        return _STATUS.format(request=request, wait=WAIT, outputs=outputs)

    outputs = " union all ".join(
        f"select {table.kind} as kind, id, job_id, number, status, asset_url, preview_url, error_code"  # noqa: S608
        f" from {table.actual} where request_id = request.id"
        for table in tables.outputs
    )

    return statement(_BY_TASK), statement(_BY_JOB)


async def get(database: Database, task_id: str, user_id: UUID) -> TaskRow | None:
    row = await database.fetchrow(
        f"select {_TASK_COLUMNS} from makeit3d.tasks where id = $1 and user_id = $2",  # noqa: S608 - constants
        task_id,
        user_id,
    )
    return None if row is None else _task(row)


async def is_foreign(database: Database, task_id: str, user_id: UUID) -> bool:
    """Whether the task id belongs to somebody else."""
    return await database.fetchval(
        "select exists (select from makeit3d.tasks where id = $1 and user_id is distinct from $2)", task_id, user_id
    )


async def list_page(
    database: Database,
    user_id: UUID,
    *,
    status: str | None,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[TaskRow]:
    """The user's tasks, newest first; ``before`` is (created_at, id) of the last one of the page before."""
    rows = await database.fetch(
        f"select {_TASK_COLUMNS} from makeit3d.tasks where user_id = $1 and ($2::text is null or status = $2)"  # noqa: S608
        ' and ($3::timestamptz is null or (created_at, id) < ($3, $4::text collate "C"))'
        " order by created_at desc, id desc limit $5",
        user_id,
        status,
        None if before is None else before[0],
        None if before is None else before[1],
        limit,
    )
    return [_task(row) for row in rows]


_REQUESTS = f"""
select r.id, r.operation, r.status, r.job_id, r.error_code, r.created_at, r.finished_at, r.retry_of, array(
  select d.depends_on from makeit3d.task_dependencies d where d.request_id = r.id order by d.depends_on
) as depends_on, (
  select coalesce(jsonb_agg(jsonb_build_object('id', j.id, 'step', j.step, 'chunk', j.chunk, 'type', j.type,
    'status', j.status, 'progress', j.progress, 'items_done', j.items_done, 'items_total', j.items_total,
    'waiting_for', wait.reason, 'error_code', wait.error_code,
    'cost_micros', j.cost_micros) order by j.step, j.chunk), '[]')
  from makeit3d.jobs j {WAIT} where j.request_id = r.id
) as jobs from makeit3d.requests r where r.task_id = $1 order by r.number
"""  # noqa: S608 - constants


async def requests_of(database: Database, task_id: str) -> list[dict[str, Any]]:
    """The requests of a task with their jobs, oldest first."""
    rows = await database.fetch(
        _REQUESTS,
        task_id,
    )
    return [dict(row) for row in rows]


def _task(row: asyncpg.Record) -> TaskRow:
    return TaskRow(**dict(row))
