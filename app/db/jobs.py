"""What an operator asks about jobs: those that failed for good, what one went through, and what repeats it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from app.db.pool import Database
from app.db.waits import WAIT
from app.domain.jobs import AssetKind, AssetPlan, JobPlan, KeptResult
from app.errors import STORAGE_REFUSALS

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


# Calls of a job and of those whose place it took. The newest may still be good for something: a polled provider's
# are, whose result can be fetched again; what a reply brought went with the reply, unless storage refused it.
_FAILED = """
select r.id as request_id, j.id as job_id, r.task_id, r.user_id, r.operation, j.step, j.type, j.provider,
  coalesce(j.error_code, (select min(a.error_code) from {concepts} a where a.job_id = j.id and a.status = 'failed'
    and a.error_code = any({refused})), 'internal_error') as error_code, j.error_message, j.failures, j.crashes,
  j.finished_at,
  (select coalesce(sum(o.cost_micros), 0)::bigint from makeit3d.jobs o where o.request_id = r.id) as cost_micros,
  coalesce(money.keeps, false) as keeps_paid_work, coalesce(money.again, 0)::bigint as paid_again_micros,
  (select n.id from makeit3d.requests n where n.retry_of = r.id) as retried_by,
  j.kept_call, j.kept_host, j.kept_until, j.kept_pictures, {in_reach} as kept_is_in_reach
from makeit3d.jobs j join makeit3d.requests r on r.id = j.request_id
cross join lateral (
  with recursive line (id, retry_of) as (
    select j.id, j.retry_of
    union all select o.id, o.retry_of from makeit3d.jobs o join line on o.id = line.retry_of
  ), calls as (
    select c.state, coalesce(c.cost_micros, c.estimate_micros) as micros,
      (row_number() over (order by c.created_at desc) = 1 and c.provider_task_id is not null and c.estimate_micros > 0
        and (c.state = 'submitted' or (c.state = 'settled' and c.error_code is null)))
      or (c.id = j.kept_call and {in_reach}) as good
    from makeit3d.provider_calls c join line on c.job_id = line.id
  )
  select bool_or(good) as keeps, sum(micros) filter (where not good) as again from calls
) as money
where case r.status when 'failed' then j.status = 'failed' and not exists (
      select from makeit3d.jobs o where o.request_id = j.request_id and o.status = 'failed'
        and (o.step, o.chunk, o.id) < (j.step, j.chunk, j.id))
    when 'completed' then j.kept_call is not null end
"""

_IN_REACH = """coalesce(j.kept_until > now(), false)
    and exists (select from makeit3d.workers w where w.host = j.kept_host and not w.stopping)"""


def _failed(database: Database) -> str:
    codes = ", ".join(f"'{code}'" for code in REFUSED_CODES)
    return _FAILED.format(concepts=database.tables.concepts, in_reach=_IN_REACH, refused=f"array[{codes}]")


async def failed(
    database: Database,
    *,
    since_seconds: float | None = None,
    code: str | None = None,
    user_id: UUID | None = None,
    limit: int,
) -> list[FailedRequest]:
    """Requests that failed and were not retried, the newest first."""
    rows = await database.fetch(
        f"select f.* from ({_failed(database)}) as f where f.retried_by is null"  # noqa: S608 - checked names
        " and ($1::float8 is null or f.finished_at > now() - make_interval(secs => $1))"
        " and ($2::text is null or f.error_code = $2) and ($3::uuid is null or f.user_id = $3)"
        " order by f.finished_at desc limit $4",
        since_seconds,
        code,
        user_id,
        limit,
    )
    return [_failed_request(row) for row in rows]


async def failed_request(database: Database, request_id: UUID) -> FailedRequest | None:
    row = await database.fetchrow(f"select f.* from ({_failed(database)}) as f where f.request_id = $1", request_id)  # noqa: S608
    return None if row is None else _failed_request(row)


def _failed_request(row: asyncpg.Record) -> FailedRequest:
    values = dict(row)
    kept = KeptResult.of_row(values)
    return FailedRequest(**{name: value for name, value in values.items() if name not in _KEPT}, kept=kept)


async def request_of(database: Database, id_: str) -> UUID | None:
    """The request that a job, a request or (its newest one) a task stands for."""
    return await database.fetchval(
        "select coalesce("
        " (select request_id from makeit3d.jobs where id::text = $1), (select id from makeit3d.requests"
        " where id::text = $1),"
        " (select id from makeit3d.requests where task_id = $1 order by number desc limit 1))",
        id_,
    )


async def unfinished_jobs(database: Database, request_id: UUID) -> tuple[tuple[JobPlan, ...], tuple[AssetPlan, ...]]:
    """Jobs of a failed request that have no result, and the asset rows they left empty: as they were planned. Of a
    completed one those that lack what storage refused, and the rows of that."""
    tables = database.tables
    jobs = await database.fetch(
        "select j.id, j.step, j.type, j.permit, j.provider, j.pool, j.lane, j.priority, j.params, j.estimate_micros"
        " from makeit3d.jobs j join makeit3d.requests r on r.id = j.request_id where r.id = $1"
        " and case r.status when 'failed' then j.status = 'failed' else j.kept_call is not null end"
        " order by j.step, j.chunk",
        request_id,
    )
    assets = await database.fetch(
        f"select id, 'concept' as kind, number, job_id, prompt, style, source_input_asset_id,"  # noqa: S608 - checked names
        f" source_concept_image_id, null::uuid as source_model_id, metadata from {tables.concepts} a"
        " where job_id = any($1::uuid[]) and status = 'failed' and (a.error_code = any($2)"
        "   or exists (select from makeit3d.jobs j where j.id = a.job_id and j.status = 'failed'))"
        " union all select id, kind, number, job_id, prompt, style, source_input_asset_id, source_concept_image_id,"
        f" source_model_id, metadata from {tables.models} where job_id = any($1::uuid[]) and status = 'failed'"
        " order by kind, number",
        [row["id"] for row in jobs],
        list(REFUSED_CODES),
    )
    return tuple(_job(row) for row in jobs), tuple(_asset(row) for row in assets)


def _job(row: asyncpg.Record) -> JobPlan:
    values: dict[str, Any] = dict(row) | {"type": row["type"]}
    return JobPlan(**values)


def _asset(row: asyncpg.Record) -> AssetPlan:
    values: dict[str, Any] = dict(row) | {"kind": AssetKind(row["kind"]), "metadata": row["metadata"] or {}}
    del values["id"], values["number"]
    return AssetPlan(id=row["id"], **values)


# --- one job, looked at closely ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JobRecord:
    """All that is known of a job, without prompts, links and keys."""

    job: dict[str, Any]
    calls: Sequence[dict[str, Any]]
    files: Sequence[dict[str, Any]]
    assets: Sequence[dict[str, Any]]
    events: Sequence[dict[str, Any]]


async def params_of(database: Database, request_id: UUID) -> Mapping[str, Any]:
    """What the client of a request had set."""
    found: dict[str, Any] = await database.fetchval("select params from makeit3d.requests where id = $1", request_id)
    return found


async def jobs_of(database: Database, request_id: UUID) -> list[UUID]:
    rows = await database.fetch("select id from makeit3d.jobs where request_id = $1 order by step, chunk", request_id)
    return [row["id"] for row in rows]


_JOB = f"""
select j.id, j.task_id, j.request_id, j.user_id, j.step, j.type, j.provider, j.pool, j.lane, j.priority, j.status,
  wait.reason as waiting_for, j.run_after, j.resume, j.calls_done, j.alone, j.worker_id, w.name as worker,
  w.seen_at as worker_seen_at, j.attempt, j.failures, j.crashes, j.deferrals, j.progress, j.cost_micros,
  wait.error_code, j.error_message, j.created_at, j.started_at, j.deadline, j.finished_at, j.retry_of, j.trace_id,
  r.operation, j.kept_host, j.kept_until
from makeit3d.jobs j join makeit3d.requests r on r.id = j.request_id
left join makeit3d.workers w on w.id = j.worker_id {WAIT}
where j.id = $1
"""  # noqa: S608 - constants


async def record(database: Database, job_id: UUID, *, events: int) -> JobRecord | None:
    """Everything about a job, with its newest events."""
    tables = database.tables
    job = await database.fetchrow(_JOB, job_id)
    if job is None:
        return None
    calls = await database.fetch(
        "select id, kind, state, provider_task_id, provider_request_id, cost_micros, cost_is_estimate, estimate_micros,"
        " error_code, provider_code, http_status, attempt, created_at, submitted_at, settled_at, deadline"
        " from makeit3d.provider_calls where job_id = $1 order by created_at",
        job_id,
    )
    files = await database.fetch(
        "select key, kind, state, size, content_type, attempt, created_at, stored_at from makeit3d.files"
        " where job_id = $1 order by created_at",
        job_id,
    )
    assets = await database.fetch(
        f"select 'concept' as kind, id, number, status, error_code from {tables.concepts} where job_id = $1"  # noqa: S608
        f" union all select kind, id, number, status, error_code from {tables.models} where job_id = $1"
        " order by kind, number",
        job_id,
    )
    told = await database.fetch(
        "select created_at, payload->>'status' as status, payload->>'progress' as progress,"
        " payload->>'waiting_for' as waiting_for, payload->>'error_code' as error_code from makeit3d.events"
        " where task_id = $1 and type = 'job_update' and payload->>'job_id' = $2 order by id desc limit $3",
        job["task_id"],
        str(job_id),
        events,
    )
    return JobRecord(
        dict(job),
        [dict(row) for row in calls],
        [dict(row) for row in files],
        [dict(row) for row in assets],
        [dict(row) for row in reversed(told)],
    )
