"""The storage protocol: streamed objects in buckets, as Supabase Storage has them.

StorageError
├── ObjectNotFound
├── ObjectTooLarge       never worth a repeat: a limit must be raised first
├── ContentTypeRefused   never worth a repeat: the bucket must allow the type first
├── StorageDenied
└── StorageUnavailable
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

# Storage's own set, less ``?``: clients do not agree on how to spell it in a URL
_KEY = re.compile(r"[A-Za-z0-9_/!\-.*'() &$@=;:+,]{1,1024}")


class StorageError(Exception):
    """Storage refused, and repeating would not help. The text is a status and an error word, nothing else."""


class ObjectNotFound(StorageError):
    """No such object, or no such bucket."""


class Limiter(StrEnum):
    """Who bounds the size of an object."""

    CALLER = "caller"  # the ``max_bytes`` of a download
    BUCKET = "bucket"  # its ``file_size_limit``
    PROJECT = "project"  # the upload limit of the Storage server, or of a proxy in front of it


class ObjectTooLarge(StorageError):
    """More bytes than ``limiter`` allows. ``max_bytes`` is None where nobody says the limit; ``limiter`` is None where
    storage refused an upload and could not be asked who bounds it."""

    def __init__(self, text: str, *, limiter: Limiter | None = None, max_bytes: int | None = None) -> None:
        super().__init__(text)
        self.limiter = limiter
        self.max_bytes = max_bytes


class ContentTypeRefused(StorageError):
    """The bucket's ``allowed_mime_types`` do not have the upload's content type."""


class StorageDenied(StorageError):
    """Storage does not accept the key."""


class StorageUnavailable(StorageError):
    """Storage did not answer properly; repeating may help."""


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


def check_key(key: str) -> None:
    """Raises StorageError for a key that storage can not hold, or that names no single object."""
    if not _KEY.fullmatch(key) or any(part in ("", ".", "..") for part in key.split("/")):
        raise StorageError("InvalidKey")


class ObjectStorage(Protocol):
    """Implemented by ``supabase_storage.SupabaseStorage`` and ``memory.MemoryStorage``; one contract suite runs
    against both. Besides what each method names, all that make a request raise StorageError."""

    async def info(self, bucket: str, key: str) -> ObjectInfo:
        """Raises ObjectNotFound, StorageUnavailable."""
        ...

    async def download(self, bucket: str, key: str, target: Path, *, max_bytes: int) -> ObjectInfo:
        """Stream the object into ``target``; never whole in memory. A cut download raises StorageUnavailable. After
        any error there is no ``target``.

        Raises ObjectNotFound, ObjectTooLarge, StorageUnavailable.
        """
        ...

    async def upload(self, bucket: str, key: str, source: Path, *, content_type: str) -> None:
        """Stream a file from disk, in place of what lies under the key; one try. After StorageUnavailable the object
        may be there, or appear later.

        Nothing here keeps two uploads apart: the one that ends last stays, also where it began first. Whose a key is,
        is for the ``files`` row to say.

        Raises ObjectNotFound (no such bucket), ObjectTooLarge, ContentTypeRefused, StorageUnavailable.
        """
        ...

    async def remove(self, bucket: str, keys: Sequence[str]) -> list[str]:
        """Remove what exists of ``keys``, any number of them. Idempotent. Returns the keys that were there; a repeat
        inside, after a lost reply, may leave out some."""
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

    async def check(self, bucket: str) -> None:
        """Look once whether storage serves the bucket. Raises ObjectNotFound, StorageUnavailable."""
        ...

    def list(self, bucket: str, *, prefix: str) -> AsyncIterator[ListedObject]:
        """All objects whose key starts with ``prefix``, in key order, page by page."""
        ...

    async def aclose(self) -> None: ...
