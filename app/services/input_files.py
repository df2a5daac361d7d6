"""Input objects on local disk: downloaded with a cap, checked, normalised, and gone afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import structlog

from app.ai_clients.base import FileInput
from app.config import Settings
from app.domain import pictures
from app.domain.params import ObjectRef
from app.domain.pictures import Picture, PictureLimits
from app.domain.sniff import GLB, extension_of
from app.errors import AppError, ErrorCode
from app.services.decoders import Decoders
from app.storage.base import ObjectNotFound, ObjectStorage, ObjectTooLarge, StorageError
from app.tracing import Kind, span

log = structlog.get_logger(__name__)

IMPORTABLE_BYTES = 150 * 1024 * 1024  # what providers import
_RETRY_AFTER_SECONDS = 5.0


class InputFiles:
    """Checks and fetches inputs. Files live in ``spool_directory`` only while a call or context lasts.

    Each picture is somebody's, and waits for that user's others alone.
    """

    def __init__(self, storage: ObjectStorage, settings: Settings, spool_directory: Path, decoders: Decoders) -> None:
        self._decoders = decoders
        self._storage = storage
        self._directory = spool_directory
        self._max_bytes = settings.max_input_bytes
        self._max_model_bytes = min(settings.max_model_bytes, IMPORTABLE_BYTES)
        self._limits = PictureLimits(settings.max_input_bytes, settings.max_input_pixels)
        self._result_limits = PictureLimits(settings.max_image_bytes, settings.max_input_pixels)

    async def inspect_picture(self, ref: ObjectRef, user_id: UUID | None) -> tuple[ObjectRef, Picture]:
        """Download and decode the whole picture once; the reference to exactly what was seen.

        Raises AppError: INPUT_*, STORAGE_UNAVAILABLE.
        """
        async with self._downloaded(ref, self._max_bytes) as (path, seen):
            return seen, await self.check_upload(path, user_id)

    async def inspect_model(self, ref: ObjectRef) -> ObjectRef:
        """Download and check the model once; the reference to exactly what was seen.

        Raises AppError: INPUT_*, STORAGE_UNAVAILABLE.
        """
        async with self._downloaded(ref, self._max_model_bytes) as (path, seen):
            await self.check_model_upload(path)
            return seen

    async def check_upload(self, path: Path, user_id: UUID | None) -> Picture:
        """Decode the whole of a local picture. Raises AppError: INPUT_*, SERVICE_UNAVAILABLE."""
        return await self._decoders.check(path, self._limits, user_id=user_id)

    async def check_model_upload(self, path: Path) -> None:
        """Check a local GLB. Raises AppError: INPUT_*."""
        await asyncio.to_thread(pictures.check_model, path, self._max_model_bytes)

    @asynccontextmanager
    async def fetch_picture(self, ref: ObjectRef, user_id: UUID | None) -> AsyncGenerator[FileInput]:
        """The picture as providers take it (``pictures.normalise_picture``), on disk while the context lasts.

        Raises AppError: INPUT_*, STORAGE_UNAVAILABLE, SERVICE_UNAVAILABLE.
        """
        async with self._downloaded(ref, self._max_bytes) as (path, _):
            target = path.with_suffix(".normal")
            try:
                picture = await self._decoders.normalise(path, target, self._limits, user_id=user_id)
                yield FileInput(target, picture.content_type, f"input.{extension_of(picture.content_type)}")
            finally:
                target.unlink(missing_ok=True)

    @asynccontextmanager
    async def fetch_model(self, ref: ObjectRef) -> AsyncGenerator[FileInput]:
        """The model, on disk while the context lasts. Raises AppError: INPUT_*, STORAGE_UNAVAILABLE."""
        async with self._downloaded(ref, self._max_model_bytes) as (path, _):
            await self.check_model_upload(path)
            yield FileInput(path, GLB, f"input.{extension_of(GLB)}")

    async def look_at(self, path: Path, user_id: UUID | None) -> Picture:
        """Check a downloaded result. Raises AppError: PROVIDER_RESULT_INVALID, SERVICE_UNAVAILABLE."""
        try:
            return await self._decoders.check(path, self._result_limits, user_id=user_id)
        except AppError as error:
            if error.error is ErrorCode.SERVICE_UNAVAILABLE:
                raise
            raise AppError(ErrorCode.PROVIDER_RESULT_INVALID, error.detail) from None

    async def make_preview(self, source: Path, target: Path, user_id: UUID | None) -> Path | None:
        """A WebP preview of a provider's picture, or None when it is no picture."""
        try:
            await self._decoders.preview(source, target, self._result_limits, user_id=user_id)
        except AppError as error:
            log.warning("preview_unusable", code=error.error.code)
            return None
        return target

    @asynccontextmanager
    async def _downloaded(self, ref: ObjectRef, max_bytes: int) -> AsyncGenerator[tuple[Path, ObjectRef]]:
        """The object on disk, and the reference to exactly what came. Raises AppError."""
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"input-{uuid4().hex}"
        try:
            yield path, await self._download(ref, path, max_bytes)
        finally:
            path.unlink(missing_ok=True)

    async def _download(self, ref: ObjectRef, path: Path, max_bytes: int) -> ObjectRef:
        try:
            with span("fetch_input", Kind.CLIENT):
                info = await self._storage.download(ref.bucket, ref.key, path, max_bytes=max_bytes)
        except ObjectNotFound:
            raise AppError(ErrorCode.INPUT_NOT_FOUND) from None
        except ObjectTooLarge:
            raise AppError(ErrorCode.INPUT_TOO_LARGE, f"At most {max_bytes} bytes are accepted.") from None
        except StorageError as error:
            log.warning("input_not_downloaded", bucket=ref.bucket, key=ref.key, error=str(error))
            raise AppError(
                ErrorCode.STORAGE_UNAVAILABLE, "Storage does not answer properly.", _RETRY_AFTER_SECONDS
            ) from None
        if not ref.is_version(info.etag, info.size):
            log.warning("input_changed", bucket=ref.bucket, key=ref.key)
            raise AppError(ErrorCode.INPUT_CHANGED)
        return replace(ref, etag=info.etag, size=info.size)
