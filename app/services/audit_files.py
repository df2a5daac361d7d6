"""The bucket of results against the manifest: nothing lies there that no row owns, and nothing is missing or cut.

Inputs are left out: their users may replace and delete them in Storage.
"""

from __future__ import annotations

import hashlib
import tempfile
from asyncio import to_thread
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.config import Settings
from app.db.audit import checks, files
from app.db.audit.files import ManifestRow
from app.db.pool import Database
from app.domain.audit import Area, Difference, Findings, Invariant
from app.storage.base import ListedObject, ObjectNotFound, ObjectStorage

_OWNERS = ("projects", "spaces")  # before the folders of kinds
_PAGE = 1000


def _files(name: str, rule: str, remedy: str) -> Invariant:
    return Invariant(name, Area.FILES, rule, remedy, passing=True)


OBJECT_HAS_ROW = _files(
    "object_has_row",
    "every object under our prefixes has a row of the manifest",
    "nobody owns the object: find out who put it there, then remove it",
)
ROW_HAS_OBJECT = _files(
    "row_has_object",
    "every stored file lies in the bucket with its size",
    "the client sees a broken link or a cut file: restore the object from a backup",
)
DIGEST = _files(
    "digest",
    "every stored file has the content that was stored",
    "the object was changed in the bucket: restore it from a backup",
)


@dataclass(frozen=True, slots=True)
class BucketAudit:
    database: Database
    storage: ObjectStorage
    settings: Settings

    async def run(self, *, deep: bool, again: Callable[[], Awaitable[None]] | None = None) -> Findings:
        """``deep`` downloads every file and compares digests. What differs is looked at twice, as uploads and removals
        go on meanwhile; ``again`` is awaited in between. Raises StorageError."""
        bucket = self.settings.generated_assets_bucket_name
        findings = Findings(checks=[OBJECT_HAS_ROW, ROW_HAS_OBJECT, *([DIGEST] if deep else [])])
        if not deep:
            findings.notes.append("files were compared by size; --deep reads every one and compares digests")
        rows = await self._manifest(bucket)
        suspects: set[str] = set()
        async for page in self._pages(bucket):
            findings.rows += len(page)
            for item in page:
                row = rows.pop(item.key, None)
                if row is None or not await self._agrees(bucket, row, item.size, deep=deep):
                    suspects.add(item.key)
        suspects |= {row.key for row in rows.values() if row.state == "stored"}
        findings.rows += len(rows)
        if suspects and again is not None:
            await again()
        keys = sorted(suspects)
        for start in range(0, len(keys), _PAGE):
            findings.differences += await self._differences(bucket, keys[start : start + _PAGE], deep=deep)
        return findings

    async def _manifest(self, bucket: str) -> dict[str, ManifestRow]:
        async with checks.snapshot(self.database) as connection:
            return {row.key: row async for row in files.manifest(connection, bucket)}

    async def _pages(self, bucket: str) -> AsyncGenerator[list[ListedObject]]:
        for folder in (*self.database.tables.kinds.folders, *_OWNERS):
            page: list[ListedObject] = []
            async for item in self.storage.list(bucket, prefix=f"{folder}/"):
                page.append(item)
                if len(page) == _PAGE:
                    yield page
                    page = []
            yield page

    async def _differences(self, bucket: str, keys: Sequence[str], *, deep: bool) -> list[Difference]:
        """A second look at keys that did not agree: rows and objects as they are now."""
        rows = await files.by_keys(self.database, bucket, keys)
        found: list[Difference] = []
        for key in keys:
            row, size = rows.get(key), await self._size(bucket, key)
            if row is None:
                if size is not None:
                    found.append(Difference(OBJECT_HAS_ROW, {"key": key}, f"{size} bytes that no row owns"))
            elif row.state == "stored" and size != row.size:
                is_there = "it is not there" if size is None else f"{size} bytes lie there"
                ids = {"file": str(row.id), "key": key}
                found.append(Difference(ROW_HAS_OBJECT, ids, f"row says {row.size} bytes, {is_there}"))
            elif deep and row.state == "stored" and not await self._digest_is(bucket, row):
                ids = {"file": str(row.id), "key": key}
                found.append(Difference(DIGEST, ids, f"its content is not {row.sha256}"))
        return found

    async def _agrees(self, bucket: str, row: ManifestRow, size: int, *, deep: bool) -> bool:
        if row.state != "stored":
            return True
        return row.size == size and (not deep or await self._digest_is(bucket, row))

    async def _size(self, bucket: str, key: str) -> int | None:
        try:
            return (await self.storage.info(bucket, key)).size
        except ObjectNotFound:
            return None

    async def _digest_is(self, bucket: str, row: ManifestRow) -> bool:
        with tempfile.TemporaryDirectory(prefix="makeit3d-audit-") as directory:
            target = Path(directory) / "object"
            try:
                await self.storage.download(bucket, row.key, target, max_bytes=(row.size or 0) + 1)
            except ObjectNotFound:
                return False
            return await to_thread(_sha256, target) == row.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
