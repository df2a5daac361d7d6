"""A job takes no longer than it may, whatever it is doing; what it paid for is followed to its end all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from app.calls import journal
from app.calls.journal import CallIntent
from app.container import build_registry
from app.db import workers
from app.db.pool import Database
from app.db.tasks import StatusRows
from app.domain.jobs import ClaimedJob, Deferred, HandedBack, Outcome, Retry, Settlement
from app.domain.operations import Operation
from app.errors import ErrorCode

from tests import kernel
from tests.chaos.gates import GatedImages, GatedModels, GatedStorage
from tests.integration.factories import accept, make_user, make_worker, model_plan, settings_for, sketch_plan
from tests.integration.workshop import PATIENCE, Workshop, open_workshop

pytestmark = pytest.mark.chaos

IMAGE, MODEL = 40_000, 200_000  # what the fakes charge, USD micros
SHORT = 1.0  # seconds that a job may take here
LIMITS: dict[str, Any] = {"time_limits": {"generate_images": SHORT, "generate_model": SHORT}}

Opening = Callable[..., AbstractAsyncContextManager[Workshop]]


@pytest.fixture
async def opening(db: Database, database: str, tmp_path: Path) -> AsyncGenerator[Opening]:
    """Opens a workshop with one worker, pools of one slot, and short time limits."""
    images, models = GatedImages(), GatedModels()

    def open_(**changes: Any) -> AbstractAsyncContextManager[Workshop]:  # noqa: ANN401 - settings by field name
        quick: dict[str, Any] = {
            "worker_ttl_seconds": 1,
            "supabase_timeout_seconds": 0.5,
            "openai_slots": 1,
            "tripo_h_slots": 1,
        }
        return open_workshop(
            db, database, tmp_path, images=images, models=models, storage=GatedStorage, **(quick | LIMITS | changes)
        )

    yield open_
    for gate in (images.post, models.preparing, models.post, models.downloading):
        gate.release()


def gated(shop: Workshop) -> tuple[GatedImages, GatedModels, GatedStorage]:
    return cast("GatedImages", shop.images), cast("GatedModels", shop.models), cast("GatedStorage", shop.storage)


def failed_late(status: StatusRows) -> bool:
    codes = [(job["status"], job["error_code"]) for job in status.jobs]
    assets = [(asset["status"], asset["error_code"]) for asset in status.assets]
    return codes == assets == [("failed", "deadline_exceeded")] * len(codes)


async def until_calls(shop: Workshop, *calls: tuple[str, str | None, int | None]) -> None:
    async with asyncio.timeout(PATIENCE):
        while await shop.calls() != list(calls):
            await asyncio.sleep(0.02)


async def assert_the_slot_is_free(shop: Workshop, operation: Operation) -> None:
    """Another job gets it; that one has all the time it needs."""
    shop.settings.time_limits = {}
    await shop.workers.pop().aclose()
    await shop.start()
    status = await shop.finished(await shop.ask(operation, "task-after-it"))
    assert status.jobs[0]["status"] == "completed"


async def test_a_handler_that_hangs(opening: Opening) -> None:
    async with opening() as shop:
        _, models, _ = gated(shop)
        models.preparing.hold()
        task = await shop.ask(Operation.TEXT_TO_MODEL, "task-late-handler")
        assert failed_late(await shop.finished(task))
        models.preparing.release()
        assert models.ledger.posts == 0
        await assert_the_slot_is_free(shop, Operation.TEXT_TO_MODEL)


async def test_a_provider_that_works_for_ever_gives_its_slot_back_in_the_end(opening: Opening) -> None:
    async with opening(call_give_up_seconds=3) as shop:
        shop.models.polls = 10**9
        task = await shop.ask(Operation.TEXT_TO_MODEL, "task-late-provider")
        assert failed_late(await shop.finished(task))
        # the provider still works for us: its slot is not ours to give away
        assert await shop.calls() == [("submitted", None, None)]
        shop.models.polls = 1
        await assert_the_slot_is_free(shop, Operation.TEXT_TO_MODEL)
        calls = await shop.calls()
        assert calls[0] == ("settled", "deadline_exceeded", MODEL)
        assert await shop.db.fetchval(
            "select cost_is_estimate from makeit3d.provider_calls order by created_at limit 1"
        )
        assert (await shop.status(task)).jobs[0]["cost_micros"] == MODEL


async def test_a_late_success_is_booked_and_its_file_is_not_kept(opening: Opening) -> None:
    async with opening() as shop:
        _, models, _ = gated(shop)
        models.polls = 10**9
        task = await shop.ask(Operation.TEXT_TO_MODEL, "task-late-success")
        assert failed_late(await shop.finished(task))
        models.finish_all()
        await until_calls(shop, ("settled", None, MODEL))
        assert failed_late(await shop.status(task))
        assert (await shop.status(task)).jobs[0]["cost_micros"] == MODEL
        assert await shop.keys() == []


async def test_an_image_call_in_flight(opening: Opening) -> None:
    """The job ends on time; the reply that comes later is booked at what it really cost."""
    async with opening() as shop:
        images, _, _ = gated(shop)
        images.post.hold()
        task = await shop.ask(Operation.TEXT_TO_IMAGE, "task-late-reply", n=1)
        assert failed_late(await shop.finished(task))
        assert [state for state, _, _ in await shop.calls()] == ["intent"]
        images.post.release()
        await until_calls(shop, ("settled", None, IMAGE))
        assert failed_late(await shop.status(task))
        assert await shop.keys() == []
        assert images.ledger.posts == 1
        await assert_the_slot_is_free(shop, Operation.TEXT_TO_IMAGE)


async def test_an_upload_that_hangs(opening: Opening) -> None:
    async with opening() as shop:
        storage = gated(shop)[2]
        storage.after.hold()
        task = await shop.ask(Operation.TEXT_TO_MODEL, "task-late-upload")
        assert failed_late(await shop.finished(task))
        async with asyncio.timeout(PATIENCE):
            while await shop.keys() or await shop.db.fetchval(
                "select count(*) from makeit3d.files where state <> 'removed'"
            ):
                await asyncio.sleep(0.02)


async def test_attempts_that_go_on_with_paid_work_share_one_time(opening: Opening) -> None:
    """Storage is away: the paid result is tried again and again, but not for ever."""
    async with opening(max_attempts=10**6, time_limits={"generate_model": 3}) as shop:
        storage = gated(shop)[2]
        storage.refuses = True
        task = await shop.ask(Operation.TEXT_TO_MODEL, "task-late-retries")
        assert failed_late(await shop.finished(task))
        assert await shop.db.fetchval("select attempt from makeit3d.jobs") > 1
        assert shop.models.ledger.paid_calls == 1


async def test_the_steps_that_wait_for_a_late_one_fail_with_it(opening: Opening) -> None:
    async with opening() as shop:
        images, _, _ = gated(shop)
        images.post.hold()
        picture = await shop.put_picture()
        task = await shop.ask(Operation.SKETCH_TO_MODEL, "task-late-steps", pictures=[picture])
        status = await shop.finished(task)
        assert failed_late(status)
        assert len(status.jobs) == 2
        images.post.release()


# --- the rules, in the database ---------------------------------------------------------------------------------


async def claim_one(db: Database, limit: float) -> ClaimedJob:
    worker = await make_worker(db)
    limits = {"generate_model": limit, "generate_images": limit}
    (job,) = (await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=5, time_limits=limits)).jobs
    return job


async def pay(db: Database, job: ClaimedJob) -> None:
    intent = CallIntent(uuid4(), "tripo", "tripo_h", "image-to-model", "hash", {}, 300_000, "v", 60.0)
    assert await journal.intend(db, job.claim, intent)
    assert await journal.submitted(db, intent.id, last=True, provider_task_id="task-1")


async def test_a_job_of_a_process_that_is_stuck_is_ended_by_the_sweep(db: Database) -> None:
    user = await make_user(db)
    await accept(db, sketch_plan(user, "task-late-sweep"))
    job = await claim_one(db, 0.0)
    result = await kernel.sweep(db, ttl_seconds=60, max_crashes=3)
    assert result is not None
    assert result.overdue == ()  # its own process has the first word
    await db.execute("update makeit3d.jobs set deadline = deadline - interval '61 seconds'")
    result = await kernel.sweep(db, ttl_seconds=60, max_crashes=3)
    assert result is not None
    assert (len(result.overdue), len(result.rescued)) == (1, 0)
    assert result.committed.tasks == {("task-late-sweep", user)}
    rows = await db.fetch("select status, error_code from makeit3d.jobs")
    assert {tuple(row) for row in rows} == {("failed", "deadline_exceeded")}
    assert len(rows) == 2
    for table in ("concept_images", "models"):
        assert await db.fetchval(f"select status from {table}") == "failed"  # noqa: S608
    assert await db.fetchval("select status from makeit3d.tasks") == "failed"
    stale = await kernel.finish(db, [Settlement(job, HandedBack())])
    assert stale.jobs == frozenset()


@pytest.mark.parametrize(
    "outcome",
    [
        HandedBack(),
        Deferred(None, None, 0.0),
        Retry(ErrorCode.STORAGE_UNAVAILABLE, "away", 0.0),
    ],
)
async def test_paid_work_goes_on_with_what_is_left_and_the_queue_does_not_count(db: Database, outcome: Outcome) -> None:
    await accept(db, model_plan(await make_user(db), "task-late-rest"))
    job = await claim_one(db, 100.0)
    await pay(db, job)
    await db.execute("update makeit3d.jobs set deadline = deadline - interval '60 seconds'")  # a minute of work
    await kernel.finish(db, [Settlement(job, outcome)])
    await db.execute("update makeit3d.jobs set created_at = created_at - interval '1 hour'")  # an hour in the queue
    again = await claim_one(db, 100.0)
    assert again.time_left_seconds == pytest.approx(40.0, abs=5.0)


async def test_an_attempt_that_paid_nothing_has_all_the_time(db: Database) -> None:
    await accept(db, model_plan(await make_user(db), "task-late-free"))
    job = await claim_one(db, 100.0)
    await db.execute("update makeit3d.jobs set deadline = deadline - interval '60 seconds'")
    await kernel.finish(db, [Settlement(job, Deferred(ErrorCode.PROVIDER_BUSY, "full", 0.0))])
    assert (await claim_one(db, 100.0)).time_left_seconds == pytest.approx(100.0, abs=5.0)


async def test_a_crash_takes_no_time_from_the_job(db: Database) -> None:
    """Nobody knows when the process died, and crashes have a limit of their own."""
    await accept(db, model_plan(await make_user(db), "task-late-crash"))
    job = await claim_one(db, 100.0)
    await pay(db, job)
    await db.execute(
        "update makeit3d.jobs set started_at = now() - interval '1 hour', deadline = now() - interval '50 minutes'"
    )
    await workers.remove(db, job.claim.worker_id)
    result = await kernel.sweep(db, ttl_seconds=10, max_crashes=3)
    assert result is not None
    assert (len(result.rescued), len(result.overdue)) == (1, 0)
    assert (await claim_one(db, 100.0)).time_left_seconds == pytest.approx(100.0, abs=5.0)


def test_every_job_type_has_a_limit_above_what_its_provider_may_take(tmp_path: Path) -> None:
    settings = settings_for("postgresql://x", tmp_path)
    registry = build_registry()
    limits = registry.job_types.time_limits(settings)
    timeouts = [spec.settings.of(settings).timeout_seconds for spec in registry.providers.specs]
    slowest = max(*timeouts, settings.reconcile_window_seconds)
    assert min(limits.values()) > slowest
    assert settings.call_give_up_seconds > max(limits.values())
