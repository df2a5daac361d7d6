"""What was paid stays with the process that has it, however long the rest of the world is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from app.db.pool import Database
from app.domain.operations import Operation
from app.storage.base import StorageUnavailable
from app.storage.memory import MemoryStorage

from tests.chaos.databases import tcp_dsn
from tests.chaos.gates import GatedStorage
from tests.chaos.proxy import Proxy
from tests.fake_providers import FakeImages, FakeModels
from tests.integration.factories import make_user, settings_for
from tests.integration.workshop import BUCKET, PATIENCE, Workshop, open_workshop

pytestmark = pytest.mark.chaos

TRIES = 3


@dataclass
class AwayStorage(MemoryStorage):
    """Takes no file while it is away."""

    away: bool = False
    refused: int = 0

    async def upload(self, bucket: str, key: str, source: Path, *, content_type: str) -> None:
        if self.away:
            self.refused += 1
            raise StorageUnavailable("away")
        await super().upload(bucket, key, source, content_type=content_type)


@pytest.fixture
async def shop(db: Database, database: str, database_proxy: Proxy, tmp_path: Path) -> AsyncGenerator[Workshop]:
    settings = settings_for(
        tcp_dsn(database, database_proxy.port),
        tmp_path,
        database_timeout_seconds=1.0,
        sweep_seconds=0.1,
        retry_base_seconds=0.01,
        retry_cap_seconds=0.05,
        shutdown_grace_seconds=1.0,
    )
    objects = tmp_path / "objects"
    objects.mkdir()
    storage = AwayStorage(objects, {BUCKET: True})
    workshop = Workshop(settings, db, FakeImages(), FakeModels(), storage, await make_user(db), [])
    await workshop.start()
    yield workshop
    database_proxy.heal()
    for worker in workshop.workers:
        await worker.aclose()


async def test_pictures_stay_with_the_only_process_that_has_them(shop: Workshop, tmp_path: Path) -> None:
    storage = shop.storage
    assert isinstance(storage, AwayStorage)
    storage.away = True
    task = await shop.ask(Operation.TEXT_TO_IMAGE, "task-paid-waits")
    async with asyncio.timeout(PATIENCE):
        while not storage.refused:
            await asyncio.sleep(0.02)
    # a machine with another disk
    shop.settings = shop.settings.model_copy(update={"home": tmp_path / "other"})
    await shop.start()
    async with asyncio.timeout(PATIENCE):
        while storage.refused < TRIES:
            await asyncio.sleep(0.02)
    storage.away = False
    status = await shop.finished(task)
    assert [job["status"] for job in status.jobs] == ["completed"], status.jobs
    assert shop.images.ledger.posts == 1
    row = await shop.db.fetchrow("select attempt, deferrals, failures from makeit3d.jobs")
    assert row is not None
    assert tuple(row) == (1, 0, 0)


async def test_a_stop_gives_the_job_back_and_the_reply_stays_on_disk(shop: Workshop) -> None:
    storage = shop.storage
    assert isinstance(storage, AwayStorage)
    storage.away = True
    task = await shop.ask(Operation.TEXT_TO_IMAGE, "task-paid-cancel")
    async with asyncio.timeout(PATIENCE):
        while not storage.refused:
            await asyncio.sleep(0.02)
    await shop.workers[0].engine.stop()
    assert (await shop.status(task)).jobs[0]["status"] == "queued"
    storage.away = False
    await shop.workers.pop().aclose()
    await shop.start()
    status = await shop.finished(task)
    assert [job["status"] for job in status.jobs] == ["completed"], status.jobs
    assert shop.images.ledger.posts == 1


async def test_a_stop_ends_also_without_a_database(shop: Workshop, database_proxy: Proxy) -> None:
    task = await shop.ask(Operation.TEXT_TO_IMAGE, "task-stop-without")
    await shop.finished(task)
    storage = shop.storage
    assert isinstance(storage, AwayStorage)
    storage.away = True
    await shop.ask(Operation.TEXT_TO_IMAGE, "task-stop-held")
    async with asyncio.timeout(PATIENCE):
        while not storage.refused:
            await asyncio.sleep(0.02)
    database_proxy.refuse()
    async with asyncio.timeout(PATIENCE):
        await shop.workers[0].engine.stop()


async def test_a_second_paid_call_stores_under_fresh_keys(db: Database, database: str, tmp_path: Path) -> None:
    # its first run does not learn meanwhile that it lost its lease, and uploads on
    changes: dict[str, Any] = {"openai_paid_retry": True, "worker_ttl_seconds": 600.0}
    async with open_workshop(db, database, tmp_path, storage=GatedStorage, **changes) as shop:
        storage = shop.storage
        assert isinstance(storage, GatedStorage)
        storage.only = "/0.png"
        storage.before.hold()
        task = await shop.ask(Operation.TEXT_TO_IMAGE, "task-paid-twice")
        await storage.before.until_reached()
        # its process seems dead, and the next one has no reply: another machine
        for reply in shop.settings.spool_directory.glob("*.reply"):
            reply.unlink()
        await db.execute("update makeit3d.provider_calls set deadline = now() - interval '1 minute'")
        await db.execute("update makeit3d.jobs set status = 'queued', worker_id = null, resume = true")
        shop.workers[0].engine.wake()
        status = await shop.finished(task)
        assert [job["status"] for job in status.jobs] == ["completed"]
        assert [asset["number"] for asset in status.assets] == [1]
        assert shop.images.ledger.posts == 2
        storage.after.hold()  # the run would remove it at once
        storage.before.release()  # the first one's upload arrives
        await storage.after.until_reached()
        assert f"concepts/{task}/0.png" in await shop.keys()
        stored = await db.fetch("select key from makeit3d.files where state = 'stored'")
        assert [row["key"] for row in stored] == [f"concepts/{task}/1.png"]
        storage.after.release()
