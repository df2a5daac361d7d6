"""The manifest: one row per object in the bucket, written before the upload and made ``stored`` by the settle."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import asyncpg

from app.db.pool import Database
from app.domain.jobs import Claim
from app.domain.storage_urls import StorageRef


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


_COLUMNS = "id, bucket, key, task_id, user_id, job_id, attempt, kind, state, content_type, size, sha256, content_key"

# A row of the same job under the same key is taken over: an earlier run of the job left it.
_ANNOUNCE = """
insert into files (id, bucket, key, task_id, user_id, job_id, attempt, kind, content_type, content_key)
select $4, $5, $6, j.task_id, j.user_id, j.id, j.attempt, $7, $8, $9
from jobs j where j.id = $1 and j.worker_id = $2 and j.attempt = $3 and j.status = 'running'
on conflict (bucket, key) where state <> 'removed' do update set attempt = excluded.attempt,
  content_type = excluded.content_type
where files.job_id = excluded.job_id and files.state = 'uploading'
returning id, content_key
"""


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
        _ANNOUNCE,
        claim.job_id,
        claim.worker_id,
        claim.attempt,
        file_id,
        bucket,
        key,
        kind,
        content_type,
        content_key,
    )
    return None if row is None else (row["id"], row["content_key"])


async def insert_input(database: Database, row: FileRow) -> None:
    """A file that a client sent through us, before its upload."""
    await database.execute(
        "insert into files (id, bucket, key, task_id, user_id, kind, content_type, content_key)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8)",
        row.id,
        row.bucket,
        row.key,
        row.task_id,
        row.user_id,
        row.kind,
        row.content_type,
        row.content_key,
    )


async def by_key(database: Database, bucket: str, key: str) -> FileRow | None:
    row = await database.fetchrow(
        f"select {_COLUMNS} from files where bucket = $1 and key = $2 and state <> 'removed'",  # noqa: S608
        bucket,
        key,
    )
    return _file(row)


async def by_id(database: Database, file_id: UUID) -> FileRow | None:
    row = await database.fetchrow(f"select {_COLUMNS} from files where id = $1 and state <> 'removed'", file_id)  # noqa: S608
    return _file(row)


async def object_of(database: Database, file_id: UUID, user_id: UUID) -> StorageRef | None:
    """The object of a user's file, also of one that was removed."""
    row = await database.fetchrow("select bucket, key from files where id = $1 and user_id = $2", file_id, user_id)
    return None if row is None else StorageRef(row["bucket"], row["key"])


async def owner_in_storage(database: Database, bucket: str, key: str) -> str | None:
    """The ``owner_id`` that Storage itself recorded for an object; None when unknown."""
    return await database.fetchval(
        "select owner_id from storage.objects where bucket_id = $1 and name = $2", bucket, key
    )


async def abandoned_uploads(
    database: Database, *, ended_seconds: float, unowned_seconds: float, limit: int
) -> list[FileRow]:
    """``uploading`` rows of jobs that ended that long ago, and of no job from that long ago: their objects belong to
    nobody, and nobody is still at it."""
    rows = await database.fetch(
        "select f.id, f.bucket, f.key, f.task_id, f.user_id, f.job_id, f.attempt, f.kind, f.state, f.content_type,"
        " f.size, f.sha256, f.content_key from files f left join jobs j on j.id = f.job_id"
        " where f.state = 'uploading' and case when j.id is null"
        "   then f.created_at < now() - make_interval(secs => $2)"
        "   else j.status in ('completed', 'failed', 'canceled')"
        "     and j.finished_at < now() - make_interval(secs => $1) end"
        " order by f.created_at limit $3",
        ended_seconds,
        unowned_seconds,
        limit,
    )
    return [FileRow(**dict(row)) for row in rows]


async def left_by(database: Database, job_id: UUID) -> list[FileRow]:
    """Files of a job that ended without them; none while it may still run. Also those called removed already: a process
    that was held up may have stored one after that."""
    rows = await database.fetch(
        "select f.id, f.bucket, f.key, f.task_id, f.user_id, f.job_id, f.attempt, f.kind, f.state, f.content_type,"
        " f.size, f.sha256, f.content_key from files f join jobs j on j.id = f.job_id"
        " where f.job_id = $1 and f.state <> 'stored' and j.status in ('completed', 'failed', 'canceled')",
        job_id,
    )
    return [FileRow(**dict(row)) for row in rows]


async def mark_removed(database: Database, file_id: UUID) -> None:
    await database.execute("update files set state = 'removed' where id = $1 and state = 'uploading'", file_id)


def _file(row: asyncpg.Record | None) -> FileRow | None:
    return None if row is None else FileRow(**dict(row))
