"""Applies ``supabase/migrations`` in order and writes the same history table as the Supabase CLI."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from app.db import storage_policies

MIGRATIONS = Path(__file__).resolve().parents[2] / "supabase" / "migrations"
_NAME = re.compile(r"^(\d{14})_([a-z0-9_]+)\.sql$")
_LOCK = 0x6D616B65  # one runner at a time

_HISTORY = """
create schema if not exists supabase_migrations;
create table if not exists supabase_migrations.schema_migrations (
  version text primary key, statements text[], name text
);
"""


def migration_files(directory: Path = MIGRATIONS) -> list[tuple[str, str, Path]]:
    """(version, name, path) of every migration, oldest first. Raises ValueError for a file that is misnamed."""
    found: list[tuple[str, str, Path]] = []
    for path in sorted(directory.glob("*.sql")):
        match = _NAME.match(path.name)
        if match is None:
            raise ValueError(f"{path.name}: a migration is named <YYYYMMDDHHMMSS>_<name>.sql")
        found.append((match[1], match[2], path))
    return found


async def pending(dsn: str, directory: Path = MIGRATIONS) -> list[str]:
    """Names of the migrations that the database lacks; changes nothing."""
    connection = await asyncpg.connect(dsn)
    try:
        if await connection.fetchval("select to_regclass('supabase_migrations.schema_migrations')") is None:
            applied: set[str] = set()
        else:
            rows = await connection.fetch("select version from supabase_migrations.schema_migrations")
            applied = {row["version"] for row in rows}
    finally:
        await connection.close()
    return [path.stem for version, _, path in migration_files(directory) if version not in applied]


async def policies_to_make(dsn: str, buckets: Sequence[str]) -> list[str]:
    """SQL of the policies on Storage's objects that are missing, because the migrating role may not make them."""
    connection = await asyncpg.connect(dsn)
    try:
        return storage_policies.statements(await connection.fetch(storage_policies.MISSING, list(buckets)))
    finally:
        await connection.close()


async def migrate(dsn: str, directory: Path = MIGRATIONS) -> list[str]:
    """Apply what is missing, each file in a transaction of its own; returns the names applied.

    ``dsn`` is a direct or session-pooled connection (not a transaction pooler) of the tables' owner.
    """
    connection = await asyncpg.connect(dsn, server_settings={"application_name": "makeit3d migrate"})
    applied: list[str] = []
    try:
        await connection.execute("select pg_advisory_lock($1)", _LOCK)
        await connection.execute(_HISTORY)
        rows = await connection.fetch("select version from supabase_migrations.schema_migrations")
        known = {row["version"] for row in rows}
        for version, name, path in migration_files(directory):
            if version in known:
                continue
            script = path.read_text(encoding="utf-8")
            async with connection.transaction():
                await connection.execute(script)
                await connection.execute(
                    "insert into supabase_migrations.schema_migrations (version, statements, name) values ($1, $2, $3)",
                    version,
                    [script],
                    name,
                )
            applied.append(path.stem)
    finally:
        await connection.close()
    return applied
