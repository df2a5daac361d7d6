"""Claiming and settling: fair, fenced, within slots, and rolled up into truthful statuses."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest
from app.calls import journal
from app.calls.journal import CallIntent
from app.db import assets, files, tasks, workers
from app.db.pool import Database
from app.db.workers import WorkerIdentity
from app.domain.jobs import (
    ClaimedJob,
    Completed,
    Deferred,
    Failed,
    HandedBack,
    Missing,
    Retry,
    Settlement,
    StoredFile,
)
from app.errors import ErrorCode
from app.queue import slots, waits
from app.services.installation import InstallationGauges

from tests import kernel
from tests.integration.factories import accept, image_plan, make_user, make_worker, model_plan, sketch_plan
from tests.integration.majors import database

__all__ = ["database"]


async def claim_all(db: Database, worker: WorkerIdentity, limit: int = 100) -> list[ClaimedJob]:
    return list((await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=limit)).jobs)


def intent(pool: str = "tripo_h") -> CallIntent:
    return CallIntent(uuid4(), "tripo", pool, "image-to-model", "hash", {"seed": 1}, 300_000, "v", 60.0)


async def stored(db: Database, job: ClaimedJob) -> tuple[StoredFile, ...]:
    made: list[StoredFile] = []
    for slot in (await assets.slots_of(db, [job.claim.job_id]))[job.claim.job_id]:
        key = f"{slot.kind}/{job.task_id}/{slot.number}"
        announced = await files.announce(
            db,
            job.claim,
            file_id=uuid4(),
            bucket="b",
            key=key,
            kind="concept",
            content_type="image/png",
            content_key="k",
        )
        assert announced is not None
        made.append(StoredFile(announced[0], slot.id, slot.kind, "b", key, f"http://x/{key}", "image/png", 3, "00"))
    return tuple(made)


async def state_of(db: Database, task_id: str, user: UUID) -> tuple[str, list[str], list[str]]:
    status = await tasks.status(db, task_id, user)
    task = await tasks.get(db, task_id, user)
    assert status is not None
    assert task is not None
    return task.status, [job["status"] for job in status.jobs], [asset["status"] for asset in status.assets]


async def test_slots_of_a_pool_are_never_exceeded_by_racing_processes(db: Database) -> None:
    user = await make_user(db)
    await db.execute("update makeit3d.pools set slots = 3 where name = 'openai'")
    for number in range(20):
        await accept(db, image_plan(user, f"task-slots-{number:02}"))
    fleet = [await make_worker(db) for _ in range(6)]
    claimed = await asyncio.gather(*(claim_all(db, worker) for worker in fleet))
    assert sum(len(jobs) for jobs in claimed) == 3


async def test_an_open_call_holds_its_slot_also_when_its_job_is_canceled(db: Database) -> None:
    user = await make_user(db)
    worker = await make_worker(db)
    await db.execute("update makeit3d.pools set slots = 1 where name = 'tripo_h'")
    await accept(db, model_plan(user, "task-hold-01"))
    await accept(db, model_plan(user, "task-hold-02"))
    (job,) = await claim_all(db, worker)
    call = intent()
    assert await journal.intend(db, job.claim, call)
    assert await journal.submitted(db, call.id, last=True, provider_task_id="t-1")
    await kernel.cancel(db, "task-hold-01", user)
    assert await claim_all(db, worker) == []
    await journal.settled(db, call.id, cost_micros=300_000)
    assert len(await claim_all(db, worker)) == 1
    # what was paid stays visible
    assert await db.fetchval("select cost_micros from makeit3d.jobs where task_id = 'task-hold-01'") == 300_000


async def test_a_job_has_at_most_one_open_call(db: Database) -> None:
    user = await make_user(db)
    worker = await make_worker(db)
    await accept(db, model_plan(user, "task-pay-001"))
    (job,) = await claim_all(db, worker)
    results = await asyncio.gather(*(journal.intend(db, job.claim, intent()) for _ in range(8)))
    assert sum(results) == 1


async def test_a_stale_claim_changes_nothing(db: Database) -> None:
    user = await make_user(db)
    worker = await make_worker(db)
    await accept(db, image_plan(user, "task-stale-1"))
    (stale,) = await claim_all(db, worker)
    await kernel.finish(db, [Settlement(stale, HandedBack())])
    (fresh,) = await claim_all(db, worker)
    assert fresh.claim.attempt == stale.claim.attempt + 1
    assert not await journal.intend(db, stale.claim, intent("openai"))
    settled = await kernel.finish(db, [Settlement(stale, Failed(ErrorCode.INTERNAL_ERROR, "late"))])
    assert settled.jobs == frozenset()
    assert (await state_of(db, "task-stale-1", user))[1] == ["running"]


async def test_steps_follow_each_other_and_a_failure_ends_the_rest(db: Database) -> None:
    user = await make_user(db)
    worker = await make_worker(db)
    await accept(db, sketch_plan(user, "task-steps-1"))
    (first,) = await claim_all(db, worker)
    settled = await kernel.finish(db, [Settlement(first, Completed(await stored(db, first), "req"))])
    assert settled.committed.lanes == {"normal"}
    assert await state_of(db, "task-steps-1", user) == ("running", ["completed", "queued"], ["complete", "pending"])
    (second,) = await claim_all(db, worker)
    await kernel.finish(db, [Settlement(second, Completed(await stored(db, second), "t"))])
    assert await state_of(db, "task-steps-1", user) == ("completed", ["completed"] * 2, ["complete"] * 2)

    await accept(db, sketch_plan(user, "task-steps-2"))
    (first,) = await claim_all(db, worker)
    await kernel.finish(db, [Settlement(first, Failed(ErrorCode.PROVIDER_CONTENT_REFUSED, "no"))])
    assert await state_of(db, "task-steps-2", user) == ("failed", ["failed"] * 2, ["failed"] * 2)
    codes = await db.fetch("select distinct error_code from models where task_id = 'task-steps-2'")
    assert [row["error_code"] for row in codes] == ["provider_content_refused"]


async def test_a_missing_picture_fails_only_its_own_row(db: Database) -> None:
    user = await make_user(db)
    worker = await make_worker(db)
    await accept(db, image_plan(user, "task-partial", n=3))
    (job,) = await claim_all(db, worker)
    made = await stored(db, job)
    missing = {made[1].asset_id: Missing(ErrorCode.PROVIDER_RESULT_INVALID, "damaged")}
    await kernel.finish(db, [Settlement(job, Completed((made[0], made[2]), "req", missing))])
    assert await state_of(db, "task-partial", user) == ("completed", ["completed"], ["complete", "failed", "complete"])


async def test_retries_wait_and_deferrals_give_the_attempt_back(db: Database) -> None:
    user = await make_user(db)
    worker = await make_worker(db)
    await accept(db, image_plan(user, "task-retry-1"))
    (job,) = await claim_all(db, worker)
    await kernel.finish(db, [Settlement(job, Retry(ErrorCode.STORAGE_UNAVAILABLE, "m", 3600))])
    assert await claim_all(db, worker) == []
    await db.execute("update makeit3d.jobs set run_after = now()")
    assert await waits.promote_due(db) == {("task-retry-1", user)}
    (job,) = await claim_all(db, worker)
    assert (job.failures, job.deferrals) == (1, 0)
    await kernel.finish(db, [Settlement(job, Deferred(ErrorCode.PROVIDER_RATE_LIMITED, "slow", 3600))])
    await db.execute("update makeit3d.jobs set run_after = now()")
    await waits.promote_due(db)
    (job,) = await claim_all(db, worker)
    assert (job.failures, job.deferrals) == (1, 1)


async def test_jobs_of_a_dead_worker_come_back_and_poison_ends(db: Database) -> None:
    user = await make_user(db)
    await accept(db, image_plan(user, "task-crash-1"))
    for crash in range(1, 4):
        worker = await make_worker(db)
        (job,) = await claim_all(db, worker)
        assert job.crashes == crash - 1
        assert job.alone == (crash > 2)
        await db.execute("update makeit3d.workers set seen_at = now() - interval '1 hour'")
        await db.execute("update makeit3d.jobs set started_at = started_at - interval '1 minute'")
        result = await kernel.sweep(db, ttl_seconds=10, max_crashes=3)
        assert result is not None
        assert len(result.dead_workers) == 1
        assert (len(result.rescued), len(result.dead_lettered)) == ((1, 0) if crash < 3 else (0, 1))
    assert await state_of(db, "task-crash-1", user) == ("failed", ["failed"], ["failed"])
    assert await db.fetchval("select error_code from concept_images") == "worker_crashed"


async def test_a_crash_with_an_intent_parks_the_job_and_with_an_id_resumes_it(db: Database) -> None:
    user = await make_user(db)
    await db.execute("update makeit3d.pools set slots = 1 where name = 'tripo_h'")
    await accept(db, model_plan(user, "task-park-01"))
    dead = await make_worker(db)
    (job,) = await claim_all(db, dead)
    call = intent()
    assert await journal.intend(db, job.claim, call)
    await db.execute("update makeit3d.workers set seen_at = now() - interval '1 hour'")
    await db.execute("update makeit3d.jobs set started_at = started_at - interval '1 minute'")
    await kernel.sweep(db, ttl_seconds=10, max_crashes=5)
    parked = await db.fetchrow("select waiting_for, run_after, resume from makeit3d.jobs")
    assert parked is not None
    assert parked["waiting_for"] == "retry"
    assert parked["run_after"] is not None
    # the late answer of the process that was only slow: nothing is waited for any more
    assert await journal.submitted(db, call.id, last=True, provider_task_id="t-9")
    assert await db.fetchval("select waiting_for is null and run_after is null from makeit3d.jobs")
    alive = await make_worker(db)
    (job,) = await claim_all(db, alive)  # the pool is full with its own call: resuming needs no slot
    assert [c.provider_task_id for c in await journal.calls_of(db, job.claim.job_id)] == ["t-9"]


async def test_a_job_that_crashed_for_the_last_time_does_not_go_on(db: Database) -> None:
    user = await make_user(db)
    await accept(db, model_plan(user, "task-last-crash"))
    (job,) = await claim_all(db, await make_worker(db))
    assert await journal.intend(db, job.claim, intent())
    await db.execute("delete from makeit3d.workers")
    await db.execute("update makeit3d.jobs set started_at = started_at - interval '1 minute'")
    result = await kernel.sweep(db, ttl_seconds=10, max_crashes=1)
    assert result is not None
    assert len(result.dead_lettered) == 1
    (row,) = await db.fetch("select status, resume, waiting_for, run_after from makeit3d.jobs")
    assert tuple(row) == ("failed", False, None, None)


async def test_cancel_ends_everything_at_once_and_only_for_the_owner(db: Database) -> None:
    user, other = await make_user(db), await make_user(db)
    worker = await make_worker(db)
    await accept(db, sketch_plan(user, "task-cancel-1"))
    (job,) = await claim_all(db, worker)
    assert await kernel.cancel(db, "task-cancel-1", other) is None
    assert await kernel.cancel(db, "task-cancel-1", user) == ["openai", "tripo_h"]
    assert await state_of(db, "task-cancel-1", user) == ("canceled", ["canceled"] * 2, ["canceled"] * 2)
    late = await kernel.finish(db, [Settlement(job, Failed(ErrorCode.INTERNAL_ERROR, "late"))])
    assert late.jobs == frozenset()
    assert await kernel.cancel(db, "task-cancel-1", user) == []


async def test_priority_goes_first_and_a_priority_worker_takes_nothing_else(db: Database) -> None:
    user = await make_user(db)
    await accept(db, image_plan(user, "task-normal-1"))
    await accept(db, image_plan(user, "task-urgent-1", lane="priority"))
    both = await make_worker(db)
    assert [job.task_id for job in await claim_all(db, both, 1)] == ["task-urgent-1"]
    urgent_only = await make_worker(db, lanes=("priority",))
    assert await claim_all(db, urgent_only) == []
    assert [job.task_id for job in await claim_all(db, both)] == ["task-normal-1"]


async def test_what_a_worker_holds_without_knowing_can_be_released(db: Database) -> None:
    user = await make_user(db)
    worker = await make_worker(db)
    await accept(db, image_plan(user, "task-lostreply"))
    (job,) = await claim_all(db, worker)
    pair = (job.claim.job_id, job.claim.attempt)
    assert await workers.running_claims(db, worker.id) == {pair: False}
    await kernel.requeue(db, worker.id, [pair])
    assert len(await claim_all(db, worker)) == 1


@pytest.mark.parametrize("resume", [False, True])
async def test_a_job_of_an_unknown_type_stays_queued_and_the_batch_runs(db: Database, *, resume: bool) -> None:
    """A newer version accepted it. No constraint of the table knows the types: they are registered in code."""
    user = await make_user(db)
    for number in range(3):
        await accept(db, image_plan(user, f"task-type-{number}"))
    await db.execute(
        "update makeit3d.jobs set type = 'of_the_future', resume = $1 where task_id = 'task-type-1'", resume
    )
    worker = await make_worker(db)
    assert [job.task_id for job in await claim_all(db, worker)] == ["task-type-0", "task-type-2"]
    assert await claim_all(db, worker) == []
    left = await db.fetchrow("select status, attempt, waiting_for from makeit3d.jobs where task_id = 'task-type-1'")
    assert left is not None
    assert dict(left) == {"status": "queued", "attempt": 0, "waiting_for": None}


async def test_a_worker_claims_only_the_types_that_it_handles(db: Database) -> None:
    user = await make_user(db)
    await accept(db, image_plan(user, "task-types-image"))
    await accept(db, model_plan(user, "task-types-model"))
    worker = await make_worker(db)
    result = await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=5, types=["generate_model"])
    assert [job.task_id for job in result.jobs] == ["task-types-model"]
    assert not result.more
    assert not result.full


async def test_who_claims_is_the_only_limit_of_a_pool_without_slots(db: Database) -> None:
    await db.execute("update makeit3d.pools set slots = null where name = 'openai'")
    plan = image_plan(await make_user(db), "task-unlimited")
    assert (await kernel.queue_of(db).accept(plan)).committed.lanes == {"normal"}
    (job,) = await claim_all(db, await make_worker(db))
    assert await slots.lend(db, job.claim)
    assert await slots.take(db, job.claim, "openai")
    told = (await InstallationGauges(db, worker_ttl_seconds=60).text()).decode()
    assert 'makeit3d_pool_slots_used{pool="openai"} 1.0' in told
    assert 'makeit3d_pool_slots{pool="openai"}' not in told
