"""Files that clients send through us: looked at from their first bytes on, checked whole, stored, recorded."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import structlog

from app.config import Settings
from app.db import assets, files, tasks
from app.db.assets import UnknownUser
from app.db.files import FileRow
from app.db.pool import Database
from app.domain.pictures import Picture
from app.domain.sniff import GLB, HEAD_BYTES, IMAGE_TYPES, extension_of, sniff
from app.domain.statuses import AssetStatus
from app.domain.storage_keys import input_key
from app.domain.task_ids import is_task_id
from app.errors import AppError, ErrorCode
from app.services.input_files import IMPORTABLE_BYTES, InputFiles
from app.services.notifier import Notifier
from app.services.outputs import content_link
from app.services.storage_refusals import lasting_refusal
from app.services.upload_room import Holding, UploadRoom
from app.services.workspaces import Workspaces
from app.storage.base import ObjectStorage, StorageError, StorageUnavailable

log = structlog.get_logger(__name__)

_PATIENCE_SECONDS = 30.0
_ASSET_TYPE = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class UploadedAsset:
    """The ``input_assets`` row of an upload. ``size`` in bytes, sides in pixels."""

    id: UUID
    task_id: str
    input_asset_type: str
    asset_url: str
    status: AssetStatus
    content_type: str
    size: int
    sha256: str
    width: int | None
    height: int | None


class Uploads:
    def __init__(
        self,
        database: Database,
        storage: ObjectStorage,
        inputs: InputFiles,
        spool: Workspaces,
        notifier: Notifier,
        settings: Settings,
        *,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:
        """``patience_seconds`` is how long an upload may wait for room in the spool."""
        self._room = UploadRoom(settings.spool_bytes, patience_seconds=patience_seconds)
        self._under_way: Counter[UUID] = Counter()
        self._max_per_user = settings.user_max_uploads
        self._database = database
        self._storage = storage
        self._inputs = inputs
        self._spool = spool
        self._notifier = notifier
        self._bucket = settings.input_bucket_names[0]  # never that of the results: it may be public
        self._public_base_url = settings.public_base_url
        self._picture_bytes = settings.max_input_bytes
        self._model_bytes = min(settings.max_model_bytes, IMPORTABLE_BYTES)

    def limit_of(self, head: bytes) -> int:
        """How many bytes a file that begins like this may have. Raises AppError: INPUT_EMPTY, INPUT_NOT_IMAGE."""
        content_type = sniff(head[:HEAD_BYTES])
        if content_type in IMAGE_TYPES:
            return self._picture_bytes
        if content_type == GLB:
            return self._model_bytes
        if not head:
            raise AppError(ErrorCode.INPUT_EMPTY)
        raise AppError(ErrorCode.INPUT_NOT_IMAGE, "PNG, JPEG and WebP pictures and GLB models are accepted.")

    @asynccontextmanager
    async def workspace(self, user_id: UUID) -> AsyncGenerator[tuple[Path, Holding]]:
        """A directory for one upload, removed afterwards, and the room that the upload has there. Raises
        AppError(TOO_MANY_UPLOADS) of the user."""
        with self._place(user_id), self._room.holding(user_id) as held:
            async with self._spool.workspace(expected_bytes=0) as directory:
                yield directory, held

    @contextmanager
    def _place(self, user_id: UUID) -> Generator[None]:
        """One of the user's uploads at a time: nobody has the whole spool."""
        if self._under_way[user_id] >= self._max_per_user:
            raise AppError(
                ErrorCode.TOO_MANY_UPLOADS, f"At most {self._max_per_user} uploads at a time.", retry_after=5
            )
        self._under_way[user_id] += 1
        try:
            yield
        finally:
            self._under_way[user_id] -= 1
            if not self._under_way[user_id]:
                del self._under_way[user_id]

    async def store(
        self, path: Path, *, user_id: UUID, task_id: str | None, input_asset_type: str | None
    ) -> UploadedAsset:
        """Check a received file and make it an input of the user.

        Raises AppError: VALIDATION_ERROR, TASK_NOT_FOUND, the INPUT_* codes, STORAGE_UNAVAILABLE, STORAGE_REFUSED_SIZE,
        STORAGE_REFUSED_TYPE, UNAUTHENTICATED when the user no longer exists.
        """
        task_id = task_id or str(uuid4())
        if not is_task_id(task_id):
            raise _wrong("task_id", "Must be 8 to 64 letters, digits, _ and -.")
        if input_asset_type is not None and not _ASSET_TYPE.fullmatch(input_asset_type):
            raise _wrong("input_asset_type", "Must be a word of small letters, digits and _.")
        if await tasks.is_foreign(self._database, task_id, user_id):
            raise AppError(ErrorCode.TASK_NOT_FOUND)
        content_type, picture = await self._check(path, user_id)
        size, sha256 = await asyncio.to_thread(_measure, path)
        asset_id, file_id = uuid4(), uuid4()
        asset_url = await self._upload(path, size, user_id, task_id, asset_id, file_id, content_type)
        asset = UploadedAsset(
            id=asset_id,
            task_id=task_id,
            input_asset_type=input_asset_type or ("uploaded_photo" if picture is not None else "uploaded_model"),
            asset_url=asset_url,
            status=AssetStatus.COMPLETE,
            content_type=content_type,
            size=size,
            sha256=sha256,
            width=None if picture is None else picture.width,
            height=None if picture is None else picture.height,
        )
        await self._record(asset, file_id, user_id)
        self._notifier.changed([(task_id, user_id)])
        log.info("upload_stored", task_id=task_id, asset_id=str(asset_id), size=size, content_type=content_type)
        return asset

    async def _check(self, path: Path, user_id: UUID) -> tuple[str, Picture | None]:
        head = await asyncio.to_thread(_head, path)
        if sniff(head) == GLB:
            await self._inputs.check_model_upload(path)
            return GLB, None
        picture = await self._inputs.check_upload(path, user_id)
        return picture.content_type, picture

    async def _upload(
        self, path: Path, size: int, user_id: UUID, task_id: str, asset_id: UUID, file_id: UUID, content_type: str
    ) -> str:
        """The manifest row, then the object; its lasting URL. A row without an object is removed, at once where storage
        refused it, later where nobody knows."""
        row = FileRow(
            id=file_id,
            bucket=self._bucket,
            key=input_key(user_id, asset_id, extension_of(content_type)),
            task_id=task_id,
            user_id=user_id,
            job_id=None,
            attempt=None,
            kind="input",
            state="uploading",
            content_type=content_type,
            size=None,
            sha256=None,
            content_key=secrets.token_urlsafe(24),
        )
        try:
            public = await self._storage.is_public(row.bucket)
            await files.insert_input(self._database, row)
            await self._storage.upload(row.bucket, row.key, path, content_type=content_type)
        except StorageError as error:
            log.warning("upload_failed", error=type(error).__name__, key=row.key)
            if not isinstance(error, StorageUnavailable):
                await files.mark_removed(self._database, file_id)
            raise _refusal(error, row.bucket, size, content_type) from None
        if public:
            return self._storage.public_url(row.bucket, row.key)
        return content_link(self._public_base_url, file_id, row.content_key or "")

    async def _record(self, asset: UploadedAsset, file_id: UUID, user_id: UUID) -> None:
        try:
            await assets.store_upload(
                self._database,
                asset_id=asset.id,
                file_id=file_id,
                task_id=asset.task_id,
                user_id=user_id,
                input_asset_type=asset.input_asset_type,
                asset_url=asset.asset_url,
                size=asset.size,
                sha256=asset.sha256,
                width=asset.width,
                height=asset.height,
            )
        except UnknownUser:
            raise AppError(ErrorCode.UNAUTHENTICATED, "The user no longer exists.") from None


def _refusal(error: StorageError, bucket: str, size: int, content_type: str) -> AppError:
    """What storage refuses for good is not worth a repeat: the same file would be refused again."""
    found = lasting_refusal(error, bucket=bucket, size=size, content_type=content_type)
    if found is not None:
        code, why = found
        return AppError(code, f"The file has {why}.")
    if isinstance(error, StorageUnavailable):
        return AppError(ErrorCode.STORAGE_UNAVAILABLE, "Please send the file again.", retry_after=5)
    return AppError(ErrorCode.STORAGE_UNAVAILABLE, "Storage takes no uploads just now.", retry_after=60)


def _wrong(field: str, message: str) -> AppError:
    fault = {"field": field, "code": "string_pattern_mismatch", "message": message}
    return AppError(ErrorCode.VALIDATION_ERROR, extra={"errors": [fault]})


def _head(path: Path) -> bytes:
    with path.open("rb") as source:
        return source.read(HEAD_BYTES)


def _measure(path: Path) -> tuple[int, str]:
    with path.open("rb") as source:
        return path.stat().st_size, hashlib.file_digest(source, "sha256").hexdigest()
