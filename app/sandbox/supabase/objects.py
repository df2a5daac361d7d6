"""Objects: rows of ``storage.objects`` under row-level security, bytes in files named after their version."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg

from app.sandbox.supabase.bodies import UploadBody
from app.sandbox.supabase.errors import (
    bucket_missing,
    invalid_key,
    key_exists,
    mime_refused,
    object_missing,
    policy_denies,
    too_large,
)
from app.sandbox.supabase.project import SERVICE, Caller, Project

_KEY = re.compile(r"^[A-Za-z0-9_/!\-.*'() &$@=;:+,?]+$")
GLOBAL_LIMIT = 5 * 1024**3


@dataclass(frozen=True, slots=True)
class Bucket:
    id: str
    public: bool
    limit: int
    mime_types: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class StoredObject:
    id: str
    bucket: str
    name: str
    version: str
    owner_id: str | None
    metadata: dict[str, Any]
    user_metadata: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime

    @property
    def size(self) -> int:
        return int(self.metadata["size"])


def check_key(key: str) -> str:
    if not _KEY.match(key) or any(part in ("", ".", "..") for part in key.split("/")):
        raise invalid_key(key)
    return key


class Objects:
    def __init__(self, project: Project) -> None:
        self._project = project
        self._root = project.objects
        self._root.mkdir(parents=True, exist_ok=True)

    async def bucket(self, name: str) -> Bucket:
        """Raises StorageRefusal when there is none."""
        row = await self._project.pool.fetchrow("select * from storage.buckets where id = $1", name)
        if row is None:
            raise bucket_missing()
        types = row["allowed_mime_types"]
        return Bucket(
            row["id"], row["public"], row["file_size_limit"] or GLOBAL_LIMIT, None if types is None else tuple(types)
        )

    async def find(self, caller: Caller, bucket: str, key: str) -> StoredObject:
        """The object, if the caller may see it. Raises StorageRefusal."""
        async with self._project.acting_as(caller) as connection:
            row = await connection.fetchrow(
                "select * from storage.objects where bucket_id = $1 and name = $2", bucket, key
            )
        if row is None:
            raise object_missing()
        return _object(row)

    def path(self, stored: StoredObject) -> Path:
        return self._root / stored.bucket / stored.version

    @asynccontextmanager
    async def incoming(self, bucket: str) -> AsyncGenerator[Path]:
        """A file to receive bytes into; gone afterwards unless ``store`` took it."""
        directory = self._root / bucket
        directory.mkdir(exist_ok=True)
        path = directory / f"incoming-{uuid4().hex}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    async def store(
        self, caller: Caller, bucket: Bucket, key: str, received: Path, body: UploadBody, *, overwrite: bool
    ) -> StoredObject:
        """Make the received bytes the object. The unique index decides between racing creators."""
        if body.size > bucket.limit:
            raise too_large()
        _check_mime(bucket, body.content_type)
        etag = await asyncio.to_thread(_md5, received)
        version = str(uuid4())
        metadata = {
            "eTag": f'"{etag}"',
            "size": body.size,
            "mimetype": body.content_type,
            "cacheControl": body.cache_control,
            "lastModified": _iso(datetime.now(UTC)),
            "contentLength": body.size,
            "httpStatusCode": 200,
        }
        final = self._root / bucket.id / version
        try:
            async with self._project.acting_as(caller) as connection:
                old = await self._old_version(connection, bucket.id, key) if overwrite else None
                row = await self._write(connection, caller, bucket.id, key, version, metadata, body, old=old)
                # inside the transaction: a committed row always has its bytes
                await asyncio.to_thread(received.rename, final)
        except asyncpg.UniqueViolationError:
            raise key_exists() from None
        except asyncpg.InsufficientPrivilegeError:
            raise policy_denies() from None
        except BaseException:
            final.unlink(missing_ok=True)
            raise
        if old is not None:
            (self._root / bucket.id / old).unlink(missing_ok=True)
        return _object(row)

    @staticmethod
    async def _old_version(connection: asyncpg.pool.PoolConnectionProxy, bucket: str, key: str) -> str | None:
        return await connection.fetchval(
            "select version from storage.objects where bucket_id = $1 and name = $2 for update", bucket, key
        )

    @staticmethod
    async def _write(
        connection: asyncpg.pool.PoolConnectionProxy,
        caller: Caller,
        bucket: str,
        key: str,
        version: str,
        metadata: dict[str, Any],
        body: UploadBody,
        *,
        old: str | None,
    ) -> asyncpg.Record:
        user_metadata = None if body.metadata is None else json.dumps(body.metadata)
        if old is not None:
            row = await connection.fetchrow(
                "update storage.objects set version = $3, metadata = $4, user_metadata = $5, updated_at = now()"
                " where bucket_id = $1 and name = $2 returning *",
                bucket,
                key,
                version,
                json.dumps(metadata),
                user_metadata,
            )
            if row is None:
                raise policy_denies()
            return row
        row = await connection.fetchrow(
            "insert into storage.objects (bucket_id, name, owner, owner_id, version, metadata, user_metadata)"
            " values ($1, $2, $3::text::uuid, $3, $4, $5, $6) returning *",
            bucket,
            key,
            caller.user_id,
            version,
            json.dumps(metadata),
            user_metadata,
        )
        assert row is not None  # noqa: S101 - an insert returns its row or raises
        return row

    async def remove(self, caller: Caller, bucket: str, keys: list[str]) -> list[dict[str, Any]]:
        """Remove what exists and is the caller's to remove; the rows that went."""
        async with self._project.acting_as(caller) as connection:
            rows = await connection.fetch(
                "delete from storage.objects where bucket_id = $1 and name = any($2) returning *", bucket, keys
            )
        for row in rows:
            (self._root / bucket / row["version"]).unlink(missing_ok=True)
        return [row_json(_object(row)) for row in rows]

    async def copy(
        self, caller: Caller, source: StoredObject, bucket: Bucket, key: str, *, overwrite: bool
    ) -> StoredObject:
        body = UploadBody(
            source.size, source.metadata["mimetype"], source.metadata["cacheControl"], source.user_metadata
        )
        async with self.incoming(bucket.id) as path:
            await asyncio.to_thread(path.hardlink_to, self.path(source))
            return await self.store(caller, bucket, key, path, body, overwrite=overwrite)

    async def below(
        self, caller: Caller, bucket: str, prefix: str, *, after: str | None = None, limit: int | None = None
    ) -> list[StoredObject]:
        """Visible objects whose name starts with ``prefix``, in name order."""
        async with self._project.acting_as(caller) as connection:
            rows = await connection.fetch(
                "select * from storage.objects where bucket_id = $1 and starts_with(name, $2)"
                " and ($3::text is null or name > $3) order by name limit $4",
                bucket,
                prefix,
                after,
                limit,
            )
        return [_object(row) for row in rows]


def row_json(stored: StoredObject) -> dict[str, Any]:
    """A row as remove and copy show it."""
    return {
        "name": stored.name,
        "bucket_id": stored.bucket,
        "owner": stored.owner_id or "",
        "owner_id": stored.owner_id,
        "version": stored.version,
        "id": stored.id,
        "updated_at": _iso(stored.updated_at),
        "created_at": _iso(stored.created_at),
        "last_accessed_at": _iso(stored.created_at),
        "metadata": stored.metadata,
    }


def iso(moment: datetime) -> str:
    return _iso(moment)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _md5(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "md5").hexdigest()


def _check_mime(bucket: Bucket, content_type: str) -> None:
    kind = content_type.partition(";")[0].strip()
    if bucket.mime_types is None or any(
        allowed in (kind, "*/*") or (allowed.endswith("/*") and kind.startswith(allowed[:-1]))
        for allowed in bucket.mime_types
    ):
        return
    raise mime_refused(kind)


def _object(row: asyncpg.Record) -> StoredObject:
    return StoredObject(
        id=str(row["id"]),
        bucket=row["bucket_id"],
        name=row["name"],
        version=row["version"],
        owner_id=row["owner_id"],
        metadata=json.loads(row["metadata"]),
        user_metadata=None if row["user_metadata"] is None else json.loads(row["user_metadata"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


__all__ = ["SERVICE", "Bucket", "Objects", "StoredObject", "check_key", "iso", "row_json"]
