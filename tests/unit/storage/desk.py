"""A storage under test with four buckets, and files to put into it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from app.config import Settings
from app.storage.base import ObjectStorage

SMALL = 1000  # bytes that the bucket ``small`` takes
PLENTY = 10**9

# a bucket as Storage describes it
BUCKET: dict[str, object] = {
    "id": "b",
    "name": "b",
    "owner": "",
    "public": True,
    "file_size_limit": None,
    "allowed_mime_types": None,
    "created_at": "2026-11-21T02:35:33Z",
    "updated_at": "2026-11-21T02:35:33Z",
}


@dataclass(frozen=True)
class Buckets:
    private: str
    public: str
    small: str
    models: str  # takes no pictures


@dataclass
class Desk:
    storage: ObjectStorage
    buckets: Buckets
    work: Path

    def file(self, content: bytes) -> Path:
        path = self.work / uuid4().hex
        path.write_bytes(content)
        return path

    def files(self) -> int:
        return len(list(self.work.iterdir()))

    async def put(self, key: str, content: bytes = b"content", *, bucket: str | None = None) -> None:
        source = self.file(content)
        try:
            await self.storage.upload(bucket or self.buckets.private, key, source, content_type="image/png")
        finally:
            source.unlink()

    async def get(self, key: str, *, bucket: str | None = None, max_bytes: int = PLENTY) -> bytes:
        target = self.work / uuid4().hex
        info = await self.storage.download(bucket or self.buckets.private, key, target, max_bytes=max_bytes)
        assert info.size == target.stat().st_size
        content = target.read_bytes()
        target.unlink()
        return content

    async def keys(self, prefix: str = "") -> list[str]:
        return [found.key async for found in self.storage.list(self.buckets.private, prefix=prefix)]


def storage_settings(url: str, service_key: str) -> Settings:
    return Settings.model_validate(
        {
            "supabase_url": url,
            "supabase_service_key": service_key,
            "database_url": "postgresql://nobody@localhost/unused",
            "redis_url": "redis://localhost",
            "openai_api_key": "sk-test",
            "tripo_api_key": "tsk_test",
        }
    )
