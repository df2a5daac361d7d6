"""What the doctor asks the database. Nothing is written."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import uuid4

import asyncpg

from app.db.migrate import migration_files
from app.db.pool import Database
from app.domain.jobs import LANES

INTERNAL_TABLES = (
    *("requests", "pools", "providers", "workers", "jobs", "provider_calls", "files", "events"),
    *("pool_tags", "user_tags"),
)
READABLE_TABLES = ("tasks",)  # by their owners, beside the asset tables

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
    "source_input_asset_id": "uuid",
    "source_concept_image_id": "uuid",
    "ai_service_task_id": "text",
    "request_id": "uuid",
    "job_id": "uuid",
    "number": "integer",
    "preview_url": "text",
}
_PICTURE = {"width": "integer", "height": "integer"}

# column → type of the three asset tables
INPUT_COLUMNS: Mapping[str, str] = {**_ASSET, **_PICTURE, "input_asset_type": "text"}
CONCEPT_COLUMNS: Mapping[str, str] = {**_ASSET, **_MADE, **_PICTURE}
MODEL_COLUMNS: Mapping[str, str] = {**_ASSET, **_MADE, "source_model_id": "uuid", "kind": "text"}


@dataclass(frozen=True, slots=True)
class Server:
    version: str
    version_number: int
    read_only: bool
    max_connections: int
    clock: float  # epoch seconds


_SERVER = """
select current_setting('server_version') as version, current_setting('server_version_num')::integer as version_number,
  pg_is_in_recovery() or current_setting('transaction_read_only') = 'on' as read_only,
  current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
    as max_connections,
  extract(epoch from clock_timestamp())::float8 as clock
"""


async def server(database: Database) -> Server:
    row = await database.fetchrow(_SERVER)
    assert row is not None  # noqa: S101 - a select without a from
    return Server(**dict(row))


@dataclass(frozen=True, slots=True)
class History:
    """Migrations that this code has and the database lacks, and those of our tables that this code does not know."""

    migrated: bool
    missing: tuple[str, ...]
    unknown: tuple[str, ...]


async def is_migrated(database: Database) -> bool:
    """Whether our tables are there at all."""
    return await database.fetchval("select to_regclass('public.jobs') is not null")


async def history(database: Database) -> History:
    migrated = await is_migrated(database)
    if not await database.fetchval("select to_regclass('supabase_migrations.schema_migrations') is not null"):
        return History(migrated, (), ())  # applied by hand
    files = {version: path.stem for version, _, path in migration_files()}
    try:
        rows = await database.fetch(
            "select version, name, case when version > $1 then array_to_string(statements, ' ') end as script"
            " from supabase_migrations.schema_migrations order by version",
            max(files, default=""),
        )
    except asyncpg.InsufficientPrivilegeError:
        return History(migrated, (), ())  # not for this role to see
    applied = {row["version"] for row in rows}
    # an app keeps its own migrations in the same history
    ours = re.compile(rf"\b(?:{'|'.join((*INTERNAL_TABLES, *READABLE_TABLES, *_assets(database)))})\b")
    return History(
        migrated,
        missing=tuple(name for version, name in files.items() if version not in applied),
        unknown=tuple(f"{row['version']}_{row['name']}" for row in rows if ours.search(row["script"] or "")),
    )


async def columns(database: Database, table: str) -> dict[str, str] | None:
    """Type by column of a table in ``public``; None without such a table."""
    rows = await database.fetch(
        "select a.attname as name, format_type(a.atttypid, null) as type from pg_attribute a"
        " where a.attrelid = to_regclass(format('public.%I', $1::text)) and a.attnum > 0 and not a.attisdropped",
        table,
    )
    return {row["name"]: row["type"] for row in rows} or None


_RIGHTS = """
select c.relname as name, c.relrowsecurity as row_security, row_security_active(c.oid) as hidden_rows,
  has_table_privilege(c.oid, 'select') and has_table_privilege(c.oid, 'insert')
    and has_table_privilege(c.oid, 'update') and has_table_privilege(c.oid, 'delete') as ours,
  coalesce((select bool_or(has_table_privilege(r.oid, c.oid, 'select')) from pg_roles r
    where r.rolname = 'authenticated'), true) as users_read,
  coalesce((select string_agg(distinct p.name, ' ' order by p.name) from pg_roles r,
    unnest(array['insert', 'update', 'delete', 'truncate']) as p(name)
    where r.rolname in ('anon', 'authenticated') and has_table_privilege(r.oid, c.oid, p.name)), '') as browsers_write,
  coalesce((select bool_or(has_table_privilege(r.oid, c.oid, 'select')) from pg_roles r
    where r.rolname in ('anon', 'authenticated')), false) as browsers_read
from pg_class c where c.oid = any(select to_regclass(format('public.%I', n)) from unnest($1::text[]) as n)
order by c.relname
"""


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
    names = [*INTERNAL_TABLES, *READABLE_TABLES, *_assets(database)]
    return [Rights(**dict(row)) for row in await database.fetch(_RIGHTS, names)]


async def unpublished(database: Database) -> list[str] | None:
    """Asset tables that Realtime does not publish; None where there is no publication at all."""
    if not await database.fetchval("select exists (select from pg_publication where pubname = 'supabase_realtime')"):
        return None
    rows = await database.fetch(
        "select n as name from unnest($1::text[]) as n where to_regclass(format('public.%I', n)) is not null"
        " and not exists (select from pg_publication_tables where pubname = 'supabase_realtime'"
        " and schemaname = 'public' and tablename = n) order by n",
        _assets(database),
    )
    return [row["name"] for row in rows]


def _assets(database: Database) -> list[str]:
    tables = database.tables
    return [tables.inputs, tables.concepts, tables.models]


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
        await database.execute("select pg_notify($1, '')", channel)
        async with asyncio.timeout(seconds):
            await heard.wait()
    except TimeoutError:
        return False
    finally:
        listener.terminate()
    return True


async def lanes_served(database: Database, *, worker_ttl_seconds: float) -> dict[str, int]:
    """Live worker processes by lane that still take work."""
    rows = await database.fetch(
        "select l.name, count(w.id) as alive from unnest($1::text[]) as l(name) left join workers w"
        " on l.name = any(w.lanes) and not w.stopping and w.seen_at > now() - make_interval(secs => $2)"
        " group by l.name order by l.name",
        list(LANES),
        worker_ttl_seconds,
    )
    return {row["name"]: row["alive"] for row in rows}


async def job_types_unserved(database: Database, *, worker_ttl_seconds: float) -> dict[str, int]:
    """Queued jobs by type, of the types that no live worker handles; empty where no worker lives at all. A worker of an
    older version does not say what it handles."""
    rows = await database.fetch(
        "with live as ("
        "  select job_types from workers where not stopping and seen_at > now() - make_interval(secs => $1)"
        ") select j.type, count(*) as jobs from jobs j where j.status = 'queued' and exists (select from live)"
        " and not exists (select from live where j.type = any(live.job_types) or live.job_types = '{}')"
        " group by j.type order by j.type",
        worker_ttl_seconds,
    )
    return {row["type"]: row["jobs"] for row in rows}


async def workers_of_other_versions(database: Database, version: str, *, worker_ttl_seconds: float) -> list[str]:
    """``name (version)`` of live workers."""
    rows = await database.fetch(
        "select name, version from workers where version <> $1 and not stopping"
        " and seen_at > now() - make_interval(secs => $2) order by name",
        version,
        worker_ttl_seconds,
    )
    return [f"{row['name']} ({row['version'] or 'an older one'})" for row in rows]


async def live_workers(database: Database, *, worker_ttl_seconds: float) -> int:
    return await database.fetchval(
        "select count(*) from workers where seen_at > now() - make_interval(secs => $1)", worker_ttl_seconds
    )


async def slots(database: Database) -> dict[str, int]:
    """Slots by pool, as the last process to start wrote them."""
    return {row["name"]: row["slots"] for row in await database.fetch("select name, slots from pools")}


_SOME_ROWS = 1000


async def has_links(database: Database, prefix: str) -> bool:
    """Whether some of the finished results have a link that begins like this."""
    tables = " union all ".join(
        f"(select asset_url from {table} where status = 'complete' limit {_SOME_ROWS})"  # noqa: S608 - identifiers
        for table in (database.tables.concepts, database.tables.models)
    )
    return await database.fetchval(
        f"select exists (select from ({tables}) r where starts_with(r.asset_url, $1))",  # noqa: S608 - as above
        prefix,
    )
