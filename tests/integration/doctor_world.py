"""A healthy gateway for the doctor to look at: real servers, the sandbox, and the traces of live workers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
from app.ai_clients.registry import pools
from app.config import Settings
from app.db import pools as pool_rows
from app.db.pool import Database
from app.db.workers import WorkerIdentity, renew
from app.embedded.valkey import EmbeddedValkey
from app.services.doctor.examination import Group, examine
from app.services.doctor.findings import Finding
from app.services.doctor.rounds import GROUPS
from app.tasks.worker import LANES_OF
from pydantic import SecretStr

from tests.integration.factories import settings_for
from tests.sandbox_process import SandboxProcess, running_sandbox
from tests.servers import PostgresServer

PATIENCE = 60.0  # seconds; the machine may be busy


def examined(settings: Settings, groups: Sequence[Group[Any]] = GROUPS) -> list[Finding]:
    """Everything that the doctor finds."""

    async def run() -> list[Finding]:
        return [f async for seen in examine(settings, groups, patience_seconds=PATIENCE) for f in seen.findings]

    return asyncio.run(run())


def codes(settings: Settings, groups: Sequence[Group[Any]] = GROUPS) -> list[str]:
    return [finding.code.value.code for finding in examined(settings, groups)]


def run_sql(dsn: str, *statements: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


@dataclass
class World:
    """What the doctor finds healthy. ``dsn`` is copied for every plant that spoils a database."""

    settings: Settings
    dsn: str
    postgres: PostgresServer
    sandbox: SandboxProcess
    valkey: EmbeddedValkey

    @contextlib.contextmanager
    def spoilt_database(self, *statements: str) -> Generator[Settings]:
        with self.postgres.fresh_database(template=self.dsn.partition("?")[0].rpartition("/")[2]) as dsn:
            run_sql(dsn, *statements)
            yield self.settings.model_copy(update={"database_url": SecretStr(dsn)})

    def storage(self, method: str, path: str, body: dict[str, Any]) -> None:
        key = self.settings.supabase_service_key.get_secret_value()
        url = f"{self.settings.supabase_url}/storage/v1{path}"
        httpx.request(method, url, json=body, headers={"Authorization": f"Bearer {key}"}).raise_for_status()

    def admin(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:  # noqa: ANN401 - JSON
        headers = {"X-Admin-Key": self.sandbox.settings.admin_key.get_secret_value()}
        answer = httpx.request(method, f"{self.sandbox.url}/admin{path}", json=body, headers=headers)
        answer.raise_for_status()
        return answer.json() if answer.content else None


@contextlib.contextmanager
def healthy_world(postgres: PostgresServer, valkey: EmbeddedValkey, home: Path) -> Generator[World]:
    with (
        postgres.fresh_database() as dsn,
        postgres.fresh_database() as project,
        running_sandbox(project, home) as sandbox,
    ):
        settings = settings_for(
            dsn,
            home,
            supabase_url=sandbox.supabase_url,
            supabase_service_key=sandbox.settings.supabase_service_key,
            openai_api_key=sandbox.settings.openai_api_key,
            openai_base_url=f"{sandbox.url}/openai/v1",
            tripo_api_key=sandbox.settings.tripo_api_key,
            tripo_base_url=f"{sandbox.url}/tripo/v3",
            redis_url=SecretStr(valkey.url()),
        )
        world = World(settings, dsn, postgres, sandbox, valkey)
        world.storage("POST", "/bucket", {"name": settings.generated_assets_bucket_name, "public": True})
        world.storage("POST", "/bucket", {"name": settings.input_bucket_names[0], "public": False})
        asyncio.run(_move_in(settings))
        yield world


async def _move_in(settings: Settings) -> None:
    """What running processes leave in the database: pools, and a worker per lane that is good for a day."""
    database = await Database.open(settings, application_name="makeit3d test")
    try:
        await pool_rows.ensure(database, {name: (p.provider, p.slots) for name, p in pools(settings).items()})
        for lane, lanes in LANES_OF.items():
            worker = WorkerIdentity(uuid4(), lane, "here", 1, lanes, 5, version("makeit3d-bff"))
            await renew(database, worker, stopping=False)
        await database.execute("update workers set seen_at = now() + interval '1 day'")
    finally:
        await database.close()
