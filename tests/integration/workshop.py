"""Workers with fakes at their far ends, over a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from app.ai_clients.openai.settings import OpenAISettings
from app.ai_clients.registry import Providers, build_registry
from app.config import Settings
from app.container import WorkerContainer, user_limits
from app.db import pools as pool_rows
from app.db import tasks
from app.db.pool import Database
from app.db.tasks import StatusRows
from app.db.workers import WorkerIdentity
from app.domain.jobs import Lane
from app.domain.operations import Operation
from app.domain.params import ObjectRef
from app.queue.plans import RequestPlan
from app.registry import Registry
from app.services.retries import Retries
from app.storage.memory import MemoryStorage
from app.task_types.planner import Planner
from PIL import Image

from tests import kernel
from tests.fake_providers import FakeImages, FakeModels
from tests.integration.factories import make_user, planned, settings_for

PATIENCE = 20.0
BUCKET = "makeit3d_app_assets"
INPUTS = "user_input_files_bucket"


class RoomBells:
    """Bells that everybody in this process hears."""

    def __init__(self, workers: list[WorkerContainer]) -> None:
        self._workers = workers

    def ring(self, lanes: Iterable[Lane]) -> None:
        for worker in self._workers if list(lanes) else ():
            worker.engine.wake()


@dataclass
class Workshop:
    """Workers over one database, with fakes that count what was paid."""

    settings: Settings
    db: Database
    images: FakeImages
    models: FakeModels
    storage: MemoryStorage
    user: UUID
    workers: list[WorkerContainer]
    registry: Registry = kernel.REGISTRY

    async def start(self, *, home: Path | None = None, slots: int = 20) -> WorkerContainer:
        """One more worker; with a ``home`` of its own it is one on another machine."""
        host = "localhost" if home is None else home.name
        identity = WorkerIdentity(uuid4(), "test", host, 1, ("priority", "normal"), slots)
        providers = Providers([self.images, self.models])
        worker = await WorkerContainer.open(
            self.settings if home is None else self.settings.model_copy(update={"home": home}),
            identity,
            RoomBells(self.workers),
            registry=self.registry,
            storage=self.storage,
            providers=providers,
        )
        await worker.start()
        self.workers.append(worker)
        return worker

    async def put_picture(self, key: str = "sketch.png", colour: str = "teal") -> ObjectRef:
        """A picture that a client uploaded, as it is seen when a request is accepted."""
        path = self.settings.home / "input.png"
        Image.new("RGB", (256, 256), colour).save(path)
        await self.storage.upload(INPUTS, key, path, content_type="image/png")
        info = await self.storage.info(INPUTS, key)
        return ObjectRef(INPUTS, key, etag=info.etag, size=info.size)

    async def ask(
        self,
        operation: Operation,
        task_id: str,
        *,
        pictures: Sequence[ObjectRef] = (),
        **fields: Any,  # noqa: ANN401 - parameters of the type
    ) -> str:
        """Accept what a client would ask for; the task id."""
        request = self.plan(operation, task_id, pictures=pictures, **fields)
        await kernel.accept(self.db, request, user_limits(self.settings))
        for worker in self.workers:
            worker.engine.wake()
        return task_id

    def plan(
        self,
        operation: Operation,
        task_id: str,
        *,
        pictures: Sequence[ObjectRef] = (),
        **fields: Any,  # noqa: ANN401 - parameters of the type
    ) -> RequestPlan:
        """What accepting it would write."""
        planner = Planner(Providers([self.images, self.models]), self.settings, kernel.REGISTRY.job_types.permits)
        return planned(planner, self.settings, operation, task_id, self.user, pictures, **{"prompt": "a fox", **fields})

    async def status(self, task_id: str) -> StatusRows:
        status = await tasks.status(self.db, task_id, self.user)
        assert status is not None
        return status

    async def until(self, task_id: str, good: Callable[[StatusRows], bool]) -> StatusRows:
        async with asyncio.timeout(PATIENCE):
            while not good(status := await self.status(task_id)):
                await asyncio.sleep(0.02)
        return status

    async def finished(self, task_id: str) -> StatusRows:
        return await self.until(
            task_id, lambda s: all(job["status"] in ("completed", "failed", "canceled") for job in s.jobs)
        )

    async def calls(self) -> list[tuple[str, str | None, int | None]]:
        rows = await self.db.fetch(
            "select state, error_code, cost_micros from makeit3d.provider_calls order by created_at"
        )
        return [(row["state"], row["error_code"], row["cost_micros"]) for row in rows]

    async def keys(self) -> list[str]:
        return [item.key async for item in self.storage.list(BUCKET, prefix="")]


@asynccontextmanager
async def open_workshop(
    db: Database,
    dsn: str,
    home: Path,
    *,
    images: FakeImages | None = None,
    models: FakeModels | None = None,
    storage: type[MemoryStorage] = MemoryStorage,
    workers: int = 1,
    registry: Registry = kernel.REGISTRY,
    **changes: Any,  # noqa: ANN401 - settings by field name
) -> AsyncGenerator[Workshop]:
    """A workshop with so many workers at first; ``db`` is the same database, open already."""
    quick: dict[str, Any] = {
        "sweep_seconds": 0.1,
        "worker_ttl_seconds": 10.0,
        "retry_base_seconds": 0.01,
        "retry_cap_seconds": 0.05,
        "reconcile_first_seconds": 0.05,
        "reconcile_window_seconds": 0.6,
        "shutdown_grace_seconds": 5,
    }
    settings = settings_for(dsn, home, **(quick | changes))
    await pool_rows.ensure(
        db, {name: (pool.provider, pool.slots) for name, pool in build_registry().pools(settings).items()}
    )
    objects = home / "objects"
    objects.mkdir()
    shop = Workshop(
        settings,
        db,
        images or FakeImages(paid_retry=OpenAISettings.of(settings).paid_retry),
        models or FakeModels(),
        storage(objects, {BUCKET: True, INPUTS: False}),
        await make_user(db),
        [],
        registry,
    )
    try:
        for _ in range(workers):
            await shop.start()
        yield shop
    finally:
        for worker in shop.workers:
            await worker.aclose()


@pytest.fixture
async def workshop(db: Database, database: str, tmp_path: Path) -> AsyncGenerator[Workshop]:
    async with open_workshop(db, database, tmp_path) as shop:
        yield shop


async def retry(retries: Retries, id_: str, *, may_pay_again: bool = False) -> None:
    """What ``makeit3d jobs retry`` does with an id."""
    await retries.retry(await retries.find(id_), may_pay_again=may_pay_again)
