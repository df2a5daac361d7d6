"""Input objects on local disk: downloaded with a cap, checked, normalised, and gone afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import structlog

from app.ai_clients.base import FileInput
from app.config import Settings
from app.domain import pictures
from app.domain.params import ObjectRef
from app.domain.pictures import Picture, PictureLimits
from app.errors import AppError, ErrorCode
from app.storage.base import ObjectNotFound, ObjectStorage, ObjectTooLarge, StorageUnavailable

log = structlog.get_logger(__name__)

_DECODERS = 2  # pictures decoded at a time per process: each may take max_input_pixels * 4 bytes


class InputFiles:
    def __init__(self, storage: ObjectStorage, settings: Settings, spool_directory: Path) -> None:
        self._storage = storage
        self._directory = spool_directory
        self._max_bytes = settings.max_input_bytes
        self._max_model_bytes = min(settings.max_model_bytes, 150 * 1024 * 1024)  # what providers import
        self._limits = PictureLimits(settings.max_input_bytes, settings.max_input_pixels)
        self._result_limits = PictureLimits(settings.max_image_bytes, settings.max_input_pixels)
        self._decoders = asyncio.Semaphore(_DECODERS)

    async def inspect_picture(self, ref: ObjectRef) -> Picture:
        """Download and decode the whole picture once. Raises AppError: INPUT_*, STORAGE_UNAVAILABLE."""
        async with self._downloaded(ref, self._max_bytes) as path:
            return await self.check_upload(path)

    async def inspect_model(self, ref: ObjectRef) -> None:
        """Raises AppError: INPUT_*, STORAGE_UNAVAILABLE."""
        async with self._downloaded(ref, self._max_model_bytes) as path:
            await asyncio.to_thread(pictures.check_model, path, self._max_model_bytes)

    async def check_upload(self, path: Path) -> Picture:
        """Decode the whole of a local picture. Raises AppError: INPUT_*."""
        async with self._decoders:
            return await asyncio.to_thread(pictures.check_picture, path, self._limits)

    async def check_model_upload(self, path: Path) -> None:
        """Raises AppError: INPUT_*."""
        await asyncio.to_thread(pictures.check_model, path, self._max_model_bytes)

    @asynccontextmanager
    async def fetch_picture(self, ref: ObjectRef) -> AsyncGenerator[FileInput]:
        """The picture as providers take it, on disk while the context lasts. Raises AppError as above."""
        async with self._downloaded(ref, self._max_bytes) as path:
            target = path.with_suffix(".normal")
            try:
                async with self._decoders:
                    picture = await asyncio.to_thread(pictures.normalise_picture, path, target, self._limits)
                extension = "jpg" if picture.content_type == "image/jpeg" else "png"
                yield FileInput(target, picture.content_type, f"input.{extension}")
            finally:
                target.unlink(missing_ok=True)

    @asynccontextmanager
    async def fetch_model(self, ref: ObjectRef) -> AsyncGenerator[FileInput]:
        async with self._downloaded(ref, self._max_model_bytes) as path:
            await asyncio.to_thread(pictures.check_model, path, self._max_model_bytes)
            yield FileInput(path, "model/gltf-binary", "input.glb")

    async def look_at(self, path: Path) -> Picture:
        """Check a downloaded result. Raises AppError(PROVIDER_RESULT_INVALID)."""
        try:
            async with self._decoders:
                return await asyncio.to_thread(pictures.check_picture, path, self._result_limits)
        except AppError as error:
            raise AppError(ErrorCode.PROVIDER_RESULT_INVALID, error.detail) from None

    async def make_preview(self, source: Path, target: Path) -> Path | None:
        """A WebP preview of a provider's picture, or None when it is no picture."""
        try:
            async with self._decoders:
                await asyncio.to_thread(pictures.make_preview, source, target, self._result_limits)
        except AppError as error:
            log.warning("preview_unusable", code=error.error.code)
            return None
        return target

    @asynccontextmanager
    async def _downloaded(self, ref: ObjectRef, max_bytes: int) -> AsyncGenerator[Path]:
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"input-{uuid4().hex}"
        try:
            try:
                await self._storage.download(ref.bucket, ref.key, path, max_bytes=max_bytes)
            except ObjectNotFound:
                raise AppError(ErrorCode.INPUT_NOT_FOUND) from None
            except ObjectTooLarge:
                raise AppError(ErrorCode.INPUT_TOO_LARGE, f"At most {max_bytes} bytes are accepted.") from None
            except StorageUnavailable:
                raise AppError(
                    ErrorCode.STORAGE_UNAVAILABLE, "Storage does not answer properly.", retry_after=5
                ) from None
            yield path
        finally:
            path.unlink(missing_ok=True)
