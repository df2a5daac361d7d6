"""Whose turn it is, counted in claims: a flood by one user is in nobody else's way, however it comes about."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

from app.ai_clients.base import ImageRequest
from app.calls import journal
from app.calls.journal import CallIntent
from app.db.pool import Database
from app.db.workers import WorkerIdentity
from app.domain.jobs import ClaimedJob, Completed, Deferred, Failed, Settlement
from app.domain.operations import Operation
from app.domain.user_limits import UserLimits
from app.errors import ErrorCode
from app.queue import permits, waits
from app.queue.plans import RequestPlan

from tests import kernel
from tests.fake_providers import FakeImages
from tests.integration.factories import accept, image_plan, make_user, make_worker, model_plan, multiply, sketch_plan
from tests.integration.workshop import PATIENCE, open_workshop

FLOOD = 5000


async def flood(db: Database, user: UUID, jobs: int = FLOOD) -> None:
    await multiply(db, await accept(db, image_plan(user, f"task-flood-{user}")), jobs)


async def claim_one(db: Database, worker: WorkerIdentity) -> ClaimedJob | None:
    result = await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=1)
    return result.jobs[0] if result.jobs else None


async def end(db: Database, job: ClaimedJob) -> None:
    await kernel.finish(db, [Settlement(job, Failed(ErrorCode.PROVIDER_CONTENT_REFUSED, "no"))])


async def turns(db: Database, worker: WorkerIdentity, number: int) -> list[UUID | None]:
    """Whose jobs are claimed next, one after the other."""
    users: list[UUID | None] = []
    for _ in range(number):
        job = await claim_one(db, worker)
        assert job is not None
        users.append(job.user_id)
        await end(db, job)
    return users


async def test_a_flood_of_thousands_delays_a_newcomer_by_one_turn(db: Database) -> None:
    flooder = await make_user(db)
    worker = await make_worker(db)
    await flood(db, flooder)
    assert await turns(db, worker, 20) == [flooder] * 20
    for number in range(3):
        newcomer = await make_user(db)
        await accept(db, image_plan(newcomer, f"task-newcomer-{number}"))
        assert newcomer in await turns(db, worker, 2)


async def test_two_backlogs_take_turns(db: Database) -> None:
    first, second = await make_user(db), await make_user(db)
    worker = await make_worker(db)
    await flood(db, first, 300)
    assert await turns(db, worker, 50) == [first] * 50
    await flood(db, second, 300)
    order = await turns(db, worker, 41)
    assert order[0] == second
    assert all(set(order[at : at + 2]) == {first, second} for at in range(1, 41, 2))


async def test_who_asks_for_one_job_after_the_other_does_not_starve_a_backlog(db: Database) -> None:
    patient, eager = await make_user(db), await make_user(db)
    worker = await make_worker(db)
    await flood(db, patient, 50)
    await turns(db, worker, 2)
    served: list[UUID | None] = []
    for number in range(20):
        await accept(db, image_plan(eager, f"task-eager-{number:02}"))
        served.extend(await turns(db, worker, 1))
    assert served.count(patient) >= 9


async def test_one_users_racing_requests_get_a_turn_each(db: Database) -> None:
    user = await make_user(db)
    plans = [image_plan(user, f"task-racing-{number:02}") for number in range(40)]
    await asyncio.gather(*(kernel.accept(db, plan) for plan in plans))
    tags = [row["fair_tag"] for row in await db.fetch("select fair_tag from makeit3d.jobs order by fair_tag")]
    assert tags == list(range(40))


async def test_steps_that_wait_save_no_turns(db: Database) -> None:
    """Many models come due at once, whose concepts were asked for long ago: nobody waits for them all."""
    saver, other = await make_user(db), await make_user(db)
    worker = await make_worker(db)
    for number in range(12):
        await accept(db, sketch_plan(saver, f"task-saver-{number:02}"))
    first_steps = list((await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=50)).jobs)
    for number in range(30):
        await accept(db, model_plan(other, f"task-before-{number:02}"))
        assert await turns(db, worker, 1) == [other]
    await kernel.finish(db, [Settlement(job, Completed(())) for job in first_steps])
    await accept(db, model_plan(other, "task-after-01"))
    assert other in await turns(db, worker, 3)  # both may have the same tag


async def test_jobs_held_back_by_a_limit_save_no_turns(db: Database) -> None:
    saver, other = await make_user(db), await make_user(db)
    worker = await make_worker(db)
    limits = UserLimits(in_flight=6)
    for number in range(20):
        await kernel.accept(db, image_plan(saver, f"task-saver-{number:02}"), limits)
    held = list((await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=6)).jobs)
    for number in range(30):
        await accept(db, image_plan(other, f"task-before-{number:02}"))
        assert await turns(db, worker, 1) == [other]
    for job in held:
        await end(db, job)
    await permits.release(db, saver, in_flight=6)
    await accept(db, image_plan(other, "task-after-01"))
    assert other in await turns(db, worker, 3)


async def test_jobs_that_came_back_from_a_full_provider_go_before_nobody(db: Database) -> None:
    """They were claimed and put off, so that the tag last claimed says nothing about who was served."""
    flooder, other = await make_user(db), await make_user(db)
    worker = await make_worker(db)
    await flood(db, flooder, 40)
    claimed = list((await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=20)).jobs)
    await kernel.finish(db, [Settlement(job, Deferred(ErrorCode.PROVIDER_BUSY, "full", 3600)) for job in claimed])
    await accept(db, image_plan(other, "task-between-1"))
    await db.execute("update makeit3d.jobs set run_after = now() where run_after is not null")
    await waits.promote_due(db)
    assert other in await turns(db, worker, 2)


async def test_each_priority_has_turns_of_its_own(db: Database) -> None:
    high, low, newcomer = await make_user(db), await make_user(db), await make_user(db)
    worker = await make_worker(db)

    def with_priority(user: UUID, task_id: str, priority: int) -> RequestPlan:
        plan = image_plan(user, task_id)
        return replace(plan, jobs=[replace(job, priority=priority) for job in plan.jobs])

    for number in range(30):
        await accept(db, with_priority(low, f"task-low-{number:02}", 20))
        await accept(db, with_priority(high, f"task-high-{number:02}", 60))
    assert await turns(db, worker, 30) == [high] * 30
    await accept(db, with_priority(newcomer, "task-low-new", 20))
    assert newcomer in await turns(db, worker, 2)


async def test_a_process_with_few_slots_serves_every_pool(db: Database) -> None:
    user, other = await make_user(db), await make_user(db)
    worker = await make_worker(db)
    await flood(db, user, 200)
    await accept(db, model_plan(other, "task-pool-001"))
    assert other in await turns(db, worker, 60)  # by the order of the pools' names it would be the last of 201


async def test_workers_reach_a_newcomer_through_a_flood(db: Database, database: str, tmp_path: Path) -> None:
    slots = 3
    images = FakeImages()
    async with open_workshop(db, database, tmp_path, images=images, workers=0, openai_slots=slots) as shop:
        plan = shop.plan(Operation.TEXT_TO_IMAGE, "task-flood-000", prompt="flood")
        await multiply(db, await accept(db, plan), FLOOD)
        for _ in range(2):
            await shop.start()
        async with asyncio.timeout(PATIENCE):
            while images.ledger.paid_calls < 30:
                await asyncio.sleep(0.02)
        shop.user = await make_user(db)
        await shop.ask(Operation.TEXT_TO_IMAGE, "task-newcomer-1", prompt="newcomer")
        served = images.ledger.paid_calls
        await shop.finished("task-newcomer-1")
        prompts = [request.prompt for request in images.ledger.paid if isinstance(request, ImageRequest)]
        # the jobs that had their slots already, one turn, and what a settle let in while the newcomer was accepted
        assert prompts.index("newcomer") - served <= 2 * slots + 1
        assert len(prompts) < FLOOD


# --- slots ------------------------------------------------------------------------------------------------------


async def test_a_job_whose_call_was_refused_while_it_waited_needs_a_slot_again(db: Database) -> None:
    """It was queued to go on with its open call. Without that call it would start a new one beside a full pool."""
    user = await make_user(db)
    await db.execute("update makeit3d.pools set slots = 1 where name = 'tripo_h'")
    worker = await make_worker(db)
    await accept(db, model_plan(user, "task-refused-1"))
    job = await claim_one(db, worker)
    assert job is not None
    call = CallIntent(uuid4(), "tripo", "tripo_h", "text-to-model", "hash", {}, 1, "v", 60.0)
    assert await journal.intend(db, job.claim, call)
    await kernel.finish(db, [Settlement(job, Deferred(None, None, 0.0))])  # to look at the open call later
    await journal.refused(db, call.id, error_code="provider_busy", provider_code=None, http_status=429)
    await accept(db, model_plan(user, "task-refused-2"))
    rounds = [await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=10) for _ in range(3)]
    (job,) = [job for result in rounds for job in result.jobs]
    await end(db, job)
    assert await claim_one(db, worker) is not None
