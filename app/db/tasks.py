"""Reading tasks. Everything here is scoped to the owner: what is not theirs is absent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from app.db.pool import Database
from app.db.sql import load
from app.domain.tasks import TaskRow

_SQL = load(__file__)
STATUS_OF_TASK, STATUS_OF_JOB = _SQL["status_of_task"], _SQL["status_of_job"]


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


async def status(database: Database, id: str, user_id: UUID) -> StatusRows | None:  # noqa: A002 - a task's or a job's
    """Rows of the newest request of the task, else of the job with this id; None where neither is the user's."""
    row = await database.fetchrow(STATUS_OF_TASK, task_id=id, user_id=user_id)
    if row is None and (job_id := _uuid(id)) is not None:
        row = await database.fetchrow(STATUS_OF_JOB, job_id=job_id, user_id=user_id)
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


async def get(database: Database, task_id: str, user_id: UUID) -> TaskRow | None:
    row = await database.fetchrow(_SQL["task_of_user"], task_id=task_id, user_id=user_id)
    return None if row is None else _task(row)


async def is_foreign(database: Database, task_id: str, user_id: UUID) -> bool:
    """Whether the task id belongs to somebody else."""
    return await database.fetchval(_SQL["task_is_foreign"], task_id=task_id, user_id=user_id)


async def list_page(
    database: Database,
    user_id: UUID,
    *,
    status: str | None,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[TaskRow]:
    """The user's tasks, newest first; ``before`` is (created_at, id) of the last one of the page before."""
    before_time, before_id = before or (None, None)
    rows = await database.fetch(
        _SQL["tasks_of_user"],
        user_id=user_id,
        status=status,
        before_time=before_time,
        before_id=before_id,
        limit=limit,
    )
    return [_task(row) for row in rows]


async def requests_of(database: Database, task_id: str) -> list[dict[str, Any]]:
    """The requests of a task with their jobs, oldest first."""
    return [dict(row) for row in await database.fetch(_SQL["requests_of_task"], task_id=task_id)]


def _task(row: asyncpg.Record) -> TaskRow:
    return TaskRow(**dict(row))
