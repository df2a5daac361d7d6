"""Accepting a request: one statement writes task, request, jobs, asset rows and events, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg

from app.db import user_limits
from app.db.events import job_columns, select_job_updates
from app.db.fair_tags import tagging
from app.db.pool import Connection, Database
from app.domain.jobs import AssetKind, AssetPlan, JobPlan
from app.domain.user_limits import NO_LIMITS, UserLimits


@dataclass(frozen=True, slots=True)
class CheckedInput:
    """An ``input_assets`` row whose object was seen and checked."""

    id: UUID
    width: int | None
    height: int | None


@dataclass(frozen=True, slots=True)
class RequestPlan:
    """Everything one accepted POST writes."""

    id: UUID
    task_id: str
    user_id: UUID
    operation: str
    scope: str
    idempotency_key: str
    explicit_key: bool
    body_hash: str
    job_id: UUID
    jobs: Sequence[JobPlan]
    assets: Sequence[AssetPlan]
    inputs: Sequence[CheckedInput] = ()
    retry_of: UUID | None = None
    trace_id: str | None = None  # of the HTTP request, W3C: 32 hex digits


@dataclass(frozen=True, slots=True)
class StoredRequest:
    id: UUID
    task_id: str
    job_id: UUID
    body_hash: str
    status: str


class TaskOwnedByAnother(Exception):
    """The task id belongs to another user; nothing was written."""


class DuplicateRequest(Exception):
    """The idempotency key is taken; nothing was written."""


class UnknownUser(Exception):
    """The user does not exist (any more); nothing was written."""


def _kept(column: str) -> str:
    """The row that a planned asset is made from, null where its owner has deleted it since it was found."""
    return f"(select kept.id from kept where kept.id = a.{column}) as {column}"  # noqa: S608 - constants


# Rows that assets are made from are locked first: clients may delete theirs at any moment, and the foreign key would
# refuse the whole request. Deleted a moment later, it would have become null as well.
_ACCEPT = f"""
with task as (
  insert into tasks (id, user_id, concepts_reserved, models_reserved, refined_models_reserved)
  values ($1, $2, $3, $4, $5)
  on conflict (id) do update set
    status = case when tasks.status in ('queued', 'running') then tasks.status else 'queued' end,
    finished_at = null,
    updated_at = now(),
    concepts_reserved = tasks.concepts_reserved + excluded.concepts_reserved,
    models_reserved = tasks.models_reserved + excluded.models_reserved,
    refined_models_reserved = tasks.refined_models_reserved + excluded.refined_models_reserved
  where tasks.user_id = excluded.user_id
  returning id, status, concepts_reserved - $3 as first_concept, models_reserved - $4 as first_model,
    refined_models_reserved - $5 as first_refined_model
), request as (
  insert into requests (id, task_id, user_id, operation, scope, idempotency_key, explicit_key, body_hash, job_id,
    retry_of)
  select $6, task.id, $2, $7, $8, $9, $10, $11, $12, $17 from task
  returning id, user_id
), planned as (
  select p.*, case
      when p.later then 'step'
      when row_number() over (partition by p.later order by p.step, p.id) > $16::bigint then 'user_limit'
    end as waiting_for
  from jsonb_to_recordset($13) as p(id uuid, step smallint, type text, provider text, pool text, lane text,
    priority smallint, estimate_micros bigint, params jsonb, later boolean, retry_of uuid, paid boolean,
    kept_call uuid, kept_host text, kept_until timestamptz, kept_pictures smallint[])
), ready as (
  select p.id, request.user_id, p.lane, p.pool, p.priority, p.step as position
  from planned p, request where p.waiting_for is null
), {tagging("ready")}, job as (
  insert into jobs (id, task_id, request_id, user_id, step, type, provider, pool, lane, priority, fair_tag,
    status, waiting_for, estimate_micros, params, retry_of, resume, calls_done, trace_id, kept_call, kept_host,
    kept_until, kept_pictures)
  select p.id, task.id, request.id, $2, p.step, p.type, p.provider, p.pool, p.lane, p.priority,
    coalesce(tagged.fair_tag, 0), 'queued', p.waiting_for, p.estimate_micros, p.params, p.retry_of, p.paid, p.paid,
    $18, p.kept_call, p.kept_host, p.kept_until, p.kept_pictures
  from task, request, planned p left join tagged on tagged.id = p.id
  returning {job_columns("jobs")}
), planned_asset as (
  select * from jsonb_to_recordset($14) as a(id uuid, kind text, position integer, job_id uuid, prompt text, style text,
    source_input_asset_id uuid, source_concept_image_id uuid, source_model_id uuid, metadata jsonb)
), kept as (
  select id from (select id from {{inputs}} where id = any($19::uuid[]) for key share) as input
  union all select id from (select id from {{concepts}} where id = any($19::uuid[]) for key share) as concept
  union all select id from (select id from {{models}} where id = any($19::uuid[]) for key share) as model
  union all select id from planned_asset
), plan as (
  select a.id, a.kind, a.job_id, a.prompt, a.style, a.metadata, {_kept("source_input_asset_id")},
    {_kept("source_concept_image_id")}, {_kept("source_model_id")},
    row_number() over (partition by a.kind order by a.position) - 1 as offset_in_kind
  from planned_asset a
), concept as (
  insert into {{concepts}} (id, task_id, user_id, source_input_asset_id, source_concept_image_id, prompt, style,
    metadata, request_id, job_id, number)
  select p.id, task.id, $2, p.source_input_asset_id, p.source_concept_image_id, p.prompt, p.style,
    p.metadata, request.id, p.job_id, task.first_concept + p.offset_in_kind
  from plan p, task, request where p.kind = 'concept'
  returning id, status
), model as (
  insert into {{models}} (id, task_id, user_id, source_input_asset_id, source_concept_image_id, source_model_id,
    prompt, style, metadata, request_id, job_id, kind, number)
  select p.id, task.id, $2, p.source_input_asset_id, p.source_concept_image_id, p.source_model_id,
    p.prompt, p.style, p.metadata, request.id, p.job_id, p.kind,
    case p.kind when 'model' then task.first_model else task.first_refined_model end + p.offset_in_kind
  from plan p, task, request where p.kind <> 'concept'
  returning id, status
), input as (
  update {{inputs}} i
  set status = 'complete', width = coalesce(x.width, i.width), height = coalesce(x.height, i.height),
    updated_at = now()
  from jsonb_to_recordset($15) as x(id uuid, width integer, height integer), request
  where i.id = x.id and i.user_id = $2 and i.status in ('pending', 'processing')
  returning i.id, i.status
), event as (
  insert into events (type, user_id, task_id, payload)
  select 'task_update', $2, task.id,
    jsonb_build_object('task_id', task.id, 'status', task.status, 'request_id', request.id)
  from task, request
  union all
  {select_job_updates("job")}
  union all
  select 'asset_update', $2, $1, jsonb_build_object('task_id', $1::text, 'asset_id', changed.id,
    'table', changed.name, 'status', changed.status, 'asset_url', null, 'error_code', null)
  from (
    select id, status, 'concept_images' as name from concept
    union all select id, status, 'models' from model
    union all select id, status, 'input_assets' from input
  ) as changed
)
select exists (select from job where job.waiting_for = 'user_limit') as waits from task, request
"""  # noqa: S608 - constants


async def accept(database: Database, plan: RequestPlan, limits: UserLimits = NO_LIMITS) -> bool:
    """Write the request, or nothing. True when a job of it waits for a place of the user.

    Raises TaskOwnedByAnother, DuplicateRequest, UnknownUser, and AppError: USER_LIMIT, USER_BUDGET_EXCEEDED.
    """
    try:
        if limits.any:
            row = await database.in_transaction(lambda connection: _accept_within(connection, database, plan, limits))
        else:
            row = await database.fetchrow(*statement(database, plan, None))
    except asyncpg.UniqueViolationError as error:
        if _constraint(error) in ("requests_idempotency", "requests_retry"):
            raise DuplicateRequest from None
        raise
    except asyncpg.ForeignKeyViolationError as error:
        if _constraint(error).endswith("user_id_fkey"):
            raise UnknownUser from None
        raise
    if row is None:
        raise TaskOwnedByAnother
    return row["waits"]


async def _accept_within(
    connection: Connection, database: Database, plan: RequestPlan, limits: UserLimits
) -> asyncpg.Record | None:
    """One after the other for each user: what the last one took is seen by the next."""
    await user_limits.lock(connection, plan.user_id)
    load = await user_limits.load(connection, plan.user_id, limits)
    estimate = sum(job.estimate_micros for job in plan.jobs)
    places = load.admit(limits, jobs=len(plan.jobs), estimate_micros=estimate)
    return await connection.fetchrow(*statement(database, plan, places))


def statement(database: Database, plan: RequestPlan, places: int | None) -> tuple[Any, ...]:
    """The statement and its arguments; ``places`` is how many jobs may start now."""
    tables = database.tables
    first = min(job.step for job in plan.jobs)
    reserved = {kind: sum(asset.kind is kind for asset in plan.assets) for kind in AssetKind}
    return (
        _ACCEPT.format(concepts=tables.concepts, models=tables.models, inputs=tables.inputs),
        plan.task_id,
        plan.user_id,
        reserved[AssetKind.CONCEPT],
        reserved[AssetKind.MODEL],
        reserved[AssetKind.REFINED_MODEL],
        plan.id,
        plan.operation,
        plan.scope,
        plan.idempotency_key,
        plan.explicit_key,
        plan.body_hash,
        plan.job_id,
        [_job_json(job, later=job.step > first) for job in plan.jobs],
        [_asset_json(asset, position) for position, asset in enumerate(plan.assets)],
        [{"id": str(item.id), "width": item.width, "height": item.height} for item in plan.inputs],
        places,
        plan.retry_of,
        plan.trace_id,
        _sources(plan.assets) or None,
    )


@dataclass(frozen=True, slots=True)
class LookUp:
    """What is known before a request is accepted."""

    task_is_foreign: bool
    existing: StoredRequest | None


async def look_up(database: Database, *, task_id: str, user_id: UUID, scope: str, idempotency_key: str) -> LookUp:
    """Whether the task belongs to somebody else, and the live request under the key, if there is one."""
    row = await database.fetchrow(
        "select exists (select from tasks where id = $1 and user_id is distinct from $2) as task_is_foreign,"
        " r.id, r.task_id, r.job_id, r.body_hash, r.status"
        " from (select 1) as one left join requests r"
        " on r.user_id = $2 and r.scope = $3 and r.idempotency_key = $4 and r.matches",
        task_id,
        user_id,
        scope,
        idempotency_key,
    )
    if row is None or row["id"] is None:
        return LookUp(task_is_foreign=row is not None and row["task_is_foreign"], existing=None)
    existing = StoredRequest(row["id"], row["task_id"], row["job_id"], row["body_hash"], row["status"])
    return LookUp(task_is_foreign=row["task_is_foreign"], existing=existing)


def _constraint(error: asyncpg.IntegrityConstraintViolationError) -> str:
    return str(getattr(error, "constraint_name", None) or "")  # set by asyncpg from the server's message


def _job_json(job: JobPlan, *, later: bool) -> dict[str, Any]:
    """``later`` says that another job of the request comes first."""
    return {
        "id": str(job.id),
        "step": job.step,
        "type": job.type.value,
        "provider": job.provider,
        "pool": job.pool,
        "lane": job.lane,
        "priority": job.priority,
        "estimate_micros": job.estimate_micros,
        "params": dict(job.params),
        "later": later,
        "retry_of": None if job.retry_of is None else str(job.retry_of),
        "paid": job.keeps_paid_work,
    } | ({} if job.kept is None else job.kept.as_json())


def _sources(assets: Sequence[AssetPlan]) -> list[UUID]:
    """The rows outside the plan that its assets are made from."""
    own = {asset.id for asset in assets}
    named = {
        source
        for asset in assets
        for source in (asset.source_input_asset_id, asset.source_concept_image_id, asset.source_model_id)
        if source is not None
    }
    return sorted(named - own)


def _asset_json(asset: AssetPlan, position: int) -> dict[str, Any]:
    def text(value: UUID | None) -> str | None:
        return None if value is None else str(value)

    return {
        "id": str(asset.id),
        "kind": asset.kind.value,
        "position": position,
        "job_id": str(asset.job_id),
        "prompt": asset.prompt,
        "style": asset.style,
        "source_input_asset_id": text(asset.source_input_asset_id),
        "source_concept_image_id": text(asset.source_concept_image_id),
        "source_model_id": text(asset.source_model_id),
        "metadata": dict(asset.metadata),
    }
