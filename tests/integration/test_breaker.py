"""The circuit breaker in the database: who may be claimed, who is the one probe, what opens and closes it."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

from app.calls import journal
from app.calls.journal import CallIntent
from app.db import breakers, tasks, workers
from app.db.pool import Database
from app.db.workers import WorkerIdentity
from app.domain.breakers import BreakerState
from app.domain.jobs import ClaimedJob, Deferred, Settlement
from app.domain.statuses import WaitingFor
from app.errors import ErrorCode
from app.queue import waits

from tests import kernel
from tests.integration.factories import accept, image_plan, make_user, make_worker, model_plan
from tests.integration.majors import database

__all__ = ["database"]


async def claim(db: Database, worker: WorkerIdentity, limit: int = 100) -> list[ClaimedJob]:
    return list((await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=limit)).jobs)


async def fail(db: Database, *, job_id: UUID | None = None, at_once: bool = True, provider: str = "tripo") -> bool:
    """One failure of the provider; whether it opened the breaker."""
    _, opened = await breakers.failed(
        db,
        provider,
        job_id=job_id,
        error_code=ErrorCode.PROVIDER_KEY_REJECTED.code,
        at_once=at_once,
        threshold=3,
        cool_down_seconds=60.0,
        longest_seconds=200.0,
    )
    return opened


async def state(db: Database, provider: str = "tripo") -> BreakerState:
    return next(found.state for found in await breakers.read_all(db) if found.provider == provider)


async def cool_down(db: Database) -> None:
    """The time to the next probe is over."""
    await db.execute("update makeit3d.providers set probe_at = now() where state = 'open'")


async def call_of(db: Database, job: ClaimedJob) -> UUID:
    intent = CallIntent(uuid4(), "tripo", "tripo_h", "text-to-model", "hash", {}, 300_000, "v", 60.0)
    assert await journal.intend(db, job.claim, intent)
    return intent.id


async def waiting_for(db: Database, task_id: str, user: UUID) -> str | None:
    status = await tasks.status(db, task_id, user)
    assert status is not None
    return status.jobs[0]["waiting_for"]


async def test_an_open_breaker_keeps_its_providers_jobs_and_no_others(db: Database) -> None:
    user, worker = await make_user(db), await make_worker(db)
    await accept(db, model_plan(user, "task-model-1"))
    await accept(db, image_plan(user, "task-image-1"))
    assert await fail(db)
    assert (await waiting_for(db, "task-model-1", user), await waiting_for(db, "task-image-1", user)) == (
        "breaker",
        "worker",
    )
    assert [job.task_id for job in await claim(db, worker)] == ["task-image-1"]
    assert await db.fetch(waits.CLAIMABLE_LANES) == []
    assert await waits.lanes_with_room(db, ["tripo_h"]) == set()
    assert await breakers.close(db, "tripo")
    assert await waits.lanes_with_room(db, ["tripo_h"]) == {"normal"}
    assert [job.task_id for job in await claim(db, worker)] == ["task-model-1"]
    assert not await breakers.close(db, "tripo")


async def test_a_claim_under_way_sees_a_breaker_that_opens_before_it_counts_slots(db: Database) -> None:
    user, worker = await make_user(db), await make_worker(db)
    await accept(db, model_plan(user, "task-model-1"))
    async with db.transaction() as connection:
        await connection.execute("select from makeit3d.pools for no key update")
        claiming = asyncio.create_task(claim(db, worker))  # it has seen that work is waiting, and a closed breaker
        async with asyncio.timeout(20):
            while not await db.fetchval(
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            ):
                await asyncio.sleep(0.02)
        assert await fail(db)
    assert await claiming == []


async def test_after_the_cool_down_one_claim_of_many_gets_one_job(db: Database) -> None:
    user = await make_user(db)
    crowd = [await make_worker(db) for _ in range(6)]
    for number in range(12):
        await accept(db, model_plan(user, f"task-probe-{number:02}"))
    await fail(db)
    await cool_down(db)
    claimed = [job for jobs in await asyncio.gather(*(claim(db, worker) for worker in crowd)) for job in jobs]
    assert len(claimed) == 1
    assert await state(db) is BreakerState.HALF_OPEN
    assert await waiting_for(db, "task-probe-11", user) == "breaker"
    assert [await claim(db, worker) for worker in crowd] == [[]] * 6
    await journal.submitted(db, call := await call_of(db, claimed[0]), last=True, provider_task_id="t")
    assert await breakers.accepted(db, "tripo", call)
    assert await state(db) is BreakerState.CLOSED
    assert len(await claim(db, crowd[0])) == 9  # as many as there are slots besides the probe's


async def test_a_probe_that_fails_waits_longer_for_the_next(db: Database) -> None:
    user, worker = await make_user(db), await make_worker(db)
    await accept(db, model_plan(user, "task-probe-1"))
    await fail(db)
    pauses: list[float] = []
    for _ in range(3):
        (found,) = [found for found in await breakers.read_all(db) if found.provider == "tripo"]
        assert found.probe_seconds is not None
        pauses.append(round(found.probe_seconds))
        await cool_down(db)
        (job,) = await claim(db, worker)
        assert not await fail(db, job_id=uuid4())  # a call that was under way before says nothing new
        assert await fail(db, job_id=job.claim.job_id)
        outcome = Deferred(ErrorCode.PROVIDER_KEY_REJECTED, "no", 60.0, WaitingFor.BREAKER)
        await kernel.finish(db, [Settlement(job, outcome)])
        assert await waiting_for(db, "task-probe-1", user) == "breaker"
        await db.execute("update makeit3d.jobs set run_after = now()")
        await waits.promote_due(db)
    assert pauses == [60, 120, 200]
    assert await db.fetchval("select (failures, deferrals)::text from makeit3d.jobs") == "(0,3)"


async def test_a_probe_whose_process_dies_leaves_the_place_to_another(db: Database) -> None:
    user, dying, living = await make_user(db), await make_worker(db), await make_worker(db)
    for number in range(3):
        await accept(db, model_plan(user, f"task-probe-{number}"))
    await fail(db)
    await cool_down(db)
    assert len(await claim(db, dying)) == 1
    assert await claim(db, living) == []
    await workers.remove(db, dying.id)
    await db.execute("update makeit3d.jobs set started_at = now() - interval '1 minute' where status = 'running'")
    await kernel.sweep(db, ttl_seconds=60, max_crashes=5)
    assert len(await claim(db, living)) == 1
    assert await claim(db, living) == []


async def test_paid_work_goes_on_while_the_breaker_is_open(db: Database) -> None:
    user, worker = await make_user(db), await make_worker(db)
    await accept(db, model_plan(user, "task-paid-1"))
    (job,) = await claim(db, worker)
    await journal.submitted(db, await call_of(db, job), last=True, provider_task_id="t")
    await fail(db)
    await kernel.finish(db, [Settlement(job, Deferred(None, None, 0.0))])
    assert await waiting_for(db, "task-paid-1", user) == "worker"
    assert [again.task_id for again in await claim(db, worker)] == ["task-paid-1"]


async def test_failures_in_a_row_open_it_and_an_accepted_call_begins_the_count_anew(db: Database) -> None:
    user, worker = await make_user(db), await make_worker(db)
    await accept(db, model_plan(user, "task-count-1"))
    (job,) = await claim(db, worker)
    call = await call_of(db, job)
    assert [await fail(db, at_once=False) for _ in range(2)] == [False, False]
    assert not await breakers.accepted(db, "tripo", call)
    assert [await fail(db, at_once=False) for _ in range(3)] == [False, False, True]
    # it was sent before the trouble began
    assert not await breakers.accepted(db, "tripo", call)
    assert await state(db) is BreakerState.OPEN


async def test_nothing_is_written_while_all_is_well(db: Database) -> None:
    user, worker = await make_user(db), await make_worker(db)
    await accept(db, model_plan(user, "task-well-1"))
    (job,) = await claim(db, worker)
    before = await db.fetchval("select xmin::text from makeit3d.providers where name = 'tripo'")
    assert not await breakers.accepted(db, "tripo", await call_of(db, job))
    assert await db.fetchval("select xmin::text from makeit3d.providers where name = 'tripo'") == before


async def test_a_probe_that_is_put_off_is_no_verdict(db: Database) -> None:
    user, worker = await make_user(db), await make_worker(db)
    await accept(db, model_plan(user, "task-later-1"))
    await fail(db)
    await cool_down(db)
    (job,) = await claim(db, worker)
    await breakers.postpone(db, "tripo", job_id=job.claim.job_id, seconds=30)
    (found,) = [found for found in await breakers.read_all(db) if found.provider == "tripo"]
    assert (found.state, found.trips) == (BreakerState.OPEN, 1)
    probe = await breakers.next_probe_seconds(db)
    assert probe is not None
    assert 0 < probe <= 30


async def test_an_outage_that_lasts_fails_what_waited_through_it(db: Database) -> None:
    user = await make_user(db)
    await accept(db, model_plan(user, "task-old-1"))
    await accept(db, image_plan(user, "task-other-1"))
    await fail(db)
    assert await kernel.expire_stranded(db, max_wait_seconds=3600) == []
    await db.execute("update makeit3d.jobs set created_at = now() - interval '2 hours'")
    assert await kernel.expire_stranded(db, max_wait_seconds=3600) == []  # the outage itself is young
    await db.execute("update makeit3d.providers set opened_at = now() - interval '2 hours' where state = 'open'")
    await accept(db, model_plan(user, "task-young-1"))
    assert await kernel.expire_stranded(db, max_wait_seconds=3600) == [("task-old-1", user)]
    status = await tasks.status(db, "task-old-1", user)
    assert status is not None
    assert [(job["status"], job["error_code"]) for job in status.jobs] == [("failed", "provider_key_rejected")]
    assert [(row["status"], row["error_code"]) for row in status.assets] == [("failed", "provider_key_rejected")]
    assert await waiting_for(db, "task-young-1", user) == "breaker"
