"""Files against asset rows, and the pages of the manifest that are held against the bucket."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from uuid import UUID

from app.db.audit.checks import AuditCheck, check_of
from app.db.pool import Connection, Database
from app.db.sql import Statement, load
from app.domain.audit import Area

_PAGE = 1000

_SQL = load(__file__)


def _rows(statement: Statement, remedy: str, *, passing: bool = False) -> AuditCheck:
    return check_of(statement, Area.ROWS, remedy, passing=passing)


FILE_CHECKS = (
    _rows(
        _SQL["asset_has_file"],
        "the client sees a broken link: look for the object in the bucket, and report it with the job's events",
    ),
    _rows(_SQL["input_has_file"], "the client sees a broken link: look for the object in the bucket"),
    _rows(_SQL["file_has_asset"], "nobody can see the file: `makeit3d jobs show` the job, then remove object and row"),
    _rows(_SQL["stored_is_measured"], "measure the object and complete the row"),
    _rows(
        _SQL["uploads_end"],
        "the sweep removes such files: see that a worker runs, and its log for leftover_not_removed",
        passing=True,
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
    kind: str
    number: int
    key: str
    content_type: str


async def outputs(connection: Connection) -> AsyncGenerator[OutputRow]:
    """Every complete output of the snapshot, a page in memory at a time."""
    async for row in connection.rows(_SQL["complete_outputs"], prefetch=_PAGE):
        yield OutputRow(**dict(row))


async def manifest(connection: Connection, bucket: str) -> AsyncGenerator[ManifestRow]:
    """Every result in a bucket that is not removed, in the snapshot, a page in memory at a time."""
    async for row in connection.rows(_SQL["manifest"], bucket=bucket, prefetch=_PAGE):
        yield ManifestRow(**dict(row))


async def by_keys(database: Database, bucket: str, keys: Sequence[str]) -> dict[str, ManifestRow]:
    """The rows of these keys as they are now."""
    rows = await database.fetch(_SQL["manifest_of_keys"], bucket=bucket, keys=list(keys))
    return {row["key"]: ManifestRow(**dict(row)) for row in rows}
