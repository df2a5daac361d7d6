"""Limits of one user: places, unfinished jobs and money, never exceeded however the user's requests race."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from app.calls import journal
from app.calls.journal import CallIntent
from app.db import tasks
from app.db.pool import Database
from app.domain.jobs import ClaimedJob, Completed, Failed, Retry, Settlement
from app.domain.operations import Operation
from app.domain.user_limits import UserLimits
from app.errors import AppError, ErrorCode
from app.queue import permits
from app.queue.contracts import StepPlan
from app.queue.plans import RequestPlan

from tests import kernel
from tests.chaos.gates import GatedImages
from tests.fake_providers import FakeModels
from tests.integration.factories import (
    accept,
    image_plan,
    local_step,
    make_user,
    make_worker,
    model_plan,
    sketch_plan,
    stepped_plan,
)
from tests.integration.majors import database
from tests.integration.workshop import PATIENCE, open_workshop

__all__ = ["database"]

THREE = UserLimits(in_flight=3)

_IN_FLIGHT = (
    "select count(*) from makeit3d.jobs where status = 'running' or (status = 'queued' and waiting_for is null)"
)


async def waiting_for(db: Database, task_id: str) -> str | None:
    return await db.fetchval("select waiting_for from makeit3d.jobs where task_id = $1", task_id)


async def claim_all(db: Database) -> list[ClaimedJob]:
    worker = await make_worker(db)
    return list((await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=100)).jobs)


async def test_racing_accepts_never_exceed_the_places_and_the_others_wait(db: Database) -> None:
    user, other = await make_user(db), await make_user(db)
    plans = [image_plan(user, f"task-place-{number:02}") for number in range(20)]
    waits = await asyncio.gather(*(kernel.accept(db, plan, THREE) for plan in plans))
    assert sum(waits) == 17
    assert await db.fetchval(_IN_FLIGHT) == 3
    assert not await kernel.accept(db, image_plan(other, "task-other-01"), THREE)
    held_back = next(plan.task_id for plan, waiting in zip(plans, waits, strict=True) if waiting)
    status = await tasks.status(db, held_back, user)
    assert status is not None
    assert status.jobs[0]["waiting_for"] == "user_limit"
    assert len(await claim_all(db)) == 4


async def test_a_place_that_came_free_goes_to_the_oldest_and_racing_releases_give_it_once(db: Database) -> None:
    user = await make_user(db)
    for number in range(6):
        await kernel.accept(db, image_plan(user, f"task-order-{number}"), THREE)
    jobs = await claim_all(db)
    assert [job.task_id for job in jobs] == ["task-order-0", "task-order-1", "task-order-2"]
    await kernel.finish(db, [Settlement(jobs[1], Failed(ErrorCode.PROVIDER_CONTENT_REFUSED, "no"))])
    assert await permits.waiting(db, [user]) == [user]
    lanes = await asyncio.gather(*(permits.release(db, user, in_flight=3) for _ in range(5)))
    assert [set(found.lanes) for found in lanes if found.lanes] == [{"normal"}]
    assert [job.task_id for job in await claim_all(db)] == ["task-order-3"]
    await kernel.cancel(db, "task-order-0", user)
    assert (await permits.release(db, user, in_flight=3)).lanes == {"normal"}
    assert [job.task_id for job in await claim_all(db)] == ["task-order-4"]


async def test_accepts_and_releases_that_race_end_with_every_place_given(db: Database) -> None:
    """An accept that found no place and the end of a job that made one may not miss each other."""
    user = await make_user(db)

    async def ask(number: int) -> None:
        if await kernel.accept(db, image_plan(user, f"task-cross-{number:02}"), THREE):
            await permits.release(db, user, in_flight=3)

    async def work() -> None:
        for job in await claim_all(db):
            await kernel.finish(db, [Settlement(job, Failed(ErrorCode.PROVIDER_CONTENT_REFUSED, "no"))])
            for waiting in await permits.waiting(db, [user]):
                await permits.release(db, waiting, in_flight=3)
            assert await db.fetchval(_IN_FLIGHT) <= 3

    await asyncio.gather(*(ask(number) for number in range(12)), *(work() for _ in range(12)))
    while await db.fetchval("select count(*) from makeit3d.jobs where status in ('queued', 'running')"):
        before = await db.fetchval("select count(*) from makeit3d.jobs where status = 'failed'")
        await work()
        assert await db.fetchval("select count(*) from makeit3d.jobs where status = 'failed'") > before


async def test_a_retry_keeps_its_place_and_an_open_call_of_a_canceled_job_holds_one(db: Database) -> None:
    user = await make_user(db)
    one = UserLimits(in_flight=1)
    await kernel.accept(db, model_plan(user, "task-keeps-01"), one)
    await kernel.accept(db, model_plan(user, "task-keeps-02"), one)
    (job,) = await claim_all(db)
    await kernel.finish(db, [Settlement(job, Retry(ErrorCode.STORAGE_UNAVAILABLE, "later", 3600))])
    assert (await permits.release(db, user, in_flight=1)).lanes == frozenset()
    await db.execute("update makeit3d.jobs set run_after = null, waiting_for = null where waiting_for = 'retry'")
    (job,) = await claim_all(db)
    call = CallIntent(uuid4(), "tripo", "tripo_h", "text-to-model", "hash", {}, 200_000, "v", 60.0)
    assert await journal.intend(db, job.claim, call)
    assert await journal.submitted(db, call.id, last=True, provider_task_id="t-1")
    await kernel.cancel(db, "task-keeps-01", user)
    assert (await permits.release(db, user, in_flight=1)).lanes == frozenset()
    await journal.settled(db, call.id, cost_micros=200_000)
    assert (await permits.release(db, user, in_flight=1)).lanes == {"normal"}


async def test_the_next_step_takes_the_place_of_the_one_before(db: Database) -> None:
    user = await make_user(db)
    one = UserLimits(in_flight=1)
    await kernel.accept(db, sketch_plan(user, "task-step-001"), one)
    await kernel.accept(db, image_plan(user, "task-step-002"), one)
    assert await waiting_for(db, "task-step-002") == "user_limit"
    (job,) = await claim_all(db)
    await kernel.finish(db, [Settlement(job, Completed(()))])
    assert (await permits.release(db, user, in_flight=1)).lanes == frozenset()
    (job,) = await claim_all(db)
    assert (job.task_id, job.step) == ("task-step-001", 2)


async def test_places_left_by_a_crash_or_a_changed_setting_are_found(db: Database) -> None:
    users = sorted([await make_user(db) for _ in range(3)])
    for user in users:
        for number in range(5):
            await kernel.accept(db, image_plan(user, f"task-{user}-{number}"), UserLimits(in_flight=1))
    assert await permits.all_waiting(db) == users
    for user in users:
        await permits.release(db, user, in_flight=None)
    assert await db.fetchval(_IN_FLIGHT) == 15
    assert await permits.all_waiting(db) == []


async def test_jobs_of_a_deleted_user_are_held_back_by_nobody(db: Database) -> None:
    user = await make_user(db)
    for number in range(3):
        await kernel.accept(db, image_plan(user, f"task-gone-{number}"), UserLimits(in_flight=1))
    await db.execute("delete from auth.users where id = $1", user)
    assert (await permits.release_ownerless(db)).lanes == {"normal"}
    assert len(await claim_all(db)) == 3


async def test_unfinished_jobs_beyond_the_limit_are_refused_and_write_nothing(db: Database) -> None:
    user = await make_user(db)
    limits = UserLimits(in_flight=1, unfinished=4)
    plans = [image_plan(user, f"task-full-{number:02}") for number in range(10)]
    results = await asyncio.gather(*(kernel.accept(db, plan, limits) for plan in plans), return_exceptions=True)
    refused = [result for result in results if isinstance(result, AppError)]
    assert [error.error for error in refused] == [ErrorCode.USER_LIMIT] * 6
    assert await db.fetchval("select count(*) from makeit3d.tasks") == 4
    assert await db.fetchval("select count(*) from makeit3d.events where type = 'task_update'") == 4


# --- money ------------------------------------------------------------------------------------------------------


def priced(user: UUID, task_id: str, micros: int) -> RequestPlan:
    plan = image_plan(user, task_id)
    return replace(plan, jobs=[replace(job, estimate_micros=micros) for job in plan.jobs])


async def test_racing_accepts_never_reserve_more_than_the_budget(db: Database) -> None:
    user = await make_user(db)
    limits = UserLimits(daily_budget_micros=1_000_000)
    plans = [priced(user, f"task-money-{number:02}", 300_000) for number in range(12)]
    results = await asyncio.gather(*(kernel.accept(db, plan, limits) for plan in plans), return_exceptions=True)
    assert sum(result is False for result in results) == 3
    refused = [result for result in results if isinstance(result, AppError)]
    assert {error.error for error in refused} == {ErrorCode.USER_BUDGET_EXCEEDED}
    assert "1.00 USD" in (refused[0].detail or "")
    assert 0 < (refused[0].retry_after or 0) <= 86_400
    assert await db.fetchval("select count(*) from makeit3d.requests") == 3


async def test_what_a_call_cost_replaces_its_estimate_and_yesterday_does_not_count(db: Database) -> None:
    user = await make_user(db)
    limits = UserLimits(daily_budget_micros=1_000_000)
    await kernel.accept(db, priced(user, "task-spent-01", 800_000), limits)

    async def refused(micros: int) -> bool:
        try:
            await kernel.accept(db, priced(user, f"task-{uuid4()}", micros), limits)
        except AppError as error:
            return error.error is ErrorCode.USER_BUDGET_EXCEEDED
        return False

    assert await refused(300_000)
    (job,) = await claim_all(db)
    call = CallIntent(uuid4(), "openai", "openai", "text-to-image", "hash", {}, 800_000, "v", 60.0)
    assert await journal.intend(db, job.claim, call)
    assert await refused(300_000)  # one job, counted once: its open call is what it reserved
    assert not await refused(200_000)
    await journal.settled(db, call.id, cost_micros=500_000, result={"files": [], "missing": {}})
    assert not await refused(0)
    await kernel.finish(db, [Settlement(job, Completed(()))])
    assert await refused(300_001)
    assert not await refused(300_000)
    await db.execute(
        "update makeit3d.provider_calls set created_at = date_trunc('day', now(), 'UTC') - interval '1 second'"
    )
    assert not await refused(500_000)


async def test_a_failed_job_gives_its_reservation_back(db: Database) -> None:
    user = await make_user(db)
    limits = UserLimits(daily_budget_micros=1_000_000)
    await kernel.accept(db, priced(user, "task-back-001", 1_000_000), limits)
    (job,) = await claim_all(db)
    await kernel.finish(db, [Settlement(job, Failed(ErrorCode.PROVIDER_CONTENT_REFUSED, "no"))])
    await kernel.accept(db, priced(user, "task-back-002", 1_000_000), limits)


def later(user: UUID, task_id: str, micros: int) -> RequestPlan:
    """What it may cost is known, and how many jobs it takes is not."""
    paid = StepPlan(2, "generate_images", "openai", "normal", 50, "openai", estimate_micros=micros, items_from=1)
    return stepped_plan(user, task_id, local_step(1), paid)


async def test_a_step_whose_jobs_are_made_later_is_reserved_from_the_start(db: Database) -> None:
    user = await make_user(db)
    limits = UserLimits(daily_budget_micros=1_000_000)
    await kernel.accept(db, later(user, "task-later-01", 700_000), limits)
    for plan in (later(user, "task-later-02", 300_001), priced(user, "task-later-03", 300_001)):
        with pytest.raises(AppError) as caught:
            await kernel.accept(db, plan, limits)
        assert caught.value.error is ErrorCode.USER_BUDGET_EXCEEDED
    worker = await make_worker(db)
    claimed = await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=9, types=["polish_pebbles"])
    await kernel.finish(db, [Settlement(claimed.jobs[0], Completed())])
    assert await db.fetchval("select count(*) from makeit3d.jobs where step = 2") == 1
    # now by its job, once
    with pytest.raises(AppError):
        await kernel.accept(db, priced(user, "task-later-04", 300_001), limits)
    await kernel.accept(db, priced(user, "task-later-05", 300_000), limits)


async def test_a_request_dearer_than_a_whole_day_is_not_told_to_come_back(db: Database) -> None:
    user = await make_user(db)
    with pytest.raises(AppError) as caught:
        await kernel.accept(db, priced(user, "task-dear-001", 2_000_000), UserLimits(daily_budget_micros=1_000_000))
    assert caught.value.retry_after is None


async def test_without_limits_nothing_waits(db: Database) -> None:
    user = await make_user(db)
    for number in range(5):
        await accept(db, image_plan(user, f"task-free-{number}"))
    assert await db.fetchval("select count(*) from makeit3d.jobs where waiting_for is null") == 5


# --- with workers -----------------------------------------------------------------------------------------------


async def test_workers_give_every_place_on(db: Database, database: str, tmp_path: Path) -> None:
    """No sweep helps: each end of a job lets the next one in."""
    async with open_workshop(db, database, tmp_path, workers=2, user_max_in_flight=2, sweep_seconds=600) as shop:
        names = [await shop.ask(Operation.TEXT_TO_MODEL, f"task-places-{number:02}") for number in range(9)]
        for name in names:
            assert (await shop.finished(name)).jobs[0]["status"] == "completed"


async def test_a_call_that_outlives_its_canceled_job_gives_its_place_on_when_it_ends(
    db: Database, database: str, tmp_path: Path
) -> None:
    models = FakeModels(polls=40)
    async with open_workshop(
        db, database, tmp_path, models=models, user_max_in_flight=1, worker_ttl_seconds=1, sweep_seconds=0.2
    ) as shop:
        first = await shop.ask(Operation.TEXT_TO_MODEL, "task-outlive-1")
        second = await shop.ask(Operation.TEXT_TO_MODEL, "task-outlive-2")
        async with asyncio.timeout(PATIENCE):
            while [state for state, _, _ in await shop.calls()] != ["submitted"]:
                await asyncio.sleep(0.02)
        await kernel.cancel(db, first, shop.user)
        assert (await shop.status(second)).jobs[0]["waiting_for"] == "user_limit"
        assert (await shop.finished(second)).jobs[0]["status"] == "completed"
        assert [state for state, _, _ in await shop.calls()] == ["settled", "settled"]


async def test_the_sweep_finds_places_that_nobody_gave_on(db: Database, database: str, tmp_path: Path) -> None:
    async with open_workshop(db, database, tmp_path, workers=0, user_max_in_flight=1) as shop:
        first = await shop.ask(Operation.TEXT_TO_MODEL, "task-swept-001")
        second = await shop.ask(Operation.TEXT_TO_MODEL, "task-swept-002")
        await kernel.cancel(db, first, shop.user)  # and whoever did it dies before it tells
        await shop.start()
        assert (await shop.finished(second)).jobs[0]["status"] == "completed"


async def test_a_reply_that_comes_after_its_job_was_canceled_gives_the_place_on(
    db: Database, database: str, tmp_path: Path
) -> None:
    images = GatedImages()
    images.post.hold()
    async with open_workshop(
        db, database, tmp_path, images=images, user_max_in_flight=1, worker_ttl_seconds=1, sweep_seconds=600
    ) as shop:
        first = await shop.ask(Operation.TEXT_TO_IMAGE, "task-late-0001")
        await images.post.until_reached()
        second = await shop.ask(Operation.TEXT_TO_IMAGE, "task-late-0002")
        await kernel.cancel(db, first, shop.user)
        images.post.release()
        assert (await shop.finished(second)).jobs[0]["status"] == "completed"


async def test_a_job_reserves_what_its_calls_are_estimated_at(db: Database, database: str, tmp_path: Path) -> None:
    async with open_workshop(db, database, tmp_path) as shop:
        picture = await shop.put_picture()
        for operation in (Operation.TEXT_TO_IMAGE, Operation.TEXT_TO_MODEL, Operation.SKETCH_TO_MODEL):
            pictures = [picture] if operation is Operation.SKETCH_TO_MODEL else []
            await shop.finished(await shop.ask(operation, f"task-{operation.value}", pictures=pictures))
    rows = await db.fetch(
        "select j.estimate_micros as reserved, c.estimate_micros as called"
        " from makeit3d.jobs j join makeit3d.provider_calls c on c.job_id = j.id"
    )
    assert len(rows) == 4
    assert all(row["reserved"] == row["called"] > 0 for row in rows)
