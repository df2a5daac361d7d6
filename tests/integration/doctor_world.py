"""A healthy gateway for the doctor to look at: real servers, the sandbox, and the traces of live workers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from app.config import Settings
from app.container import build_registry
from app.db import pools as pool_rows
from app.db.pool import Database
from app.db.workers import WorkerIdentity, renew
from app.embedded.valkey import EmbeddedValkey
from app.registry import Registry
from app.services.doctor.examination import Group, examine
from app.services.doctor.findings import Finding
from app.tasks.worker import LANES_OF
from pydantic import SecretStr

from tests.chaos.databases import run_sql
from tests.integration.factories import settings_for
from tests.kernel import ASSET_KINDS
from tests.loopback import loopback
from tests.sandbox_process import SandboxProcess, running_sandbox
from tests.servers import PostgresServer

REGISTRY = build_registry()
PATIENCE = 60.0  # seconds; the machine may be busy


def examined(
    settings: Settings, groups: Sequence[Group[Any]] = REGISTRY.doctor_groups, registry: Registry = REGISTRY
) -> list[Finding]:
    """Everything that the doctor finds."""

    async def run() -> list[Finding]:
        context = registry.check_context(settings)
        return [f async for seen in examine(context, groups, patience_seconds=PATIENCE) for f in seen.findings]

    return asyncio.run(run())


@dataclass
class World:
    """A gateway whose database the doctor finds healthy, with settings that name it."""

    settings: Settings
    postgres: PostgresServer

    @classmethod
    @contextlib.contextmanager
    def built(cls, postgres: PostgresServer, home: Path) -> Generator[World]:
        with postgres.fresh_database() as dsn:
            settings = settings_for(dsn, home)
            asyncio.run(_move_in(settings))
            yield cls(settings, postgres)

    @property
    def dsn(self) -> str:
        return self.settings.database_url.get_secret_value()

    def changed(self, **changes: Any) -> Settings:  # noqa: ANN401 - values of any field
        return type(self.settings).model_validate(self.settings.model_dump() | changes)

    def at(self, dsn: str) -> Settings:
        """With another database."""
        return self.changed(database_url=SecretStr(dsn))

    @contextlib.contextmanager
    def copied_database(self, *statements: str) -> Generator[str]:
        """The DSN of a copy of the healthy database, in which the statements were run."""
        with self.postgres.fresh_database(template=self.dsn.partition("?")[0].rpartition("/")[2]) as dsn:
            for statement in statements:
                run_sql(dsn, statement)
            yield dsn


@dataclass
class Outside:
    """What is around the database: a healthy broker, a sandbox for Supabase and the providers, and an API's address."""

    world: World
    sandbox: SandboxProcess
    valkey: EmbeddedValkey

    @classmethod
    @contextlib.contextmanager
    def built(cls, postgres: PostgresServer, valkey: EmbeddedValkey, home: Path) -> Generator[Outside]:
        with (
            World.built(postgres, home) as world,
            postgres.fresh_database() as project,
            running_sandbox(project, home, storage_file_size_limit=world.settings.max_model_bytes) as sandbox,
            answering({"/health/live": (200, {"status": "ok", "environment": "sandbox"})}) as api,
        ):
            world.settings = world.changed(
                supabase_url=sandbox.supabase_url,
                supabase_service_key=sandbox.settings.supabase_service_key,
                openai_api_key=sandbox.settings.openai_api_key,
                openai_base_url=f"{sandbox.url}/openai/v1",
                tripo_api_key=sandbox.settings.tripo_api_key,
                tripo_base_url=f"{sandbox.url}/tripo/v3",
                redis_url=SecretStr(valkey.url()),
                public_base_url=api,
            )
            outside = cls(world, sandbox, valkey)
            outside.bucket("POST", world.settings.generated_assets_bucket_name, public=True)
            outside.bucket("POST", world.settings.input_bucket_names[0], public=False)
            yield outside

    @property
    def settings(self) -> Settings:
        return self.world.settings

    def bucket(self, method: Literal["POST", "PUT"], name: str, **properties: Any) -> None:  # noqa: ANN401 - JSON
        """Make a bucket, or change one."""
        key = self.sandbox.settings.supabase_service_key.get_secret_value()
        url = f"{self.sandbox.supabase_url}/storage/v1/bucket{'' if method == 'POST' else f'/{name}'}"
        body = {"id": name, "name": name, **properties}
        loopback.request(method, url, json=body, headers={"Authorization": f"Bearer {key}"}).raise_for_status()

    def admin(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        """The sandbox's own interface."""
        headers = {"X-Admin-Key": self.sandbox.settings.admin_key.get_secret_value()}
        loopback.request(method, f"{self.sandbox.url}/admin{path}", json=body, headers=headers).raise_for_status()


@contextlib.contextmanager
def answering(answers: dict[str, tuple[int, object]]) -> Generator[str]:
    """The address of a service with a JSON answer per path, or per method and path."""

    class Canned(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nothing = (404, {"statusCode": "404", "error": "not_found", "message": "no such path"})
            path = answers.get(self.path, nothing) if self.command == "GET" else nothing
            status, document = answers.get(f"{self.command} {self.path}", path)
            self.rfile.read(int(self.headers.get("content-length", 0)))
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_DELETE = do_GET  # noqa: N815 - the base class looks for these names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Canned) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


async def _move_in(settings: Settings) -> None:
    """What running processes leave in the database: pools, and a worker per lane that is good for a day."""
    database = await Database.open(settings, ASSET_KINDS, application_name="makeit3d test")
    try:
        await pool_rows.ensure(
            database, {name: (p.provider, p.slots) for name, p in REGISTRY.providers.pools(settings).items()}
        )
        for lane, lanes in LANES_OF.items():
            worker = WorkerIdentity(
                uuid4(), lane, "here", 1, lanes, 5, version("makeit3d-bff"), REGISTRY.job_types.names
            )
            await renew(database, worker, stopping=False)
        await database.execute("update makeit3d.workers set seen_at = now() + interval '1 day'")
    finally:
        await database.close()
