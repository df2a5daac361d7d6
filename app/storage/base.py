"""The storage protocol: streamed objects in buckets, as Supabase Storage has them.

StorageError
├── ObjectNotFound      no such object (or bucket)
├── ObjectExists        an upload found an object under its key
├── ObjectTooLarge      more bytes than allowed
└── StorageUnavailable  storage did not answer properly; repeating may help
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class StorageError(Exception):
    pass


class ObjectNotFound(StorageError):
    pass


class ObjectExists(StorageError):
    pass


class ObjectTooLarge(StorageError):
    pass


class StorageUnavailable(StorageError):
    pass


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    bucket: str
    key: str
    size: int  # bytes
    content_type: str  # as stored; not to be trusted
    etag: str | None


@dataclass(frozen=True, slots=True)
class ListedObject:
    key: str
    size: int
    updated_at: str


class ObjectStorage(Protocol):
    """Implemented by ``supabase_storage.SupabaseStorage`` and ``memory.MemoryStorage``; one contract suite runs
    against both."""

    async def info(self, bucket: str, key: str) -> ObjectInfo:
        """Raises ObjectNotFound, StorageUnavailable."""
        ...

    async def download(self, bucket: str, key: str, target: Path, *, max_bytes: int) -> ObjectInfo:
        """Stream the object into ``target``; never whole in memory. A cut download raises StorageUnavailable.

        Raises ObjectNotFound, ObjectTooLarge, StorageUnavailable.
        """
        ...

    async def upload(self, bucket: str, key: str, source: Path, *, content_type: str, overwrite: bool = False) -> None:
        """Stream a file from disk. Raises ObjectExists, ObjectTooLarge, StorageUnavailable."""
        ...

    async def remove(self, bucket: str, keys: Sequence[str]) -> list[str]:
        """Remove what exists of ``keys``; returns the keys that were there. Idempotent."""
        ...

    async def signed_url(self, bucket: str, key: str, *, seconds: int) -> str:
        """A URL that serves the object for ``seconds``. Raises ObjectNotFound."""
        ...

    def public_url(self, bucket: str, key: str) -> str:
        """The URL under which a public bucket serves the object; no request is made."""
        ...

    async def is_public(self, bucket: str) -> bool:
        """Whether the bucket serves public URLs. Raises ObjectNotFound when there is no such bucket."""
        ...

    def list(self, bucket: str, *, prefix: str) -> AsyncIterator[ListedObject]:
        """All objects whose key starts with ``prefix``, in key order, page by page."""
        ...

    async def aclose(self) -> None: ...
