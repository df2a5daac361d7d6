"""Settling: the end of a run becomes job, files, asset rows, next step, events and statuses in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.db.events import job_columns, job_updates
from app.db.fair_tags import tagging
from app.db.pool import Connection, Database
from app.db.rollup import lock_tasks, roll_up
from app.domain.jobs import (
    AssetKind,
    Completed,
    Deferred,
    Failed,
    HandedBack,
    KeptResult,
    Lane,
    Outcome,
    Retry,
    Settlement,
)
from app.domain.statuses import WaitingFor
from app.errors import ErrorCode


@dataclass(frozen=True, slots=True)
class Settled:
    """What a settle changed. A job that is not in ``jobs`` had lost its claim: nothing was written for it."""

    jobs: frozenset[UUID]
    lanes: frozenset[Lane]  # lanes that got claimable work
    tasks: frozenset[tuple[str, UUID | None]]  # (task id, user id) that readers may be waiting for


@dataclass(frozen=True, slots=True)
class FailedJob:
    id: UUID
    request_id: UUID
    error: ErrorCode
    message: str


_SETTLE_JOBS = f"""
with o as (
  select * from jsonb_to_recordset($1) as o(id uuid, worker_id uuid, attempt integer, status text, delay float8,
    waiting_for text, failed integer, deferred integer, start_over boolean, error_code text, error_message text,
    output jsonb, kept_call uuid, kept_host text, kept_until timestamptz, kept_pictures smallint[], drops_kept boolean)
), settled as (
  update jobs j set
    status = o.status,
    worker_id = null,
    waiting_for = case when o.status = 'queued' and o.delay > 0 then o.waiting_for end,
    run_after = case when o.status = 'queued' and o.delay > 0 then now() + make_interval(secs => o.delay) end,
    calls_done = j.calls_done and not o.start_over,
    resume = o.status = 'queued' and not o.start_over and (j.calls_done or exists (
      select from provider_calls c where c.job_id = j.id and c.state in ('intent', 'submitted', 'unknown'))),
    -- work that was paid goes on with the time that is left; without, the next attempt has all of it
    seconds_left = case when o.status = 'queued' and not o.start_over and (j.calls_done or exists (
        select from provider_calls c where c.job_id = j.id and c.state in ('intent', 'submitted', 'unknown')))
      then greatest(0, extract(epoch from j.deadline - now())) end,
    failures = j.failures + o.failed,
    deferrals = j.deferrals + o.deferred,
    error_code = o.error_code,
    error_message = o.error_message,
    output = coalesce(o.output, j.output),
    kept_call = coalesce(o.kept_call, case when not o.drops_kept then j.kept_call end),
    kept_host = coalesce(o.kept_host, case when not o.drops_kept then j.kept_host end),
    kept_until = coalesce(o.kept_until, case when not o.drops_kept then j.kept_until end),
    kept_pictures = coalesce(o.kept_pictures, case when not o.drops_kept then j.kept_pictures end),
    progress = case when o.status = 'completed' then 100 when o.start_over then 0 else j.progress end,
    finished_at = case when o.status = 'queued' then null else now() end
  from o
  where j.id = o.id and j.worker_id = o.worker_id and j.attempt = o.attempt and j.status = 'running'
  returning {job_columns("j")}, j.lane
), event as (
  {job_updates("settled")}
)
select * from settled
"""  # noqa: S608 - constants

_STORE_FILES = """
update files f set state = 'stored', stored_at = now(), content_type = x.content_type, size = x.size,
  sha256 = x.sha256, width = x.width, height = x.height
from jsonb_to_recordset($1) as x(file_id uuid, content_type text, size bigint, sha256 text, width integer,
  height integer)
where f.id = x.file_id and f.state = 'uploading'
"""

_STORE_PREVIEWS = """
update files f set state = 'stored', stored_at = now(), size = x.preview_size, sha256 = x.preview_sha256
from jsonb_to_recordset($1) as x(preview_file_id uuid, preview_size bigint, preview_sha256 text)
where f.id = x.preview_file_id and f.state = 'uploading'
"""

_TELL_OF_ASSETS = """
insert into events (type, user_id, task_id, payload)
select 'asset_update', user_id, task_id, jsonb_build_object('task_id', task_id, 'asset_id', id,
  'table', $2::text, 'status', status, 'asset_url', asset_url, 'error_code', error_code)
from changed
"""

_COMPLETE_ASSETS = f"""
with changed as (
  update {{table}} a set status = 'complete', asset_url = x.url, file_id = x.file_id,
    ai_service_task_id = x.provider_task_id, preview_url = x.preview_url, updated_at = now(),
    error_code = null, error_message = null {{size}}
  from jsonb_to_recordset($1) as x(asset_id uuid, url text, file_id uuid, provider_task_id text, preview_url text,
    width integer, height integer)
  where a.id = x.asset_id and a.status in ('pending', 'processing')
  returning a.id, a.task_id, a.user_id, a.status, a.asset_url, a.error_code
) {_TELL_OF_ASSETS}
"""  # noqa: S608 - constants

_END_ASSETS = f"""
with changed as (
  update {{table}} a set status = $3, error_code = x.error_code, error_message = x.error_message, updated_at = now()
  from jsonb_to_recordset($1) as x(job_id uuid, asset_id uuid, error_code text, error_message text)
  where a.job_id = x.job_id and (x.asset_id is null or a.id = x.asset_id) and a.status in ('pending', 'processing')
  returning a.id, a.task_id, a.user_id, a.status, a.asset_url, a.error_code
) {_TELL_OF_ASSETS}
"""  # noqa: S608 - constants

# the barrier: a step starts when every earlier step of its request is completed; it takes the place that one held
_START_NEXT_STEPS = f"""
with ready as (
  select n.id, n.user_id, n.lane, n.pool, n.priority, n.step as position from jobs n
  where n.request_id = any($1::uuid[]) and n.status = 'queued' and n.waiting_for = 'step'
    and not exists (
      select from jobs o where o.request_id = n.request_id and o.step < n.step and o.status <> 'completed')
  for no key update of n
), {tagging("ready")}, woken as (
  update jobs j set waiting_for = null, fair_tag = tagged.fair_tag from tagged where j.id = tagged.id
  returning {job_columns("j")}, j.lane
), told as (
  {job_updates("woken")}
)
select lane from woken
"""  # noqa: S608 - constants

_FAIL_NEXT_STEPS = f"""
with ended as (
  update jobs n set status = 'failed', waiting_for = null, error_code = x.error_code,
    error_message = x.error_message, finished_at = now()
  from jsonb_to_recordset($1) as x(request_id uuid, error_code text, error_message text)
  where n.request_id = x.request_id and n.status = 'queued' and n.waiting_for = 'step'
  returning {job_columns("n")}, n.error_message
), event as (
  {job_updates("ended")}
)
select id as job_id, error_code, error_message from ended
"""  # noqa: S608 - constants


async def settle(database: Database, settlements: Sequence[Settlement]) -> Settled:
    """Write how the runs ended, all in one transaction. Stale claims change nothing."""
    by_job = {settlement.job.claim.job_id: settlement for settlement in settlements}
    task_ids = [settlement.job.task_id for settlement in settlements]
    async with database.transaction() as connection:
        await lock_tasks(connection, task_ids)
        rows = await connection.fetch(_SETTLE_JOBS, [_outcome_json(item) for item in by_job.values()])
        live = [by_job[row["id"]] for row in rows]
        lanes: set[Lane] = {row["lane"] for row in rows if row["status"] == "queued" and row["waiting_for"] is None}
        await _settle_assets(connection, database, live)
        final = [item for item in live if isinstance(item.outcome, Completed | Failed)]
        completed = [item.job.request_id for item in final if isinstance(item.outcome, Completed)]
        if completed:
            lanes |= {row["lane"] for row in await connection.fetch(_START_NEXT_STEPS, completed)}
        await roll_up(
            connection,
            request_ids=[item.job.request_id for item in live],
            task_ids=[item.job.task_id for item in live],
        )
    return Settled(
        jobs=frozenset(row["id"] for row in rows),
        lanes=frozenset(lanes),
        tasks=frozenset((row["task_id"], row["user_id"]) for row in rows),
    )


async def _settle_assets(connection: Connection, database: Database, live: Sequence[Settlement]) -> None:
    await _complete_assets(connection, database, live)
    ended: list[dict[str, Any]] = []
    failed: list[FailedJob] = []
    for item in live:
        outcome = item.outcome
        if isinstance(outcome, Completed):
            ended.extend(
                ended_by(item.job.claim.job_id, missing.error.code, missing.message, asset_id)
                for asset_id, missing in outcome.missing.items()
            )
        elif isinstance(outcome, Failed):
            failed.append(FailedJob(item.job.claim.job_id, item.job.request_id, outcome.error, outcome.message))
    if ended:
        await end_assets(connection, database, ended, status="failed")
    if failed:
        await fail_what_hangs_on(connection, database, failed)


async def _complete_assets(connection: Connection, database: Database, live: Sequence[Settlement]) -> None:
    files = [
        (file.kind, file.as_json() | {"provider_task_id": item.outcome.provider_task_id})
        for item in live
        if isinstance(item.outcome, Completed)
        for file in item.outcome.files
    ]
    if not files:
        return
    await connection.execute(_STORE_FILES, [value for _, value in files])
    previews = [value for _, value in files if value["preview_file_id"] is not None]
    if previews:
        await connection.execute(_STORE_PREVIEWS, previews)
    tables = database.tables
    concepts = [value for kind, value in files if kind is AssetKind.CONCEPT]
    if concepts:
        statement = _COMPLETE_ASSETS.format(table=tables.concepts, size=", width = x.width, height = x.height")
        await connection.execute(statement, concepts, "concept_images")
    models = [value for kind, value in files if kind is not AssetKind.CONCEPT]
    if models:
        await connection.execute(_COMPLETE_ASSETS.format(table=tables.models, size=""), models, "models")


async def fail_what_hangs_on(connection: Connection, database: Database, failed: Sequence[FailedJob]) -> None:
    """Asset rows of jobs that just failed, and the steps that waited for them, fail for the same reason."""
    requests = [
        {"request_id": str(job.request_id), "error_code": job.error.code, "error_message": job.message}
        for job in failed
    ]
    steps = await connection.fetch(_FAIL_NEXT_STEPS, requests)
    ended = [ended_by(job.id, job.error.code, job.message) for job in failed]
    ended.extend(ended_by(row["job_id"], row["error_code"], row["error_message"]) for row in steps)
    await end_assets(connection, database, ended, status="failed")


async def end_assets(
    connection: Connection, database: Database, ended: Sequence[dict[str, Any]], *, status: str
) -> None:
    """Give unfinished asset rows of jobs a final status other than complete, with the reason."""
    for table, name in ((database.tables.concepts, "concept_images"), (database.tables.models, "models")):
        await connection.execute(_END_ASSETS.format(table=table), ended, name, status)


def ended_by(job_id: UUID, code: str, message: str | None, asset_id: UUID | None = None) -> dict[str, Any]:
    """For ``end_assets``: all unfinished asset rows of the job, or just this one."""
    return {
        "job_id": str(job_id),
        "asset_id": None if asset_id is None else str(asset_id),
        "error_code": code,
        "error_message": message,
    }


def _outcome_json(item: Settlement) -> dict[str, Any]:
    claim = item.job.claim
    return {
        "id": str(claim.job_id),
        "worker_id": str(claim.worker_id),
        "attempt": claim.attempt,
        "delay": 0.0,
        "waiting_for": WaitingFor.RETRY.value,
        "failed": 0,
        "deferred": 0,
        "start_over": False,
        "error_code": None,
        "error_message": None,
        "output": None,
        "drops_kept": False,
    } | _words(item.outcome)


def _words(outcome: Outcome) -> dict[str, Any]:
    match outcome:
        case Completed(files=files, provider_task_id=task, kept=kept):
            output = {"files": [file.as_json() for file in files], "provider_task_id": task}
            return {"status": "completed", "output": output, "drops_kept": True} | _kept(kept)
        case Failed(error=error, message=message, kept=kept):
            # whatever else ends the job, what is kept for it stays for the next one
            gone = error is ErrorCode.PAID_RESULT_GONE
            words = {"status": "failed", "failed": 1, "error_code": error.code, "error_message": message}
            return words | {"drops_kept": gone} | _kept(kept)
        case Retry(error=error, message=message, delay=delay, start_over=start_over):
            return {
                "status": "queued",
                "failed": 1,
                "delay": delay,
                "start_over": start_over,
                "error_code": error.code,
                "error_message": message,
            }
        case Deferred(error=error, message=message, delay=delay, waiting_for=waiting_for):
            return {
                "status": "queued",
                "deferred": 1,
                "delay": delay,
                "waiting_for": waiting_for.value,
                "error_code": None if error is None else error.code,
                "error_message": message,
            }
        case HandedBack():
            return {"status": "queued"}


def _kept(kept: KeptResult | None) -> dict[str, Any]:
    return {} if kept is None else kept.as_json()
