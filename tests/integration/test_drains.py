"""How often the database is asked for work and woken for it: once where once is enough, and never in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

from app.db.pool import Database
from app.domain.jobs import ClaimedJob, Completed, Lane, Settlement
from app.domain.operations import Operation
from app.domain.user_limits import NO_LIMITS
from app.queue.claims import ClaimResult
from app.queue.contracts import Committed
from app.services.notifier import Notifier
from app.services.publisher import Publisher
from app.services.settler import Settler, Written
from prometheus_client import REGISTRY

from tests import kernel
from tests.chaos.gates import GatedImages
from tests.integration.factories import accept, image_plan, make_user, make_worker, model_plan
from tests.integration.workshop import PATIENCE, open_workshop

NO_SWEEPS = 3600.0


class Wakeups:
    """Notes the lanes that are woken."""

    def __init__(self) -> None:
        self.lanes: list[Lane] = []

    def ring(self, lanes: Iterable[Lane]) -> None:
        self.lanes += lanes


def claims() -> float:
    return REGISTRY.get_sample_value("makeit3d_claims_total") or 0.0


async def claim(db: Database, worker_id: UUID, **wanted: Any) -> ClaimResult:  # noqa: ANN401 - arguments of Queue.claim
    return await kernel.claim(db, worker_id=worker_id, lanes=["priority", "normal"], limit=5, **wanted)


async def claimed_job(db: Database) -> ClaimedJob:
    (job,) = (await claim(db, (await make_worker(db)).id)).jobs
    return job


async def published(db: Database, committed: Committed) -> list[Lane]:
    """The lanes that telling of a commit wakes."""
    wakeups, notifier = Wakeups(), Notifier(db)
    publisher = Publisher(kernel.queue_of(db), wakeups, notifier, NO_LIMITS)
    publisher.publish(committed)
    await publisher.aclose()
    await notifier.aclose()
    return wakeups.lanes


async def test_one_job_costs_one_claim(db: Database, database: str, tmp_path: Path) -> None:
    async with open_workshop(db, database, tmp_path, sweep_seconds=NO_SWEEPS) as shop:
        await shop.finished(await shop.ask(Operation.TEXT_TO_IMAGE, "task-drain-1"))
        before = claims()
        await shop.finished(await shop.ask(Operation.TEXT_TO_IMAGE, "task-drain-2"))
        await shop.workers.pop().aclose()
        assert claims() == before + 1


async def test_work_is_claimed_while_the_end_of_a_run_is_written(db: Database, database: str, tmp_path: Path) -> None:
    images = GatedImages()
    images.post.hold()
    async with open_workshop(db, database, tmp_path, images=images, workers=0, sweep_seconds=NO_SWEEPS) as shop:
        await shop.start(slots=1)
        first = await shop.ask(Operation.TEXT_TO_IMAGE, "task-drain-3")
        await images.post.until_reached()
        second = await shop.ask(Operation.TEXT_TO_MODEL, "task-drain-4")
        async with db.transaction() as connection:  # whoever ends the first job waits for its task
            await connection.execute("select from makeit3d.tasks where id = $1 for update", first)
            images.post.release()
            await shop.until(second, lambda status: status.jobs[0]["status"] == "running")
            assert (await shop.status(first)).jobs[0]["status"] == "running"
        for task in (first, second):
            assert (await shop.finished(task)).jobs[0]["status"] == "completed"


async def test_one_end_alone_waits_for_no_other(db: Database) -> None:
    await accept(db, image_plan(await make_user(db), "task-drain-5"))
    notifier = Notifier(db)
    publisher = Publisher(kernel.queue_of(db), Wakeups(), notifier, NO_LIMITS)
    settler = Settler(kernel.queue_of(db), publisher, window_seconds=3600)
    async with asyncio.timeout(PATIENCE):
        assert await settler.settle(Settlement(await claimed_job(db), Completed())) is Written.DONE
    await settler.aclose()
    await publisher.aclose()
    await notifier.aclose()


async def test_a_request_for_a_full_pool_wakes_nobody(db: Database) -> None:
    queue, user = kernel.queue_of(db), await make_user(db)
    await db.execute("update makeit3d.pools set slots = 1 where name = 'tripo_h'")
    first = (await queue.accept(model_plan(user, "task-drain-6"))).committed
    assert (first.lanes, first.capacity) == ({"normal"}, set())
    running = await claimed_job(db)
    second = (await queue.accept(model_plan(user, "task-drain-7"))).committed
    assert second.lanes == set()
    assert await published(db, second) == []
    # the slot comes free before anybody is told of the request, and nobody knew of it then
    await kernel.finish(db, [Settlement(running, Completed())])
    assert await published(db, second) == ["normal"]


async def test_a_request_for_a_provider_that_takes_nothing_wakes_nobody(db: Database) -> None:
    await db.execute(
        "update makeit3d.providers set state = 'open', opened_at = now(), tripped_at = now(), error_code = 'x',"
        " probe_at = now() + interval '1 hour' where name = 'tripo'"
    )
    committed = (await kernel.queue_of(db).accept(model_plan(await make_user(db), "task-drain-8"))).committed
    assert committed.lanes == set()
    assert await published(db, committed) == []


async def test_a_claim_says_that_another_holds_some_of_the_work(db: Database) -> None:
    user = await make_user(db)
    for number in range(2):
        await accept(db, image_plan(user, f"task-held-{number}"))
    worker = await make_worker(db)
    async with db.transaction() as connection:
        await connection.execute("select from makeit3d.tasks where id = 'task-held-0' for update")
        partly = await claim(db, worker.id)
    assert [job.task_id for job in partly.jobs] == ["task-held-1"]
    assert (partly.more, partly.full) == (True, False)
    rest = await claim(db, worker.id)
    assert [job.task_id for job in rest.jobs] == ["task-held-0"]
    assert (rest.more, rest.full) == (False, False)


async def test_a_claim_says_that_paid_work_turned_out_to_need_a_slot(db: Database) -> None:
    user = await make_user(db)
    for number in range(2):
        await accept(db, image_plan(user, f"task-paid-{number}"))
    await db.execute("update makeit3d.jobs set resume = true, calls_done = task_id = 'task-paid-1'")
    worker = await make_worker(db)
    paid = await claim(db, worker.id)
    assert [job.task_id for job in paid.jobs] == ["task-paid-1"]
    assert paid.more
    assert [job.task_id for job in (await claim(db, worker.id)).jobs] == ["task-paid-0"]
