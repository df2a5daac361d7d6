"""Asset rows: what inputs refer to, what a job has to fill, and uploads that went through us."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg

from app.db.pool import Database
from app.db.sql import load
from app.domain.jobs import AssetSlot

_SQL = load(__file__)


class UnknownUser(Exception):
    """The user does not exist (any more); nothing was written."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The user's own rows that a stored object belongs to."""

    input_asset_id: UUID | None = None
    concept_image_id: UUID | None = None
    model_id: UUID | None = None

    def by_column(self) -> dict[str, UUID | None]:
        """By the columns that name them in a row that is made from them."""
        return {
            "source_input_asset_id": self.input_asset_id,
            "source_concept_image_id": self.concept_image_id,
            "source_model_id": self.model_id,
        }


async def sources_of(database: Database, *, user_id: UUID, file_id: UUID | None, urls: Sequence[str]) -> Sources:
    """Rows of the user that hold this file, or that spell its URL in one of these ways."""
    row = await database.fetchrow(_SQL["sources_of"], user_id=user_id, file_id=file_id, urls=list(urls))
    return Sources() if row is None else Sources(**dict(row))


async def source_of_draft(database: Database, *, provider_task_id: str, user_id: UUID) -> Sources:
    """The user's model row that a provider task made, with what that was made from."""
    row = await database.fetchrow(_SQL["source_of_draft"], provider_task_id=provider_task_id, user_id=user_id)
    return Sources() if row is None else Sources(**dict(row))


async def slots_of(database: Database, job_ids: Sequence[UUID]) -> dict[UUID, list[AssetSlot]]:
    """Unfinished asset rows of jobs, in the order of their numbers."""
    if not job_ids:
        return {}
    rows = await database.fetch(_SQL["unfinished_outputs"], job_ids=list(job_ids))
    slots: dict[UUID, list[AssetSlot]] = {job_id: [] for job_id in job_ids}
    for row in rows:
        slots[row["job_id"]].append(AssetSlot(row["id"], row["kind"], row["number"], row["prompt"]))
    return slots


async def outputs_of_step(database: Database, request_id: UUID, step: int) -> list[dict[str, Any]]:
    """What the jobs of an earlier step of the request made (``jobs.output``), or of the request that it retries, in the
    order of the chunks; empty while none is completed."""
    rows = await database.fetch(_SQL["outputs_of_step"], request_id=request_id, step=step)
    return [row["output"] for row in rows]


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
                _SQL["store_input_file"], file_id=file_id, size=size, sha256=sha256, width=width, height=height
            )
            await connection.execute(
                _SQL["insert_input_asset"],
                id=asset_id,
                task_id=task_id,
                user_id=user_id,
                input_asset_type=input_asset_type,
                asset_url=asset_url,
                file_id=file_id,
                width=width,
                height=height,
            )
            await connection.execute(
                _SQL["tell_input_asset"],
                user_id=user_id,
                task_id=task_id,
                payload={
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
