"""Objects: rows of ``storage.objects`` under row-level security, bytes in files named after their version."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID, uuid4

import asyncpg

from app.sandbox.supabase.bodies import Upload, UploadBody
from app.sandbox.supabase.errors import (
    StorageRefusal,
    bucket_missing,
    invalid_bucket_name,
    invalid_key,
    key_exists,
    mime_refused,
    moved_onto_existing,
    object_missing,
    policy_denies,
    related_missing,
    too_large,
)
from app.sandbox.supabase.project import SERVICE, Caller, Connection, Project

_BUCKET = re.compile(r"[A-Za-z0-9_!\-.*'() &$@=;:+,?]{1,100}")
_EMPTY_FOLDER = ".emptyFolderPlaceholder"  # how the dashboard keeps a folder; it holds nothing
_KEY = re.compile(r"[A-Za-z0-9_/!\-.*'() &$@=;:+,?]{1,1024}")


@dataclass(frozen=True, slots=True)
class Bucket:
    id: str
    public: bool
    limit: int
    mime_types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoredObject:
    id: str
    bucket: str
    name: str
    version: str
    owner: str | None
    owner_id: str | None
    metadata: dict[str, Any]
    user_metadata: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime
    last_accessed_at: datetime

    @classmethod
    def of(cls, row: asyncpg.Record) -> StoredObject:
        return cls(
            id=str(row["id"]),
            bucket=row["bucket_id"],
            name=row["name"],
            version=row["version"] or "",
            owner=None if row["owner"] is None else str(row["owner"]),
            owner_id=row["owner_id"],
            metadata=json.loads(row["metadata"] or "{}"),
            user_metadata=None if row["user_metadata"] is None else json.loads(row["user_metadata"]),
            created_at=row["created_at"],
            updated_at=row["updated_at"],
            last_accessed_at=row["last_accessed_at"],
        )

    def times(self) -> dict[str, str]:
        return {
            "updated_at": iso(self.updated_at),
            "created_at": iso(self.created_at),
            "last_accessed_at": iso(self.last_accessed_at),
        }

    def row_json(self) -> dict[str, Any]:
        """As remove and copy show it."""
        return {
            "name": self.name,
            "bucket_id": self.bucket,
            "owner": self.owner or "",
            "owner_id": self.owner_id or "",
            "version": self.version,
            "id": self.id,
            **self.times(),
            "metadata": self.metadata,
            "user_metadata": self.user_metadata,
        }


@dataclass(frozen=True, slots=True)
class _Draft:
    """What a write would put into the row."""

    bucket: str
    key: str
    owner: str | None
    version: str = "0"
    metadata: str = "{}"
    user_metadata: str | None = None


def check_bucket_name(name: str) -> str:
    """Raises StorageRefusal."""
    if not _BUCKET.fullmatch(name) or not name.strip(".") or name != name.strip():
        raise invalid_bucket_name()
    return name


def check_key(key: str) -> str:
    """Raises StorageRefusal."""
    if not _KEY.fullmatch(key) or any(part in (".", "..") for part in key.split("/")):
        raise invalid_key(key)
    return key


class Objects:
    def __init__(self, project: Project) -> None:
        self._project = project
        self._root = project.objects

    def open_store(self) -> None:
        """Make the directory; drop what an earlier process was still receiving."""
        self._root.mkdir(parents=True, exist_ok=True)
        for leftover in self._root.glob("*/incoming-*"):
            leftover.unlink()

    async def bucket(self, name: str) -> Bucket:
        """Raises StorageRefusal when there is none."""
        check_bucket_name(name)
        async with self._project.transaction() as connection:
            row = await connection.fetchrow("select * from storage.buckets where id = $1", name)
        if row is None:
            raise bucket_missing()
        types = row["allowed_mime_types"]
        limit, most = row["file_size_limit"], self._project.file_size_limit
        return Bucket(
            id=row["id"],
            public=row["public"],
            limit=most if limit is None else min(limit, most),
            mime_types=tuple(types or ()),
        )

    async def related_bucket(self, name: str) -> Bucket:
        """The bucket of a row that is to be written. Raises StorageRefusal when there is none."""
        try:
            return await self.bucket(name)
        except StorageRefusal:
            raise related_missing() from None

    async def find(self, caller: Caller, bucket: str, key: str) -> StoredObject:
        """The object, if the caller may see it. Raises StorageRefusal."""
        async with self._project.acting_as(caller) as connection:
            row = await connection.fetchrow(
                "select * from storage.objects where bucket_id = $1 and name = $2"
                " and version is not null and metadata is not null",
                bucket,
                key,
            )
        if row is None:
            raise object_missing() if key else invalid_key(key)
        return StoredObject.of(row)

    async def open(self, caller: Caller, bucket: str, key: str) -> tuple[StoredObject, BinaryIO]:
        """The object and its bytes, of one version. Raises StorageRefusal."""
        for _ in range(3):  # an overwrite may remove the version just found
            found = await self.find(caller, bucket, key)
            try:
                return found, self._path(found).open("rb")
            except FileNotFoundError:
                continue
        raise object_missing()

    def _path(self, stored: StoredObject) -> Path:
        return self._root / stored.bucket / stored.version

    @asynccontextmanager
    async def incoming(self, bucket: Bucket) -> AsyncGenerator[Path]:
        """A file to receive bytes into; gone afterwards unless ``store`` took it."""
        directory = self._root / bucket.id
        directory.mkdir(exist_ok=True)
        path = directory / f"incoming-{uuid4().hex}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    async def check_write(self, caller: Caller, bucket: Bucket, key: str, *, overwrite: bool) -> None:
        """Whether the write would be let through, before a byte of it is taken. Raises StorageRefusal."""
        draft = _Draft(bucket.id, key, caller.user_id)
        async with self._project.acting_as(caller) as connection:
            trial = connection.transaction()
            await trial.start()
            try:
                with _refusals(overwrite=overwrite):
                    await _write(connection, draft, overwrite=overwrite)
            finally:
                await trial.rollback()

    async def receive(
        self, caller: Caller, bucket: Bucket, key: str, upload: Upload, *, overwrite: bool, owner: str | None
    ) -> StoredObject:
        """Store an upload. Raises StorageRefusal, mostly before the content is read.

        As measured on Storage v1.70.6, ``overwrite`` is heeded only then: the last write replaces what it finds, as
        the service. Of creators at once several succeed, and the slowest one's bytes stay.
        """
        if key.rpartition("/")[2] == _EMPTY_FOLDER:
            bucket = replace(bucket, limit=0, mime_types=())
        _check_mime(bucket, upload.body.content_type)
        if upload.declared_bytes is not None and upload.declared_bytes > bucket.limit:
            raise too_large()
        upload.begin()
        check_key(key)
        await self.check_write(caller, bucket, key, overwrite=overwrite)
        async with self.incoming(bucket) as path:
            body = await upload.store(path, max_bytes=bucket.limit)
            return await self.store(SERVICE, bucket, key, path, body, overwrite=True, owner=owner)

    async def store(
        self,
        caller: Caller,
        bucket: Bucket,
        key: str,
        received: Path,
        body: UploadBody,
        *,
        overwrite: bool,
        owner: str | None,
    ) -> StoredObject:
        """Make the received bytes the object."""
        version = str(uuid4())
        metadata = {
            "eTag": body.etag,
            "size": body.size,
            "mimetype": body.content_type,
            "cacheControl": body.cache_control,
            "lastModified": iso(datetime.now(UTC)),
            "contentLength": body.size,
            "httpStatusCode": 200,
        }
        user_metadata = None if body.metadata is None else json.dumps(body.metadata)
        draft = _Draft(bucket.id, key, owner, version, json.dumps(metadata), user_metadata)
        final = self._root / bucket.id / version
        try:
            with _refusals(overwrite=overwrite):
                async with self._project.acting_as(caller) as connection:
                    row, old = await _write(connection, draft, overwrite=overwrite)
                    # inside the transaction: a committed row always has its bytes
                    await asyncio.to_thread(received.rename, final)
        except BaseException:
            final.unlink(missing_ok=True)
            raise
        self._discard(bucket.id, old)
        return StoredObject.of(row)

    async def remove(self, caller: Caller, bucket: str, keys: list[str]) -> list[StoredObject]:
        """Remove what exists and is the caller's to remove; what went."""
        async with self._project.acting_as(caller) as connection:
            rows = await connection.fetch(
                "delete from storage.objects where bucket_id = $1 and name = any($2::text[]) returning *", bucket, keys
            )
        for row in rows:
            self._discard(bucket, row["version"])
        return [StoredObject.of(row) for row in rows]

    async def empty(self, caller: Caller, bucket: str) -> None:
        async with self._project.acting_as(caller) as connection:
            rows = await connection.fetch("delete from storage.objects where bucket_id = $1 returning version", bucket)
        for row in rows:
            self._discard(bucket, row["version"])

    async def copy(
        self, caller: Caller, source: StoredObject, bucket: Bucket, key: str, body: UploadBody, *, overwrite: bool
    ) -> StoredObject:
        """The same bytes under another key, described by ``body``. Raises StorageRefusal."""
        body.size, body.etag = int(source.metadata["size"]), source.metadata["eTag"]
        async with self.incoming(bucket) as path:
            await asyncio.to_thread(path.hardlink_to, self._path(source))
            return await self.store(caller, bucket, key, path, body, overwrite=overwrite, owner=caller.user_id)

    async def move(self, caller: Caller, source: StoredObject, bucket: Bucket, key: str) -> None:
        """Another key for the same row. Raises StorageRefusal."""
        version = str(uuid4())
        final = self._root / bucket.id / version
        final.parent.mkdir(exist_ok=True)
        try:
            with _refusals(overwrite=False, exists=moved_onto_existing):
                async with self._project.acting_as(caller) as connection:
                    moved = await connection.fetchval(
                        "update storage.objects set bucket_id = $4, name = $5, version = $6, updated_at = now()"
                        " where bucket_id = $1 and name = $2 and version = $3 returning id",
                        source.bucket,
                        source.name,
                        source.version,
                        bucket.id,
                        key,
                        version,
                    )
                    if moved is None:
                        raise object_missing()
                    await asyncio.to_thread(final.hardlink_to, self._path(source))
        except BaseException:
            final.unlink(missing_ok=True)
            raise
        self._discard(source.bucket, source.version)

    async def is_there(self, bucket: str, key: str) -> bool:
        """Whether anybody may see it."""
        async with self._project.acting_as(SERVICE) as connection:
            return bool(
                await connection.fetchval(
                    "select true from storage.objects where bucket_id = $1 and name = $2", bucket, key
                )
            )

    def _discard(self, bucket: str, version: str | None) -> None:
        if version:
            (self._root / bucket / version).unlink(missing_ok=True)


@contextmanager
def _refusals(*, overwrite: bool, exists: Callable[[], StorageRefusal] = key_exists) -> Generator[None]:
    """Words for what the database says no to."""
    try:
        yield
    except asyncpg.UniqueViolationError:
        # an overwrite meets a row only when policies hide it from the caller
        raise (policy_denies() if overwrite else exists()) from None
    except asyncpg.InsufficientPrivilegeError:
        raise policy_denies() from None
    except asyncpg.ForeignKeyViolationError:
        raise bucket_missing() from None


async def _write(connection: Connection, draft: _Draft, *, overwrite: bool) -> tuple[asyncpg.Record, str | None]:
    """Insert the row or overwrite it; the new row and the version it replaced."""
    # writers of one key take turns, so that an overwrite knows whose bytes it replaces
    await connection.execute(
        "select pg_advisory_xact_lock(hashtextextended($1, 0))", f"storage:{draft.bucket}/{draft.key}"
    )
    values = (draft.bucket, draft.key, _uuid(draft.owner), draft.owner, draft.version, draft.metadata)
    if overwrite:
        old = await connection.fetchrow(
            "select version from storage.objects where bucket_id = $1 and name = $2 for update", draft.bucket, draft.key
        )
        if old is not None:
            row = await connection.fetchrow(
                "update storage.objects set owner = coalesce($3, owner), owner_id = coalesce($4, owner_id),"
                " version = $5, metadata = $6, user_metadata = $7, updated_at = now()"
                " where bucket_id = $1 and name = $2 returning *",
                *values,
                draft.user_metadata,
            )
            if row is None:
                raise policy_denies()
            return row, old["version"]
    row = await connection.fetchrow(
        "insert into storage.objects (bucket_id, name, owner, owner_id, version, metadata, user_metadata)"
        " values ($1, $2, $3, $4, $5, $6, $7) returning *",
        *values,
        draft.user_metadata,
    )
    if row is None:
        raise policy_denies()
    return row, None


def iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _uuid(owner: str | None) -> UUID | None:
    try:
        return None if owner is None else UUID(owner)
    except ValueError:
        return None


def _check_mime(bucket: Bucket, content_type: str) -> None:
    """By the letter: ``type/*`` or the very same text. ``*/*`` matches nothing."""
    kind, _, detail = content_type.partition("/")
    if not bucket.mime_types or f"{kind}/*" in bucket.mime_types or f"{kind}/{detail}" in bucket.mime_types:
        return
    raise mime_refused(content_type)


__all__ = ["Bucket", "Objects", "StoredObject", "check_bucket_name", "check_key", "iso"]
