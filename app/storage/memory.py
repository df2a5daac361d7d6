"""A storage in a directory, shipped for tests and tools; it keeps the same contract as the real one."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from app.storage.base import (
    ContentTypeRefused,
    Limiter,
    ListedObject,
    ObjectInfo,
    ObjectNotFound,
    ObjectTooLarge,
    check_key,
)


@dataclass(frozen=True, slots=True)
class _Stored:
    path: Path
    size: int
    content_type: str
    etag: str
    updated_at: str


@dataclass
class MemoryStorage:
    """``buckets`` maps a bucket's name to whether it is public, ``limits`` to the bytes its objects may have, ``types``
    to the content types it takes. ``max_bytes`` bounds the objects of all buckets."""

    directory: Path
    buckets: Mapping[str, bool]
    limits: Mapping[str, int] = field(default_factory=dict[str, int])
    types: Mapping[str, Collection[str]] = field(default_factory=dict[str, Collection[str]])
    max_bytes: int | None = None
    base_url: str = "http://memory.invalid/storage/v1"
    _objects: dict[tuple[str, str], _Stored] = field(default_factory=dict[tuple[str, str], _Stored])
    _versions: int = 0

    async def info(self, bucket: str, key: str) -> ObjectInfo:
        stored = self._find(bucket, key)
        return ObjectInfo(bucket, key, stored.size, stored.content_type, stored.etag)

    async def download(self, bucket: str, key: str, target: Path, *, max_bytes: int) -> ObjectInfo:
        stored = self._find(bucket, key)
        if stored.size > max_bytes:
            raise ObjectTooLarge(f"{stored.size} bytes", limiter=Limiter.CALLER, max_bytes=max_bytes)
        shutil.copyfile(stored.path, target)  # in one go: a thread would go on after the caller was canceled
        return ObjectInfo(bucket, key, stored.size, stored.content_type, stored.etag)

    async def upload(self, bucket: str, key: str, source: Path, *, content_type: str) -> None:
        check_key(key)
        self._check_bucket(bucket)
        if content_type not in self.types.get(bucket, (content_type,)):
            raise ContentTypeRefused(content_type)
        size = _size(source)
        self._check_size(bucket, size)
        self._versions += 1
        path = self.directory / f"{self._versions}"
        etag = f'"{self._versions}"'
        shutil.copyfile(source, path)
        self._objects[bucket, key] = _Stored(path, size, content_type, etag, datetime.now(UTC).isoformat())

    async def remove(self, bucket: str, keys: Sequence[str]) -> list[str]:
        self._check_bucket(bucket)
        return [key for key in keys if self._objects.pop((bucket, key), None) is not None]

    async def signed_url(self, bucket: str, key: str, *, seconds: int) -> str:
        self._find(bucket, key)
        return f"{self.base_url}/object/sign/{bucket}/{key}?expires_in={seconds}"

    def public_url(self, bucket: str, key: str) -> str:
        return f"{self.base_url}/object/public/{bucket}/{key}"

    async def is_public(self, bucket: str) -> bool:
        self._check_bucket(bucket)
        return self.buckets[bucket]

    async def check(self, bucket: str) -> None:
        self._check_bucket(bucket)

    async def list(self, bucket: str, *, prefix: str) -> AsyncIterator[ListedObject]:
        self._check_bucket(bucket)
        for (owner, key), stored in sorted(self._objects.items()):
            if owner == bucket and key.startswith(prefix):
                yield ListedObject(key, stored.size, stored.updated_at)

    async def aclose(self) -> None:
        self._objects.clear()

    def _check_bucket(self, bucket: str) -> None:
        if bucket not in self.buckets:
            raise ObjectNotFound(bucket)

    def _check_size(self, bucket: str, size: int) -> None:
        limit = self.limits.get(bucket)
        if limit is not None and size > limit:
            raise ObjectTooLarge(f"{size} bytes", limiter=Limiter.BUCKET, max_bytes=limit)
        if self.max_bytes is not None and size > self.max_bytes:
            raise ObjectTooLarge(f"{size} bytes", limiter=Limiter.PROJECT)

    def _find(self, bucket: str, key: str) -> _Stored:
        check_key(key)
        self._check_bucket(bucket)
        try:
            return self._objects[bucket, key]
        except KeyError:
            raise ObjectNotFound(key) from None


def _size(path: Path) -> int:
    return path.stat().st_size
