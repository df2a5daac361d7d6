"""Applies ``app/migrations`` in order, and keeps their history in ``makeit3d.migrations``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from app.db import storage_policies
from app.db.sql import load
from app.errors import ConfigurationError

MIGRATIONS = Path(__file__).resolve().parents[1] / "migrations"
_NAME = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")
_SQL = load(__file__)
HAS_HISTORY, APPLIED = _SQL["has_history"], _SQL["applied_migrations"]


@dataclass(frozen=True, slots=True)
class Migration:
    version: str
    name: str
    script: str

    @property
    def title(self) -> str:
        return f"{self.version}_{self.name}"

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.script.encode()).hexdigest()


def migration_files(directory: Path = MIGRATIONS) -> list[Migration]:
    """Every migration, oldest first. Raises ValueError for a file that is misnamed, and for a number used twice."""
    found: dict[str, Migration] = {}
    for path in sorted(directory.glob("*.sql")):
        match = _NAME.match(path.name)
        if match is None:
            raise ValueError(f"{path.name}: a migration is named <NNNN>_<name>.sql")
        if match[1] in found:
            raise ValueError(f"{path.name}: the number {match[1]} is taken by {found[match[1]].title}")
        found[match[1]] = Migration(match[1], match[2], path.read_text(encoding="utf-8"))
    return list(found.values())


def changed_since(applied: Mapping[str, str], files: Sequence[Migration]) -> list[str]:
    """Titles of the files that differ from what was applied under their number (version → checksum)."""
    return [file.title for file in files if applied.get(file.version, file.checksum) != file.checksum]


async def pending(dsn: str, directory: Path = MIGRATIONS) -> list[str]:
    """Titles of the migrations that the database lacks; changes nothing. Raises as ``migrate`` does."""
    connection = await asyncpg.connect(dsn)
    try:
        applied = await _applied(connection) if await connection.fetchval(HAS_HISTORY.text) else {}
    finally:
        await connection.close()
    return [file.title for file in _missing(applied, migration_files(directory))]


async def policies_to_make(dsn: str, buckets: Sequence[str]) -> list[str]:
    """SQL of the policies on Storage's objects that are missing, because the migrating role may not make them."""
    connection = await asyncpg.connect(dsn)
    try:
        return [row["statement"] for row in await connection.fetch(storage_policies.MISSING.text, list(buckets))]
    finally:
        await connection.close()


async def migrate(dsn: str, directory: Path = MIGRATIONS) -> list[str]:
    """Apply what is missing, each file in a transaction of its own; returns the titles applied. Raises
    ConfigurationError, before anything is applied, where a file was changed after it was applied.

    ``dsn`` is a direct or session-pooled connection (not a transaction pooler) of the tables' owner.
    """
    connection = await asyncpg.connect(dsn, server_settings={"application_name": "makeit3d migrate"})
    applied: list[str] = []
    try:
        await connection.execute(_SQL["lock_migrations"].text)
        if not await connection.fetchval(_SQL["has_schema"].text):
            await connection.execute(_SQL["make_schema"].text)
        if not await connection.fetchval(HAS_HISTORY.text):
            await connection.execute(_SQL["make_history"].text)
        for file in _missing(await _applied(connection), migration_files(directory)):
            async with connection.transaction():
                await connection.execute(_SQL["bound_lock_waits"].text)
                await connection.execute(file.script)
                await connection.execute(_SQL["record_migration"].text, file.version, file.name, file.checksum)
            applied.append(file.title)
    finally:
        await connection.close()
    return applied


async def _applied(connection: asyncpg.Connection) -> dict[str, str]:
    return {row["version"]: row["checksum"] for row in await connection.fetch(APPLIED.text)}


def _missing(applied: Mapping[str, str], files: Sequence[Migration]) -> list[Migration]:
    if changed := changed_since(applied, files):
        raise ConfigurationError(
            f"{', '.join(changed)}: the file is not the one that was applied to this database. Migrations go forward"
            " only: restore the file, and put the change into a new one."
        )
    return [file for file in files if file.version not in applied]
