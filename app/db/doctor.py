"""What the doctor asks the database. Nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import uuid4

import asyncpg

from app.db.asset_tables import AssetTables
from app.db.migrate import APPLIED, HAS_HISTORY, changed_since, migration_files
from app.db.pool import Database
from app.db.sql import load
from app.domain.asset_kinds import SOURCE_COLUMNS
from app.domain.jobs import LANES

_SQL = load(__file__)

INTERNAL_TABLES = (  # of schema makeit3d
    *("tasks", "requests", "pools", "providers", "workers", "jobs", "provider_calls", "files", "events"),
    *("pool_tags", "user_tags", "job_items", "task_dependencies"),
)

_ASSET = {
    "id": "uuid",
    "task_id": "text",
    "user_id": "uuid",
    "prompt": "text",
    "style": "text",
    "asset_url": "text",
    "status": "text",
    "created_at": "timestamp with time zone",
    "updated_at": "timestamp with time zone",
    "metadata": "jsonb",
    "file_id": "uuid",
    "error_code": "text",
    "error_message": "text",
}
_MADE = {
    "ai_service_task_id": "text",
    "request_id": "uuid",
    "job_id": "uuid",
    "number": "integer",
    "preview_url": "text",
}
_OPTIONAL = {**dict.fromkeys(SOURCE_COLUMNS, "uuid"), "kind": "text", "width": "integer", "height": "integer"}


def expected_columns(tables: AssetTables) -> dict[str, Mapping[str, str]]:
    """Type by column, by table of assets."""
    inputs = {**_ASSET, "input_asset_type": "text", "width": "integer", "height": "integer"}
    outputs = {
        table.actual: {**_ASSET, **_MADE, **{name: _OPTIONAL[name] for name in sorted(table.columns)}}
        for table in tables.outputs
    }
    return {tables.inputs: inputs, **outputs}


@dataclass(frozen=True, slots=True)
class Server:
    version: str
    version_number: int
    read_only: bool
    max_connections: int
    clock: float  # epoch seconds


async def server(database: Database) -> Server:
    row = await database.fetchrow(_SQL["server"])
    assert row is not None  # noqa: S101 - a select without a from
    return Server(**dict(row))


@dataclass(frozen=True, slots=True)
class History:
    """Migrations that this code has and the database lacks, those that this code does not know, and those whose file is
    not the one that was applied."""

    migrated: bool
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


async def is_migrated(database: Database) -> bool:
    """Whether our tables are there at all."""
    return await database.fetchval(_SQL["is_migrated"])


async def history(database: Database) -> History:
    migrated = await is_migrated(database)
    if not await database.fetchval(HAS_HISTORY):
        return History(migrated)  # applied by hand
    try:
        hidden = await database.fetchval(_SQL["history_is_hidden"])
        rows = await database.fetch(APPLIED)
    except asyncpg.InsufficientPrivilegeError:
        hidden, rows = True, []
    if hidden:
        return History(migrated)  # not for this role to see
    files = migration_files()
    applied = {row["version"]: row["checksum"] for row in rows}
    known = {file.version for file in files}
    return History(
        migrated,
        missing=tuple(file.title for file in files if file.version not in applied),
        unknown=tuple(f"{row['version']}_{row['name']}" for row in rows if row["version"] not in known),
        changed=tuple(changed_since(applied, files)),
    )


async def columns(database: Database, table: str) -> dict[str, str] | None:
    """Type by column of a table in ``public``; None without such a table."""
    rows = await database.fetch(_SQL["columns_of"], table=table)
    return {row["name"]: row["type"] for row in rows} or None


@dataclass(frozen=True, slots=True)
class Rights:
    """Who may do what with a table: we (``ours``, unless ``hidden_rows``), users, and browsers of any kind."""

    name: str
    row_security: bool
    hidden_rows: bool
    ours: bool
    users_read: bool
    browsers_write: str  # the rights, by name
    browsers_read: bool


async def rights(database: Database) -> list[Rights]:
    """Of every table of ours that exists."""
    rows = await database.fetch(_SQL["rights"], internal=list(INTERNAL_TABLES), assets=database.tables.names)
    return [Rights(**dict(row)) for row in rows]


async def unpublished(database: Database) -> list[str] | None:
    """Asset tables that Realtime does not publish; None where there is no publication at all."""
    if not await database.fetchval(_SQL["has_publication"]):
        return None
    rows = await database.fetch(_SQL["unpublished"], tables=database.tables.names)
    return [row["name"] for row in rows]


async def hears(database: Database, listen_dsn: str, *, seconds: int) -> bool:
    """Whether a notification sent through the pool reaches a listener on the other address. Raises what asyncpg
    raises."""
    channel = f"makeit3d_doctor_{uuid4().hex}"
    heard = asyncio.Event()

    def hear(*_: object) -> None:
        heard.set()

    listener = await asyncpg.connect(listen_dsn, timeout=seconds)
    try:
        await listener.add_listener(channel, hear)
        await database.execute(_SQL["notify_doctor"], channel=channel)
        async with asyncio.timeout(seconds):
            await heard.wait()
    except TimeoutError:
        return False
    finally:
        listener.terminate()
    return True


async def lanes_served(database: Database, *, worker_ttl_seconds: float) -> dict[str, int]:
    """Live worker processes by lane that still take work."""
    rows = await database.fetch(_SQL["lanes_served"], lanes=list(LANES), ttl_seconds=worker_ttl_seconds)
    return {row["name"]: row["alive"] for row in rows}


async def job_types_unserved(database: Database, *, worker_ttl_seconds: float) -> dict[str, int]:
    """Queued jobs by type, of the types that no live worker handles; empty where no worker lives at all. A worker of an
    older version does not say what it handles."""
    rows = await database.fetch(_SQL["job_types_unserved"], ttl_seconds=worker_ttl_seconds)
    return {row["type"]: row["jobs"] for row in rows}


async def workers_of_other_versions(database: Database, version: str, *, worker_ttl_seconds: float) -> list[str]:
    """``name (version)`` of live workers."""
    rows = await database.fetch(_SQL["workers_of_other_versions"], version=version, ttl_seconds=worker_ttl_seconds)
    return [f"{row['name']} ({row['version'] or 'an older one'})" for row in rows]


async def live_workers(database: Database, *, worker_ttl_seconds: float) -> int:
    return await database.fetchval(_SQL["live_workers"], ttl_seconds=worker_ttl_seconds)


async def slots(database: Database) -> dict[str, int]:
    """Slots by pool, as the last process to start wrote them."""
    return {row["name"]: row["slots"] for row in await database.fetch(_SQL["slots_of_pools"])}


async def has_links(database: Database, prefix: str) -> bool:
    """Whether some of the finished results have a link that begins like this."""
    return await database.fetchval(_SQL["has_links"], prefix=prefix)
