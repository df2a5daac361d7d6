"""Readers of the event log see why a job waits, and that it goes on, before it runs."""

from __future__ import annotations

from app.db.pool import Database
from app.domain.jobs import ClaimedJob, Completed, Retry, Settlement
from app.domain.user_limits import UserLimits
from app.errors import ErrorCode
from app.queue import permits, waits

from tests import kernel
from tests.integration.factories import accept, image_plan, make_user, make_worker, sketch_plan


async def claim(db: Database) -> ClaimedJob:
    worker = await make_worker(db)
    (job,) = (await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=5)).jobs
    return job


async def told(db: Database, task_id: str, *, step: int = 1) -> list[tuple[str, str | None]]:
    rows = await db.fetch(
        "select payload->>'status' as status, payload->>'waiting_for' as waiting_for from makeit3d.events"
        " where task_id = $1 and type = 'job_update' and (payload->>'step')::int = $2 order by events.xid, id",
        task_id,
        step,
    )
    return [(row["status"], row["waiting_for"]) for row in rows]


async def test_a_place_of_the_user(db: Database) -> None:
    user = await make_user(db)
    one = UserLimits(in_flight=1)
    await kernel.accept(db, image_plan(user, "task-told-01"), one)
    await kernel.accept(db, image_plan(user, "task-told-02"), one)
    await kernel.finish(db, [Settlement(await claim(db), Completed(()))])
    released = await permits.release(db, user, in_flight=1)
    assert (released.lanes, released.tasks) == ({"normal"}, {("task-told-02", user)})
    assert await told(db, "task-told-02") == [("queued", "user_limit"), ("queued", None)]
    await claim(db)
    assert (await told(db, "task-told-02"))[2:] == [("running", None)]


async def test_a_place_of_a_user_who_is_gone(db: Database) -> None:
    user = await make_user(db)
    for number in range(2):
        await kernel.accept(db, image_plan(user, f"task-told-0{number}"), UserLimits(in_flight=1))
    await db.execute("delete from auth.users where id = $1", user)
    assert (await permits.release_ownerless(db)).tasks == {("task-told-01", None)}
    assert await told(db, "task-told-01") == [("queued", "user_limit"), ("queued", None)]


async def test_a_step_before(db: Database) -> None:
    await accept(db, sketch_plan(await make_user(db), "task-told-03"))
    await kernel.finish(db, [Settlement(await claim(db), Completed(()))])
    assert await told(db, "task-told-03", step=2) == [("queued", "step"), ("queued", None)]


async def test_a_time(db: Database) -> None:
    user = await make_user(db)
    await accept(db, image_plan(user, "task-told-04"))
    await kernel.finish(db, [Settlement(await claim(db), Retry(ErrorCode.STORAGE_UNAVAILABLE, "later", 3600))])
    await db.execute("update makeit3d.jobs set run_after = now()")
    assert await waits.promote_due(db) == {("task-told-04", user)}
    assert await waits.promote_due(db) == frozenset()
    said = [("queued", None), ("running", None), ("queued", "retry"), ("queued", None)]
    assert await told(db, "task-told-04") == said


async def test_a_sweep_tells_it_too(db: Database) -> None:
    user = await make_user(db)
    await accept(db, image_plan(user, "task-told-05"))
    await kernel.finish(db, [Settlement(await claim(db), Retry(ErrorCode.STORAGE_UNAVAILABLE, "later", 3600))])
    await db.execute("update makeit3d.jobs set run_after = now()")
    result = await kernel.sweep(db, ttl_seconds=600, max_crashes=5)
    assert result is not None
    assert result.committed.tasks == {("task-told-05", user)}
    assert (await told(db, "task-told-05"))[-2:] == [("queued", "retry"), ("queued", None)]
