"""The whole HTTP application over a real database, with storage in a directory and providers that nobody calls."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
import uvicorn
from app.ai_clients.registry import Providers
from app.calls.spool import Spool
from app.config import Settings
from app.container import ApiContainer, user_limits
from app.db import pools as pool_rows
from app.db.pool import Database
from app.domain.jobs import Lane
from app.main import create_app
from app.registry import Registry
from app.server import http_protocol
from app.services.asset_content import AssetContent
from app.services.cancellation import Cancellation
from app.services.decoders import Decoders
from app.services.event_stream import EventStream
from app.services.health import Health
from app.services.input_files import InputFiles
from app.services.input_resolver import InputResolver
from app.services.installation import InstallationGauges
from app.services.notifier import Notifier
from app.services.poll_cache import PollAnswer, PollCache
from app.services.principals import PrincipalVerifier
from app.services.publisher import Publisher
from app.services.rate_limits import RateLimits
from app.services.task_reading import TaskReading
from app.services.task_status import TaskStatus
from app.services.uploads import Uploads
from app.storage.memory import MemoryStorage
from app.task_types.acceptance import Acceptance
from app.task_types.planner import Planner

from tests import kernel
from tests.fake_providers import FakeImages, FakeModels


async def open_services(
    settings: Settings, *, storage_kind: type[MemoryStorage] = MemoryStorage, registry: Registry = kernel.REGISTRY
) -> ApiContainer:
    """As ``ApiContainer.open``, but for storage and bells."""
    async with AsyncExitStack() as stack:
        database = await Database.open(settings, registry.asset_kinds, application_name="makeit3d http test")
        stack.push_async_callback(database.close)
        await pool_rows.ensure(
            database, {name: (p.provider, p.slots) for name, p in registry.providers.pools(settings).items()}
        )
        directory = settings.home / "objects"
        directory.mkdir(parents=True, exist_ok=True)
        storage = storage_kind(
            directory,
            {settings.generated_assets_bucket_name: True, settings.input_bucket_names[0]: False},
            base_url=f"{settings.supabase_url}/storage/v1",
        )
        polls = PollCache[PollAnswer]()
        notifier = Notifier(database, here=polls.changed)
        stack.push_async_callback(notifier.aclose)
        redis_url = settings.redis_url.get_secret_value()
        limits = RateLimits(redis_url, {"openai": None, "tripo": None})
        stack.push_async_callback(limits.aclose)
        providers = Providers([FakeImages(), FakeModels()])
        stack.push_async_callback(providers.aclose)
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=5))
        spool = Spool(settings.spool_directory, max_bytes=settings.spool_bytes)
        spool.open()
        decoders = Decoders(settings)
        stack.push_async_callback(decoders.aclose)
        inputs = InputFiles(storage, settings, settings.spool_directory, decoders)
        events = EventStream(settings.database_url.get_secret_value(), database, listeners=[polls])
        events.start()
        stack.push_async_callback(events.aclose)
        health = Health(database, redis_url, storage, settings.generated_assets_bucket_name, events)
        stack.push_async_callback(health.aclose)
        bells = DeafBells()
        user = user_limits(settings)
        queue = kernel.queue_of(database)
        publisher = Publisher(queue, bells, notifier, user)
        stack.push_async_callback(publisher.aclose)
        resolver = InputResolver(database, inputs, settings)
        planner = Planner(providers, settings, registry.job_types.permits)
        return ApiContainer(
            settings=settings,
            database=database,
            storage=storage,
            verifier=PrincipalVerifier(settings, http),
            acceptance=Acceptance(queue, resolver, providers, planner, limits, user, publisher),
            planner=planner,
            cancellation=Cancellation(queue, publisher),
            notifier=notifier,
            events=events,
            uploads=Uploads(database, storage, inputs, spool, notifier, settings),
            content=AssetContent(database, storage),
            tasks=TaskReading(database),
            status=TaskStatus(database, events, {"tripo_h": 3.0}),
            polls=polls,
            health=health,
            installation=InstallationGauges(database, worker_ttl_seconds=settings.worker_ttl_seconds),
            stack=stack.pop_all(),
        )


class DeafBells:
    """No worker listens: these tests are about the API."""

    def ring(self, lanes: Iterable[Lane]) -> None:
        del lanes


@dataclass
class Gateway:
    """A running server and a client of it."""

    services: ApiContainer
    http: httpx.AsyncClient
    user_id: UUID

    @property
    def db(self) -> Database:
        return self.services.database

    def headers(self, user_id: UUID | None = None) -> dict[str, str]:
        key = self.services.settings.supabase_service_key.get_secret_value()
        return {"Authorization": f"Bearer {key}", "X-User-Id": str(user_id or self.user_id)}

    async def get(self, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 - httpx takes them
        return await self.http.get(path, headers=self.headers() | options.pop("headers", {}), **options)

    async def post(self, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 - httpx takes them
        return await self.http.post(path, headers=self.headers() | options.pop("headers", {}), **options)

    async def another_user(self) -> UUID:
        user_id = uuid4()
        await self.db.execute("insert into auth.users (id) values ($1)", user_id)
        return user_id


async def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    try:
        await server.serve(sockets=[listener])
    except SystemExit:  # the log says why
        raise RuntimeError("The application did not start.") from None


@asynccontextmanager
async def gateway(
    settings: Settings, *, storage_kind: type[MemoryStorage] = MemoryStorage, registry: Registry | None = None
) -> AsyncGenerator[Gateway]:
    """Serve on a free port of loopback; streams and long polls end when the context does."""
    opened: list[ApiContainer] = []

    async def opener(wanted: Settings) -> ApiContainer:
        opened.append(await open_services(wanted, storage_kind=storage_kind, registry=registry or kernel.REGISTRY))
        return opened[0]

    app = create_app(settings, open_services=opener, registry=registry)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        http = http_protocol(settings.connections_per_address)
        server = uvicorn.Server(uvicorn.Config(app, http=http, log_config=None, access_log=False, lifespan="on"))
        serving = asyncio.create_task(_serve(server, listener))
        while not server.started:
            if serving.done():
                await serving
            await asyncio.sleep(0.01)
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            async with httpx.AsyncClient(base_url=base_url, timeout=30) as client:
                found = Gateway(opened[0], client, uuid4())
                await found.db.execute("insert into auth.users (id) values ($1)", found.user_id)
                yield found
        finally:
            opened[0].events.stop()
            server.should_exit = True
            await serving
