"""What an operator asks about jobs: those that failed for good, what one went through, and what repeats it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from app.db.pool import Database
from app.db.sql import load
from app.domain.jobs import AssetPlan, JobPlan, KeptResult
from app.errors import STORAGE_REFUSALS

_SQL = load(__file__)

REFUSED_CODES = tuple(error.code for error in STORAGE_REFUSALS)
_KEPT = ("kept_call", "kept_host", "kept_until", "kept_pictures")


@dataclass(frozen=True, slots=True)
class FailedRequest:
    """A request that failed, by the job that failed first, or one whose job completed without what storage refused of
    its pictures. Money is in USD micros."""

    request_id: UUID
    job_id: UUID
    task_id: str
    user_id: UUID | None
    operation: str
    step: int
    type: str
    provider: str | None
    error_code: str
    error_message: str | None
    failures: int
    crashes: int
    finished_at: datetime
    cost_micros: int
    # the provider has the paid result, or works on it: a retry goes on with that and pays nothing for this step
    keeps_paid_work: bool
    # what was paid, or may have been, and would be paid once more
    paid_again_micros: int
    retried_by: UUID | None
    kept: KeptResult | None = None  # the paid result that storage refused, also where its time is over
    kept_is_in_reach: bool = False  # its time is not over, and a worker runs on its host


async def failed(
    database: Database,
    *,
    since_seconds: float | None = None,
    code: str | None = None,
    user_id: UUID | None = None,
    limit: int,
) -> list[FailedRequest]:
    """Requests that failed and were not retried, the newest first."""
    return await _failed(
        database, request_id=None, since_seconds=since_seconds, code=code, user_id=user_id, limit=limit
    )


async def failed_request(database: Database, request_id: UUID) -> FailedRequest | None:
    found = await _failed(database, request_id=request_id, since_seconds=None, code=None, user_id=None, limit=1)
    return next(iter(found), None)


async def _failed(database: Database, **wanted: object) -> list[FailedRequest]:
    rows = await database.fetch(_SQL["failed_requests"], refused_codes=list(REFUSED_CODES), **wanted)
    return [_failed_request(row) for row in rows]


def _failed_request(row: asyncpg.Record) -> FailedRequest:
    values = dict(row)
    kept = KeptResult.of_row(values)
    return FailedRequest(**{name: value for name, value in values.items() if name not in _KEPT}, kept=kept)


async def request_of(database: Database, id_: str) -> UUID | None:
    """The request that a job, a request or (its newest one) a task stands for."""
    return await database.fetchval(_SQL["request_of"], id=id_)


async def unfinished_jobs(database: Database, request_id: UUID) -> tuple[tuple[JobPlan, ...], tuple[AssetPlan, ...]]:
    """Jobs of a failed request that have no result, and the asset rows they left empty: as they were planned. Of a
    completed one those that lack what storage refused, and the rows of that."""
    jobs = await database.fetch(_SQL["unfinished_jobs_of"], request_id=request_id)
    assets = await database.fetch(
        _SQL["empty_outputs_of"], job_ids=[row["id"] for row in jobs], refused_codes=list(REFUSED_CODES)
    )
    return tuple(_job(row) for row in jobs), tuple(_asset(row) for row in assets)


def _job(row: asyncpg.Record) -> JobPlan:
    values: dict[str, Any] = dict(row)
    values["participants"], values["items"] = tuple(row["participants"]), tuple(row["items"])
    return JobPlan(**values)


def _asset(row: asyncpg.Record) -> AssetPlan:
    values: dict[str, Any] = dict(row)
    values["metadata"] = values["metadata"] or {}
    return AssetPlan(**values)


# --- one job, looked at closely ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JobRecord:
    """All that is known of a job, without prompts, links and keys."""

    job: dict[str, Any]
    calls: Sequence[dict[str, Any]]
    files: Sequence[dict[str, Any]]
    assets: Sequence[dict[str, Any]]
    events: Sequence[dict[str, Any]]


async def planned(database: Database, request_id: UUID) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
    """What the client of a request had set, and those of its steps of which no job is completed."""
    row = await database.fetchrow(_SQL["plan_of_request"], request_id=request_id)
    assert row is not None  # noqa: S101 - its jobs were just read
    return row["params"], row["steps"]


async def dependencies_left(database: Database, request_id: UUID) -> list[str]:
    """Tasks that the request depends on, and whose request did not complete."""
    rows = await database.fetch(_SQL["dependencies_left"], request_id=request_id)
    return [row["depends_on"] for row in rows]


async def jobs_of(database: Database, request_id: UUID) -> list[UUID]:
    rows = await database.fetch(_SQL["jobs_of_request"], request_id=request_id)
    return [row["id"] for row in rows]


async def record(database: Database, job_id: UUID, *, events: int) -> JobRecord | None:
    """Everything about a job, with its newest events."""
    job = await database.fetchrow(_SQL["job_in_full"], job_id=job_id)
    if job is None:
        return None
    calls = await database.fetch(_SQL["calls_of_job"], job_id=job_id)
    files = await database.fetch(_SQL["files_of_job"], job_id=job_id)
    assets = await database.fetch(_SQL["outputs_of_job"], job_id=job_id)
    told = await database.fetch(_SQL["told_of_job"], task_id=job["task_id"], job_id=str(job_id), limit=events)
    return JobRecord(
        dict(job),
        [dict(row) for row in calls],
        [dict(row) for row in files],
        [dict(row) for row in assets],
        [dict(row) for row in reversed(told)],
    )
