"""Asset rows: what inputs refer to, what a job has to fill, and uploads that went through us."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg

from app.db.pool import Database
from app.db.requests import UnknownUser
from app.domain.jobs import AssetKind, AssetSlot, Claim


@dataclass(frozen=True, slots=True)
class Sources:
    """The user's own rows that a stored object belongs to."""

    input_asset_id: UUID | None = None
    concept_image_id: UUID | None = None
    model_id: UUID | None = None


async def sources_of(database: Database, *, user_id: UUID, file_id: UUID | None, urls: Sequence[str]) -> Sources:
    """Rows of the user that hold this file, or that spell its URL in one of these ways."""
    tables = database.tables
    row = await database.fetchrow(
        f"select (select id from {tables.inputs} where user_id = $1 and (file_id = $2"  # noqa: S608 - checked names
        "   or (md5(asset_url) = any(select md5(u) from unnest($3::text[]) as u) and asset_url = any($3)))"
        "   order by created_at desc limit 1) as input_asset_id,"
        f" (select id from {tables.concepts} where user_id = $1 and file_id = $2 limit 1) as concept_image_id,"
        f" (select id from {tables.models} where user_id = $1 and file_id = $2 limit 1) as model_id",
        user_id,
        file_id,
        list(urls),
    )
    return Sources() if row is None else Sources(**dict(row))


async def source_of_draft(database: Database, *, provider_task_id: str, user_id: UUID) -> Sources:
    """The user's model row that a provider task made, with what that was made from."""
    row = await database.fetchrow(
        "select id as model_id, source_input_asset_id as input_asset_id, source_concept_image_id as concept_image_id"  # noqa: S608
        f" from {database.tables.models} where ai_service_task_id = $1 and user_id = $2 order by created_at limit 1",
        provider_task_id,
        user_id,
    )
    return Sources() if row is None else Sources(**dict(row))


async def slots_of(database: Database, job_ids: Sequence[UUID]) -> dict[UUID, list[AssetSlot]]:
    """Unfinished asset rows of jobs, in the order of their numbers."""
    if not job_ids:
        return {}
    tables = database.tables
    rows = await database.fetch(
        f"select job_id, id, 'concept' as kind, number, prompt from {tables.concepts}"  # noqa: S608 - checked names
        " where job_id = any($1::uuid[]) and status in ('pending', 'processing')"
        f" union all select job_id, id, kind, number, prompt from {tables.models}"
        " where job_id = any($1::uuid[]) and status in ('pending', 'processing')"
        " order by number",
        list(job_ids),
    )
    slots: dict[UUID, list[AssetSlot]] = {job_id: [] for job_id in job_ids}
    for row in rows:
        slots[row["job_id"]].append(AssetSlot(row["id"], AssetKind(row["kind"]), row["number"], row["prompt"]))
    return slots


_RENUMBER = """
with mine as (
  select id, row_number() over (order by number) - 1 as position from {concepts}
  where job_id = $1 and status in ('pending', 'processing')
), reserved as (
  update tasks t set concepts_reserved = t.concepts_reserved + (select count(*) from mine)
  from jobs j where j.id = $1 and j.worker_id = $2 and j.attempt = $3 and j.status = 'running' and t.id = j.task_id
  returning t.concepts_reserved - (select count(*) from mine) as first
)
update {concepts} c set number = reserved.first + mine.position from mine, reserved where c.id = mine.id
"""


async def renumber(database: Database, claim: Claim) -> list[AssetSlot] | None:
    """Give the unfinished pictures of a job fresh numbers, for a second paid call; None when the claim is lost. An
    upload of the first call's pictures may still arrive under the old ones."""
    statement = _RENUMBER.format(concepts=database.tables.concepts)
    changed = await database.execute(statement, claim.job_id, claim.worker_id, claim.attempt)
    return (await slots_of(database, [claim.job_id]))[claim.job_id] if changed else None


async def output_of_step(database: Database, request_id: UUID, step: int) -> dict[str, Any] | None:
    """What an earlier step of the request made (``jobs.output``), or of the request that it retries; None while it is
    not completed."""
    return await database.fetchval(
        "with recursive line (id, retry_of, age) as (select id, retry_of, 0 from requests where id = $1"
        "   union all select r.id, r.retry_of, age + 1 from requests r join line on r.id = line.retry_of)"
        " select j.output from line join jobs j on j.request_id = line.id"
        " where j.step = $2 and j.status = 'completed' order by line.age, j.chunk limit 1",
        request_id,
        step,
    )


async def store_upload(
    database: Database,
    *,
    asset_id: UUID,
    file_id: UUID,
    task_id: str,
    user_id: UUID,
    input_asset_type: str,
    asset_url: str,
    size: int,
    sha256: str,
    width: int | None,
    height: int | None,
) -> None:
    """The uploaded object is in the bucket: its file row becomes ``stored`` and its input row appears, complete.

    Raises UnknownUser, and then nothing was written.
    """
    try:
        async with database.transaction() as connection:
            await connection.execute(
                "update files set state = 'stored', stored_at = now(), size = $2, sha256 = $3, width = $4, height = $5"
                " where id = $1",
                file_id,
                size,
                sha256,
                width,
                height,
            )
            await connection.execute(
                f"insert into {database.tables.inputs} (id, task_id, user_id, input_asset_type, asset_url, status,"  # noqa: S608
                " file_id, width, height) values ($1, $2, $3, $4, $5, 'complete', $6, $7, $8)",
                asset_id,
                task_id,
                user_id,
                input_asset_type,
                asset_url,
                file_id,
                width,
                height,
            )
            await connection.execute(
                "insert into events (type, user_id, task_id, payload) values ('asset_update', $1, $2, $3)",
                user_id,
                task_id,
                {
                    "task_id": task_id,
                    "asset_id": str(asset_id),
                    "table": "input_assets",
                    "status": "complete",
                    "asset_url": asset_url,
                    "error_code": None,
                },
            )
    except asyncpg.ForeignKeyViolationError:
        raise UnknownUser from None
