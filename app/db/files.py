"""The manifest: one row per object in the bucket, written before the upload and made ``stored`` by the settle."""

from __future__ import annotations

from dataclasses import dataclass, fields
from uuid import UUID

import asyncpg

from app.db.pool import Database
from app.db.sql import load
from app.domain.jobs import Claim
from app.domain.storage_urls import StorageRef

_SQL = load(__file__)


@dataclass(frozen=True, slots=True)
class FileRow:
    id: UUID
    bucket: str
    key: str
    task_id: str | None
    user_id: UUID | None
    job_id: UUID | None
    attempt: int | None
    kind: str
    state: str
    content_type: str
    size: int | None
    sha256: str | None
    content_key: str | None


_FIELDS = tuple(field.name for field in fields(FileRow))


async def announce(
    database: Database,
    claim: Claim,
    *,
    file_id: UUID,
    bucket: str,
    key: str,
    kind: str,
    content_type: str,
    content_key: str,
) -> tuple[UUID, str] | None:
    """Write the ``uploading`` row of a job's output; (file id, content key), or None when the claim is lost or the
    key belongs to another job."""
    row = await database.fetchrow(
        _SQL["announce_file"],
        job_id=claim.job_id,
        worker_id=claim.worker_id,
        attempt=claim.attempt,
        file_id=file_id,
        bucket=bucket,
        key=key,
        kind=kind,
        content_type=content_type,
        content_key=content_key,
    )
    return None if row is None else (row["id"], row["content_key"])


async def insert_input(database: Database, row: FileRow) -> None:
    """A file that a client sent through us, before its upload."""
    await database.execute(
        _SQL["insert_input_file"],
        id=row.id,
        bucket=row.bucket,
        key=row.key,
        task_id=row.task_id,
        user_id=row.user_id,
        kind=row.kind,
        content_type=row.content_type,
        content_key=row.content_key,
    )


async def by_key(database: Database, bucket: str, key: str) -> FileRow | None:
    row = await database.fetchrow(_SQL["file_by_key"], bucket=bucket, key=key)
    return None if row is None else _file(row)


async def by_id(database: Database, file_id: UUID) -> FileRow | None:
    row = await database.fetchrow(_SQL["file_by_id"], file_id=file_id)
    return None if row is None else _file(row)


async def object_of(database: Database, file_id: UUID, user_id: UUID) -> StorageRef | None:
    """The object of a user's file, also of one that was removed."""
    row = await database.fetchrow(_SQL["object_of_file"], file_id=file_id, user_id=user_id)
    return None if row is None else StorageRef(row["bucket"], row["key"])


async def owner_in_storage(database: Database, bucket: str, key: str) -> str | None:
    """The ``owner_id`` that Storage itself recorded for an object; None when unknown."""
    return await database.fetchval(_SQL["owner_in_storage"], bucket=bucket, key=key)


async def abandoned_uploads(
    database: Database, *, ended_seconds: float, unowned_seconds: float, limit: int
) -> list[FileRow]:
    """``uploading`` rows of jobs that ended that long ago, and of no job from that long ago: their objects belong to
    nobody, and nobody is still at it."""
    rows = await database.fetch(
        _SQL["abandoned_uploads"], ended_seconds=ended_seconds, unowned_seconds=unowned_seconds, limit=limit
    )
    return [_file(row) for row in rows]


async def left_by(database: Database, job_id: UUID) -> list[FileRow]:
    """Files of a job that ended without them; none while it may still run. Also those called removed already: a process
    that was held up may have stored one after that."""
    return [_file(row) for row in await database.fetch(_SQL["unstored_files_of"], job_id=job_id)]


async def mark_removed(database: Database, file_id: UUID) -> None:
    await database.execute(_SQL["mark_file_removed"], file_id=file_id)


def _file(row: asyncpg.Record) -> FileRow:
    return FileRow(**{name: row[name] for name in _FIELDS})
