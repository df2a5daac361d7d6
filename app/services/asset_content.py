"""The never-expiring link to a file of a private bucket: a revocable key in the URL, signed anew at every read."""

from __future__ import annotations

import hmac
from uuid import UUID

from app.db import files
from app.db.pool import Database
from app.domain.sniff import GLB, IMAGE_TYPES
from app.errors import AppError, ErrorCode
from app.storage.base import ObjectNotFound, ObjectStorage, StorageError

SIGNED_SECONDS = 300

_SHOWN_TYPES = IMAGE_TYPES | {GLB}  # a browser runs nothing of these


class AssetContent:
    def __init__(self, database: Database, storage: ObjectStorage) -> None:
        self._database = database
        self._storage = storage

    async def signed_url(self, file_id: UUID, key: str) -> str:
        """A URL that serves the file for ``SIGNED_SECONDS``. Raises AppError: NOT_FOUND, STORAGE_UNAVAILABLE."""
        file = await files.by_id(self._database, file_id)
        known = "" if file is None else file.content_key or ""
        matches = hmac.compare_digest(known.encode(), key.encode())
        if file is None or not known or not matches or file.state != "stored":
            raise AppError(ErrorCode.NOT_FOUND)
        try:
            url = await self._storage.signed_url(file.bucket, file.key, seconds=SIGNED_SECONDS)
        except ObjectNotFound:
            raise AppError(ErrorCode.NOT_FOUND) from None
        except StorageError:
            raise AppError(ErrorCode.STORAGE_UNAVAILABLE, retry_after=5) from None
        return url if file.content_type in _SHOWN_TYPES else _as_download(url)


def _as_download(url: str) -> str:
    """Storage then says ``Content-Disposition: attachment``."""
    return f"{url}{'&' if '?' in url else '?'}download="
