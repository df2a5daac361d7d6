"""Files against asset rows, and the pages of the manifest that are held against the bucket."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from uuid import UUID

from app.db.audit.checks import AuditCheck
from app.db.pool import Connection, Database
from app.db.sql import load
from app.domain.audit import Area, Invariant
from app.domain.jobs import AssetKind

_PAGE = 1000

_SQL = load(__file__)


def _rows(name: str, rule: str, remedy: str, sql: str) -> AuditCheck:
    return AuditCheck(Invariant(name, Area.ROWS, rule, remedy), sql)


FILE_CHECKS = (
    _rows(
        "asset_has_file",
        "a complete output row names a stored file of its own job, and its link leads there",
        "the client sees a broken link: look for the object in the bucket, and report it with the job's events",
        """
        select jsonb_build_object('asset', a.id, 'job', a.job_id, 'file', a.file_id) as ids,
          format('%s row is complete; file is %s%s', a.table_name, coalesce(f.state, 'missing'),
            case when f.id is null then '' else format(', of job %s, at %s; link %s', f.job_id, f.key, a.asset_url) end)
            as found
        from asset a left join makeit3d.files f on f.id = a.file_id
        where a.status = 'complete' and (f.id is null or f.state <> 'stored' or f.job_id is distinct from a.job_id
          or f.kind <> (case a.kind when 'concept' then 'concept' else 'model' end)
          or not (a.asset_url like '%/' || f.key
            or a.asset_url like format('%%/assets/%s/content?key=%s', f.id, f.content_key)))
        """,
    ),
    _rows(
        "input_has_file",
        "a complete input row that names a file names a stored one",
        "the client sees a broken link: look for the object in the bucket",
        """
        select jsonb_build_object('asset', a.id, 'file', a.file_id) as ids, format('file is %s', f.state) as found
        from {inputs} a join makeit3d.files f on f.id = a.file_id where a.status = 'complete' and f.state <> 'stored'
        """,
    ),
    _rows(
        "file_has_asset",
        "a stored output or preview belongs to a complete row of its job",
        "nobody can see the file: `makeit3d jobs show` the job, then remove object and row",
        """
        select jsonb_build_object('file', f.id, 'job', f.job_id, 'key', f.key) as ids,
          format('%s file is stored, its job is %s', f.kind, j.status) as found
        from makeit3d.files f join makeit3d.jobs j on j.id = f.job_id
        where f.state = 'stored' and not case f.kind
          when 'preview' then exists (select from jsonb_array_elements(j.output->'files') as o
            where o->>'preview_file_id' = f.id::text)
          else exists (select from asset a where a.file_id = f.id and a.status = 'complete') end
        """,
    ),
    _rows(
        "stored_is_measured",
        "a stored file has a size and a time, and an output a digest",
        "measure the object and complete the row",
        """
        select jsonb_build_object('file', id, 'key', key) as ids,
          format('%s file: size %s, stored %s, sha256 %s', kind, coalesce(size::text, 'unknown'),
            coalesce(stored_at::text, 'never'), coalesce(sha256, 'unknown')) as found
        from makeit3d.files where state = 'stored' and (size is null or stored_at is null or sha256 is null)
        """,
    ),
    AuditCheck(
        Invariant(
            "uploads_end",
            Area.ROWS,
            "an unfinished upload belongs to a job that is under way, or is removed soon",
            "the sweep removes such files: see that a worker runs, and its log for leftover_not_removed",
            passing=True,
        ),
        """
        select jsonb_build_object('file', f.id, 'job', f.job_id, 'key', f.key) as ids,
          format('uploading since %s; job %s', f.created_at, coalesce(j.status, 'none')) as found
        from patience, makeit3d.files f left join makeit3d.jobs j on j.id = f.job_id
        where f.state = 'uploading' and case when j.id is null then f.created_at < now() - patience.unowned
          else j.finished_at < now() - patience.leftovers end
        """,
    ),
)


@dataclass(frozen=True, slots=True)
class ManifestRow:
    id: UUID
    key: str
    state: str
    size: int | None  # bytes
    sha256: str | None


@dataclass(frozen=True, slots=True)
class OutputRow:
    """A complete output with the key its file lies under."""

    asset_id: UUID
    file_id: UUID
    task_id: str
    kind: AssetKind
    number: int
    key: str
    content_type: str


async def outputs(connection: Connection) -> AsyncGenerator[OutputRow]:
    """Every complete output of the snapshot, a page in memory at a time."""
    async for row in connection.rows(_SQL["complete_outputs"], prefetch=_PAGE):
        values = dict(row)
        values["kind"] = AssetKind(values["kind"])
        yield OutputRow(**values)


async def manifest(connection: Connection, bucket: str) -> AsyncGenerator[ManifestRow]:
    """Every result in a bucket that is not removed, in the snapshot, a page in memory at a time."""
    async for row in connection.rows(_SQL["manifest"], bucket=bucket, prefetch=_PAGE):
        yield ManifestRow(**dict(row))


async def by_keys(database: Database, bucket: str, keys: Sequence[str]) -> dict[str, ManifestRow]:
    """The rows of these keys as they are now."""
    rows = await database.fetch(_SQL["manifest_of_keys"], bucket=bucket, keys=list(keys))
    return {row["key"]: ManifestRow(**dict(row)) for row in rows}
