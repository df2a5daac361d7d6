"""Putting results into the bucket: a manifest row first, which says whose the key is, then the upload.

An earlier run of the job may have got as far, and may even still be at it: both carry the same bytes.
"""

from __future__ import annotations

import hashlib
import secrets
from asyncio import CancelledError, to_thread
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import structlog

from app.config import Settings
from app.db import files, workers
from app.db.pool import Database
from app.domain.crash_points import Boundary, boundary
from app.domain.jobs import AssetSlot, StoredFile
from app.domain.storage_keys import output_key, preview_key
from app.errors import AppError, ErrorCode
from app.services.beside import beside
from app.services.job_run import ClaimLost, JobRun
from app.services.storage_refusals import lasting_refusal
from app.storage.base import ObjectStorage, StorageError, StorageUnavailable
from app.tracing import Kind, span

log = structlog.get_logger(__name__)

PREVIEW = "preview"  # of ``files.kind``


class ResultRefused(AppError):
    """Storage will not take the result, however often it is asked."""


@dataclass(frozen=True, slots=True)
class _Put:
    """A file that lies in the bucket, with its lasting URL."""

    id: UUID
    url: str
    size: int
    sha256: str


class Outputs:
    def __init__(self, database: Database, storage: ObjectStorage, settings: Settings) -> None:
        self._database = database
        self._kinds = database.tables.kinds
        self._storage = storage
        self._bucket = settings.generated_assets_bucket_name
        self._public_base_url = settings.public_base_url

    async def store(
        self,
        run: JobRun,
        slot: AssetSlot,
        path: Path,
        *,
        content_type: str,
        width: int | None = None,
        height: int | None = None,
        preview: Path | None = None,
    ) -> StoredFile:
        """Upload one result under its reserved name. A preview that storage refuses is left out.

        Raises ClaimLost, ResultRefused, StorageUnavailable; ValueError for a type that no file of its kind has.
        """
        kind = self._kinds[slot.kind]
        key = output_key(kind, run.job.task_id, slot.number, kind.extension_of(content_type))
        async with beside(self._put_preview(run, preview_key(key), preview)) as stored_preview:
            file = await self._put(run, key, path, kind=kind.name, content_type=content_type)
        small = stored_preview.result()
        return StoredFile(
            file_id=file.id,
            asset_id=slot.id,
            kind=slot.kind,
            bucket=self._bucket,
            key=key,
            url=file.url,
            content_type=content_type,
            size=file.size,
            sha256=file.sha256,
            width=width,
            height=height,
            preview_url=None if small is None else small.url,
            preview_file_id=None if small is None else small.id,
            preview_size=None if small is None else small.size,
            preview_sha256=None if small is None else small.sha256,
        )

    async def _put_preview(self, run: JobRun, key: str, path: Path | None) -> _Put | None:
        if path is None:
            return None
        try:
            return await self._put(run, key, path, kind=PREVIEW, content_type="image/webp")
        except ResultRefused as error:
            log.warning("preview_refused", code=error.error.code)
            return None

    async def _put(self, run: JobRun, key: str, path: Path, *, kind: str, content_type: str) -> _Put:
        """Announce, upload, measure."""
        announced = await files.announce(
            self._database,
            run.claim,
            file_id=uuid4(),
            bucket=self._bucket,
            key=key,
            kind=kind,
            content_type=content_type,
            content_key=secrets.token_urlsafe(24),
        )
        if announced is None:
            await self._ensure_claim(run)
            raise ResultRefused(ErrorCode.STORAGE_CONFLICT, f"{key} belongs to another file.")
        file_id, content_key = announced
        try:
            async with beside(to_thread(_measure, path)) as measured:
                await self._upload(key, path, kind=kind, content_type=content_type)
                url = await self._url(key, file_id, content_key)
            return _Put(file_id, url, *measured.result())
        except (CancelledError, StorageUnavailable):
            run.upload_cut = True
            raise
        except StorageError as error:
            size = (await to_thread(path.stat)).st_size
            raise _refusal(error, self._bucket, size, content_type) from error

    async def _upload(self, key: str, path: Path, *, kind: str, content_type: str) -> None:
        with (
            span("upload", Kind.CLIENT, content_type=content_type),
            # the failpoint is the result's: its preview goes up at the same time
            boundary(Boundary.UPLOAD) if kind != PREVIEW else nullcontext(),
        ):
            await self._storage.upload(self._bucket, key, path, content_type=content_type)

    async def _ensure_claim(self, run: JobRun) -> None:
        claim = run.claim
        if (claim.job_id, claim.attempt) not in await workers.running_claims(self._database, claim.worker_id):
            raise ClaimLost

    async def _url(self, key: str, file_id: UUID, content_key: str) -> str:
        if await self._storage.is_public(self._bucket):
            return self._storage.public_url(self._bucket, key)
        return content_link(self._public_base_url, file_id, content_key)


def _refusal(error: StorageError, bucket: str, size: int, content_type: str) -> ResultRefused:
    """What an operator has to change, and where."""
    found = lasting_refusal(error, bucket=bucket, size=size, content_type=content_type)
    if found is not None:
        code, why = found
        return ResultRefused(code, f"The result has {why}.")
    why = f"storage answers {error}: see that bucket {bucket} exists and that the service key may write to it"
    return ResultRefused(ErrorCode.STORAGE_REFUSED, f"The result has {size:,} bytes, {why}.")


def _measure(path: Path) -> tuple[int, str]:
    with path.open("rb") as source:
        return path.stat().st_size, hashlib.file_digest(source, "sha256").hexdigest()


def content_link(public_base_url: str, file_id: UUID, content_key: str) -> str:
    """Our never-expiring link to a file of a private bucket."""
    return f"{public_base_url}/assets/{file_id}/content?key={content_key}"
