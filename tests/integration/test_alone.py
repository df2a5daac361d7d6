"""A job that was there at repeated crashes runs by itself: if it kills the process, it takes nobody along."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from app.ai_clients.base import BeforeFirstByte, Reply, Request
from app.db.pool import Database
from app.domain.operations import Operation

from tests import kernel
from tests.fake_providers import FakeImages
from tests.integration.factories import accept, image_plan, make_user, make_worker, model_plan
from tests.integration.workshop import open_workshop

_WORK_SECONDS = 0.05


class WatchedImages(FakeImages):
    """Writes down what is under way, by prompt, whenever a call begins."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way: list[str] = []
        self.seen: list[list[str]] = []

    async def send(self, request: Request, *, reply: Path, before_first_byte: BeforeFirstByte) -> Reply:
        prompt = request.prompt or ""
        self.under_way.append(prompt)
        self.seen.append(list(self.under_way))
        try:
            await asyncio.sleep(_WORK_SECONDS)
            return await super().send(request, reply=reply, before_first_byte=before_first_byte)
        finally:
            self.under_way.remove(prompt)


async def make_alone(db: Database, *task_ids: str) -> None:
    await db.execute("update makeit3d.jobs set alone = true, crashes = 3 where task_id = any($1)", list(task_ids))


async def claimed(db: Database) -> Sequence[str]:
    worker = await make_worker(db)
    result = await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=50)
    return sorted(job.task_id for job in result.jobs)


async def test_a_claim_takes_such_a_job_by_itself(db: Database) -> None:
    user = await make_user(db)
    for number in range(4):
        await accept(db, image_plan(user, f"task-alone-{number}"))
    await make_alone(db, "task-alone-0", "task-alone-2")
    assert await claimed(db) == ["task-alone-0"]
    assert await claimed(db) == ["task-alone-1", "task-alone-3"]
    assert await claimed(db) == ["task-alone-2"]
    assert await claimed(db) == []


async def test_a_claim_over_several_pools_takes_it_by_itself(db: Database) -> None:
    user = await make_user(db)
    await accept(db, image_plan(user, "task-alone-0"))
    await accept(db, model_plan(user, "task-alone-1"))
    await make_alone(db, "task-alone-0", "task-alone-1")
    assert [len(await claimed(db)) for _ in range(3)] == [1, 1, 0]


async def test_what_is_paid_already_is_resumed_by_itself(db: Database) -> None:
    user = await make_user(db)
    for number in range(3):
        await accept(db, image_plan(user, f"task-alone-{number}"))
    await make_alone(db, "task-alone-0", "task-alone-1")
    await db.execute("update makeit3d.jobs set resume = true, calls_done = true")
    assert await claimed(db) == ["task-alone-0"]
    assert await claimed(db) == ["task-alone-1"]
    assert await claimed(db) == ["task-alone-2"]


async def test_it_waits_for_what_runs_in_its_process_and_nothing_joins_it(
    db: Database, database: str, tmp_path: Path
) -> None:
    images = WatchedImages()
    async with open_workshop(db, database, tmp_path, images=images, workers=0) as shop:
        names = [f"task-alone-{number}" for number in range(8)]
        for name in names:
            await shop.ask(Operation.TEXT_TO_IMAGE, name, prompt=name)
        suspects = ("task-alone-0", "task-alone-3", "task-alone-7")
        await make_alone(db, *suspects)
        await shop.start()
        for worker in shop.workers:
            worker.engine.wake()
        for name in names:
            assert (await shop.finished(name)).jobs[0]["status"] == "completed"
    assert images.ledger.paid_calls == len(names)
    crowds = [seen for seen in images.seen if len(seen) > 1]
    assert crowds, "the others run together"
    assert not [seen for seen in crowds if set(seen) & set(suspects)]


async def test_a_crash_or_two_are_forgiven_and_the_last_runs_are_alone(db: Database) -> None:
    user = await make_user(db)
    await accept(db, image_plan(user, "task-alone-0"))
    alone: list[bool] = []
    for _ in range(5):
        worker = await make_worker(db)
        (job,) = (await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=5)).jobs
        alone.append(job.alone)
        await db.execute("delete from makeit3d.workers")
        await db.execute("update makeit3d.jobs set started_at = started_at - interval '1 minute'")
        await kernel.sweep(db, ttl_seconds=10, max_crashes=5)
    assert alone == [False, False, False, True, True]
    assert await db.fetchval("select error_code from makeit3d.jobs") == "worker_crashed"
