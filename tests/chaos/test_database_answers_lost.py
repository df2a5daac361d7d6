"""The database goes away in the middle of work: nothing is lost, nothing is paid twice, nobody is taken for dead."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from app.ai_clients.base import BeforeFirstByte, Reply, Request
from app.ai_clients.errors import Refused
from app.config import Settings
from app.db import workers
from app.db.pool import Database
from app.db.workers import WorkerIdentity
from app.domain.operations import Operation
from app.errors import ErrorCode
from app.storage.memory import MemoryStorage
from structlog.testing import capture_logs

from tests import kernel
from tests.chaos.databases import tcp_dsn
from tests.chaos.proxy import Proxy
from tests.fake_providers import FakeImages, FakeModels
from tests.integration.factories import make_user, settings_for
from tests.integration.workshop import BUCKET, PATIENCE, Workshop

pytestmark = pytest.mark.chaos

TTL = 1.0


class HeldImages(FakeImages):
    """Its calls stay open until they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def send(self, request: Request, *, reply: Path, before_first_byte: BeforeFirstByte) -> Reply:
        receipt = await super().send(request, reply=reply, before_first_byte=before_first_byte)
        await self.may_answer.wait()
        return receipt


@pytest.fixture
def settings(database: str, database_proxy: Proxy, tmp_path: Path) -> Settings:
    return settings_for(
        tcp_dsn(database, database_proxy.port),
        tmp_path,
        database_timeout_seconds=1.0,
        sweep_seconds=0.1,
        worker_ttl_seconds=TTL,
        retry_base_seconds=0.01,
        retry_cap_seconds=0.05,
        reconcile_first_seconds=0.05,
        shutdown_grace_seconds=5,
    )


@pytest.fixture
async def shop(settings: Settings, direct: Database, tmp_path: Path) -> AsyncGenerator[Workshop]:
    objects = tmp_path / "objects"
    objects.mkdir()
    storage = MemoryStorage(objects, {BUCKET: True})
    workshop = Workshop(settings, direct, HeldImages(), FakeModels(), storage, await make_user(direct), [])
    await workshop.start()
    yield workshop
    for worker in workshop.workers:
        await worker.aclose()


async def until(look: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Poll until it is true."""
    async with asyncio.timeout(PATIENCE):
        while not await look():
            await asyncio.sleep(0.02)


async def _is_stale(direct: Database) -> bool:
    """Whether no worker could say for long that it lives."""
    return await direct.fetchval(
        "select max(seen_at) < now() - make_interval(secs => $1) from makeit3d.workers", TTL * 1.2
    )


async def _one_open_call(shop: Workshop, state: str) -> None:
    async def look() -> bool:
        return [found for found, _, _ in await shop.calls()] == [state]

    await until(look)


@pytest.mark.parametrize("away", [Proxy.refuse, Proxy.stall, Proxy.mute])
async def test_an_outage_with_calls_open_costs_nobody_anything(
    shop: Workshop, database_proxy: Proxy, direct: Database, away: Callable[[Proxy], None]
) -> None:
    images = shop.images
    assert isinstance(images, HeldImages)
    images.may_answer.clear()
    shop.models.polls = 10
    picture = await shop.ask(Operation.TEXT_TO_IMAGE, "task-outage-image")
    await _one_open_call(shop, "intent")
    model = await shop.ask(Operation.TEXT_TO_MODEL, "task-outage-model")

    async def submitted() -> bool:
        return "submitted" in [state for state, _, _ in await shop.calls()]

    await until(submitted)
    away(database_proxy)
    await until(lambda: _is_stale(direct))
    images.may_answer.set()  # the paid reply comes while nobody can record it
    database_proxy.heal()
    for task in (picture, model):
        status = await shop.finished(task)
        assert [job["status"] for job in status.jobs] == ["completed"], status.jobs
    assert (images.ledger.posts, shop.models.ledger.posts) == (1, 1)
    rows = await direct.fetch("select crashes, failures from makeit3d.jobs")
    assert [tuple(row) for row in rows] == [(0, 0), (0, 0)]
    assert {state for state, _, _ in await shop.calls()} == {"settled"}


async def test_a_sweep_that_an_outage_overtook_buries_nobody(
    shop: Workshop, database_proxy: Proxy, direct: Database
) -> None:
    """It began while all was well, and goes on before others could say again that they live."""
    shop.settings = shop.settings.model_copy(update={"database_timeout_seconds": PATIENCE})
    sweeper = (await shop.start()).sweeper
    for worker in shop.workers:
        await worker.sweeper.aclose()  # the rounds come by hand
    elsewhere = WorkerIdentity(uuid4(), "elsewhere", "far", 1, ("normal",), 1)
    await workers.renew(direct, elsewhere, stopping=False)
    await sweeper.round()
    database_proxy.stall()
    overtaken = asyncio.create_task(sweeper.round())
    await until(lambda: _is_stale(direct))
    database_proxy.heal()
    await overtaken
    assert await direct.fetchval("select count(*) from makeit3d.workers where id = $1", elsewhere.id) == 1


LOST_ANSWERS = {
    "intent": (b"text-to-image",),
    "reply recorded": (b"on disk",),
    "file announced": (b"concepts/",),
    "call settled": (b'"files":[{',),
    "job settled": (b'"status":"completed"', b"COMMIT;"),
}


@pytest.mark.parametrize("where", LOST_ANSWERS)
async def test_an_answer_that_is_lost_after_the_work_was_done(
    shop: Workshop, database_proxy: Proxy, direct: Database, where: str
) -> None:
    database_proxy.lose_reply(*LOST_ANSWERS[where])
    task = await shop.ask(Operation.TEXT_TO_IMAGE, f"task-lost-{where.replace(' ', '-')}")
    status = await shop.finished(task)

    async def lost() -> bool:  # the end can be read before its reply comes to the proxy
        return database_proxy.lost_replies == 1

    await until(lost)
    assert [job["status"] for job in status.jobs] == ["completed"], status.jobs
    assert [asset["status"] for asset in status.assets] == ["complete"]
    assert shop.images.ledger.posts == 1
    assert await direct.fetchval("select failures + crashes from makeit3d.jobs") == 0
    assert await shop.keys() == [f"concepts/{task}/0.png"]
    assert [row["state"] for row in await direct.fetch("select state from makeit3d.files")] == ["stored"]
    assert [state for state, _, _ in await shop.calls() if state != "refused"] == ["settled"]


async def test_a_claim_whose_answer_is_lost_is_given_back(
    shop: Workshop, database_proxy: Proxy, direct: Database
) -> None:
    worker = shop.workers[0].engine.identity.id
    database_proxy.lose_reply(worker.bytes, b"COMMIT;")
    task = await shop.ask(Operation.TEXT_TO_IMAGE, "task-lost-claim")
    status = await shop.finished(task)
    assert database_proxy.lost_replies == 1
    assert [job["status"] for job in status.jobs] == ["completed"]
    assert shop.images.ledger.posts == 1
    assert await direct.fetchval("select failures + crashes from makeit3d.jobs") == 0


@asynccontextmanager
async def _away(direct: Database, *tables: str, column: str = "") -> AsyncGenerator[None]:
    """Tables, or a column of theirs, that are not there: no outage, but a mistake of whoever administers the
    database."""
    away = [(table, f"rename to {table}_away", f"{table}_away", f"rename to {table}") for table in tables]
    if column:
        away = [(table, f"rename {column} to away", table, f"rename away to {column}") for table in tables]
    async with direct.transaction() as connection:
        for table, leave, _, _ in away:
            await connection.execute(f"alter table makeit3d.{table} {leave}")
    yield
    async with direct.transaction() as connection:
        for _, _, table, come_back in away:
            await connection.execute(f"alter table makeit3d.{table} {come_back}")


async def test_every_loop_outlives_errors_that_nobody_expected(shop: Workshop, direct: Database) -> None:
    shop.models.polls = 10
    before = await shop.ask(Operation.TEXT_TO_MODEL, "task-loops-before")
    await _one_open_call(shop, "submitted")
    async with _away(direct, "jobs", "provider_calls", "workers", "events"):
        # at the end each loop came round
        stale = "select max(seen_at) < now() - make_interval(secs => $1) from makeit3d.workers_away"
        await until(lambda: direct.fetchval(stale, TTL))
    after = await shop.ask(Operation.TEXT_TO_MODEL, "task-loops-after")
    for task in (before, after):
        status = await shop.finished(task)
        assert [job["status"] for job in status.jobs] == ["completed"], status.jobs
    assert shop.models.ledger.posts == 2
    seen = await direct.fetchval("select max(seen_at) from makeit3d.workers")
    await until(lambda: direct.fetchval("select max(seen_at) > $1 from makeit3d.workers", seen))


async def test_what_breaks_in_the_background_is_told(shop: Workshop, direct: Database, complaints: list[str]) -> None:
    with capture_logs() as logs:

        async def told(event: str) -> bool:
            return event in {entry["event"] for entry in logs}

        async with _away(direct, "provider_calls"):
            await until(lambda: told("reconciling_broke"))
        shop.images.ledger.refuse_next(Refused(ErrorCode.PROVIDER_CONTENT_REFUSED, "no"))
        async with _away(direct, "files", column="job_id"):  # the end can be written, what was left can not be found
            task = await shop.ask(Operation.TEXT_TO_IMAGE, "task-told")
            await until(lambda: told("run_broke"))
        status = await shop.finished(task)
    assert [job["error_code"] for job in status.jobs] == [ErrorCode.PROVIDER_CONTENT_REFUSED.code]
    gc.collect()
    assert complaints == []


async def test_what_breaks_after_the_commit_puts_no_end_in_doubt(shop: Workshop, direct: Database) -> None:
    images = shop.images
    assert isinstance(images, HeldImages)
    images.may_answer.clear()
    with capture_logs() as logs:
        task = await shop.ask(Operation.TEXT_TO_IMAGE, "task-committed")
        await _one_open_call(shop, "intent")
        # work that no worker here takes: whether its pool has room is looked up when a slot of it comes free
        await kernel.accept(shop.db, shop.plan(Operation.TEXT_TO_IMAGE, "task-of-the-future"))
        await direct.execute("update makeit3d.jobs set type = 'of_the_future' where task_id = 'task-of-the-future'")
        async with _away(direct, "pools"):
            images.may_answer.set()

            async def told() -> bool:
                return {"run_ended", "publish_failed"} <= {entry["event"] for entry in logs}

            await until(told)
    assert "claim_was_lost" not in {entry["event"] for entry in logs}
    status = await shop.finished(task)
    assert [job["status"] for job in status.jobs] == ["completed"]
