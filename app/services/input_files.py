"""Input objects on local disk: downloaded with a cap, checked, normalised, and gone afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar
from uuid import uuid4

import structlog

from app.ai_clients.base import FileInput
from app.config import Settings
from app.domain import pictures
from app.domain.params import ObjectRef
from app.domain.pictures import Picture, PictureLimits
from app.domain.sniff import GLB, extension_of
from app.errors import AppError, ErrorCode
from app.storage.base import ObjectNotFound, ObjectStorage, ObjectTooLarge, StorageError
from app.tracing import Kind, span

log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_DECODERS = 2  # pictures decoded at a time per process: each may take max_input_pixels * 8 bytes
IMPORTABLE_BYTES = 150 * 1024 * 1024  # what providers import
_RETRY_AFTER_SECONDS = 5.0


class InputFiles:
    """Checks and fetches inputs. Files live in ``spool_directory`` only while a call or context lasts."""

    def __init__(self, storage: ObjectStorage, settings: Settings, spool_directory: Path) -> None:
        self._storage = storage
        self._directory = spool_directory
        self._max_bytes = settings.max_input_bytes
        self._max_model_bytes = min(settings.max_model_bytes, IMPORTABLE_BYTES)
        self._limits = PictureLimits(settings.max_input_bytes, settings.max_input_pixels)
        self._result_limits = PictureLimits(settings.max_image_bytes, settings.max_input_pixels)
        self._decoders = asyncio.Semaphore(_DECODERS)

    async def inspect_picture(self, ref: ObjectRef) -> Picture:
        """Download and decode the whole picture once. Raises AppError: INPUT_*, STORAGE_UNAVAILABLE."""
        async with self._downloaded(ref, self._max_bytes) as path:
            return await self.check_upload(path)

    async def inspect_model(self, ref: ObjectRef) -> None:
        """Download and check the model once. Raises AppError: INPUT_*, STORAGE_UNAVAILABLE."""
        async with self._downloaded(ref, self._max_model_bytes) as path:
            await self.check_model_upload(path)

    async def check_upload(self, path: Path) -> Picture:
        """Decode the whole of a local picture. Raises AppError: INPUT_*."""
        return await self._decoding(pictures.check_picture, path, self._limits)

    async def check_model_upload(self, path: Path) -> None:
        """Check a local GLB. Raises AppError: INPUT_*."""
        await asyncio.to_thread(pictures.check_model, path, self._max_model_bytes)

    @asynccontextmanager
    async def fetch_picture(self, ref: ObjectRef) -> AsyncGenerator[FileInput]:
        """The picture as providers take it (``pictures.normalise_picture``), on disk while the context lasts.

        Raises AppError: INPUT_*, STORAGE_UNAVAILABLE.
        """
        async with self._downloaded(ref, self._max_bytes) as path:
            target = path.with_suffix(".normal")
            try:
                picture = await self._decoding(pictures.normalise_picture, path, target, self._limits)
                yield FileInput(target, picture.content_type, f"input.{extension_of(picture.content_type)}")
            finally:
                target.unlink(missing_ok=True)

    @asynccontextmanager
    async def fetch_model(self, ref: ObjectRef) -> AsyncGenerator[FileInput]:
        """The model, on disk while the context lasts. Raises AppError: INPUT_*, STORAGE_UNAVAILABLE."""
        async with self._downloaded(ref, self._max_model_bytes) as path:
            await self.check_model_upload(path)
            yield FileInput(path, GLB, f"input.{extension_of(GLB)}")

    async def look_at(self, path: Path) -> Picture:
        """Check a downloaded result. Raises AppError(PROVIDER_RESULT_INVALID)."""
        try:
            return await self._decoding(pictures.check_picture, path, self._result_limits)
        except AppError as error:
            raise AppError(ErrorCode.PROVIDER_RESULT_INVALID, error.detail) from None

    async def make_preview(self, source: Path, target: Path) -> Path | None:
        """A WebP preview of a provider's picture, or None when it is no picture."""
        try:
            await self._decoding(pictures.make_preview, source, target, self._result_limits)
        except AppError as error:
            log.warning("preview_unusable", code=error.error.code)
            return None
        return target

    async def _decoding(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run in a thread, few at a time. A thread can not be stopped: who is canceled waits for it, so that the
        bound on memory holds and no file appears after its directory was cleaned."""
        async with self._decoders:
            thread = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
            try:
                return await asyncio.shield(thread)
            except asyncio.CancelledError:
                await asyncio.gather(thread, return_exceptions=True)
                raise

    @asynccontextmanager
    async def _downloaded(self, ref: ObjectRef, max_bytes: int) -> AsyncGenerator[Path]:
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"input-{uuid4().hex}"
        try:
            await self._download(ref, path, max_bytes)
            yield path
        finally:
            path.unlink(missing_ok=True)

    async def _download(self, ref: ObjectRef, path: Path, max_bytes: int) -> None:
        try:
            with span("fetch_input", Kind.CLIENT):
                await self._storage.download(ref.bucket, ref.key, path, max_bytes=max_bytes)
        except ObjectNotFound:
            raise AppError(ErrorCode.INPUT_NOT_FOUND) from None
        except ObjectTooLarge:
            raise AppError(ErrorCode.INPUT_TOO_LARGE, f"At most {max_bytes} bytes are accepted.") from None
        except StorageError as error:
            log.warning("input_not_downloaded", bucket=ref.bucket, key=ref.key, error=str(error))
            raise AppError(
                ErrorCode.STORAGE_UNAVAILABLE, "Storage does not answer properly.", _RETRY_AFTER_SECONDS
            ) from None
