"""Items and progress of a running job: told once, kept over crashes, and nothing for who has lost the lease."""

from __future__ import annotations

from typing import Any

from app.db.pool import Database
from app.domain.jobs import ClaimedJob, ItemEnd

from tests import kernel
from tests.integration.factories import accept, image_plan, make_user, make_worker
from tests.integration.majors import database

__all__ = ["database"]

TASK = "task-of-items"


async def running(db: Database) -> ClaimedJob:
    await accept(db, image_plan(await make_user(db), TASK))
    return await claimed(db)


async def claimed(db: Database) -> ClaimedJob:
    worker = await make_worker(db)
    (job,) = (await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=1)).jobs
    return job


async def told(db: Database, kind: str) -> list[dict[str, Any]]:
    rows = await db.fetch("select payload from makeit3d.events where type = $1 order by id", kind)
    return [row["payload"] for row in rows]


async def counted(db: Database) -> tuple[int, int, int]:
    row = await db.fetchrow("select progress, items_done, items_total from makeit3d.jobs")
    assert row is not None
    return row["progress"], row["items_done"], row["items_total"]


async def keys(db: Database, job: ClaimedJob) -> list[str]:
    found = await kernel.queue_of(db).pending_items(job.claim.job_id, after=0, most=100)
    return [item.key for item in found]


async def test_items_that_a_handler_names_are_worked_through_in_order(db: Database) -> None:
    job, queue = await running(db), kernel.queue_of(db)
    assert await queue.add_items(job.claim, ["b", "a", "c"])
    assert await keys(db, job) == ["b", "a", "c"]
    assert await counted(db) == (0, 0, 3)
    assert await queue.record_items(job.claim, [ItemEnd("a", "skipped")])
    assert await keys(db, job) == ["b", "c"]
    assert [event["key"] for event in await told(db, "item_update")] == ["a"]


async def test_another_run_goes_on_with_what_is_left(db: Database) -> None:
    first, queue = await running(db), kernel.queue_of(db)
    await queue.add_items(first.claim, ["a", "b", "c"])
    await queue.record_items(first.claim, [ItemEnd("a", "done")])
    await kernel.requeue(db, first.claim.worker_id, [(first.claim.job_id, first.claim.attempt)])
    second = await claimed(db)
    assert await queue.add_items(second.claim, ["a", "b", "c"])
    assert await keys(db, second) == ["b", "c"]
    assert await counted(db) == (33, 1, 3)


async def test_items_that_are_named_later_hide_none_from_who_reads_them_by_pages(db: Database) -> None:
    job, queue = await running(db), kernel.queue_of(db)
    await queue.add_items(job.claim, ["a", "c"])
    await queue.add_items(job.claim, ["a", "b", "c"])
    read: list[str] = []
    after = 0
    while found := await queue.pending_items(job.claim.job_id, after=after, most=2):
        read += [item.key for item in found]
        after = found[-1].position
    assert sorted(read) == ["a", "b", "c"]


async def test_a_stale_lease_changes_nothing(db: Database) -> None:
    job, queue = await running(db), kernel.queue_of(db)
    await queue.add_items(job.claim, ["a"])
    await kernel.requeue(db, job.claim.worker_id, [(job.claim.job_id, job.claim.attempt)])
    before = await counted(db)
    assert await queue.add_items(job.claim, ["z"]) is None
    assert await queue.record_items(job.claim, [ItemEnd("a", "done")]) is None
    assert await queue.record_progress(job.claim, percent=50, done=1, total=2) is None
    assert await counted(db) == before
    assert await keys(db, job) == ["a"]
    assert await told(db, "item_update") == []


async def test_readers_hear_of_each_new_percent(db: Database) -> None:
    job, queue = await running(db), kernel.queue_of(db)
    for done in (1, 2, 2):
        assert await queue.record_progress(job.claim, percent=done * 10, done=done, total=10)
    assert await counted(db) == (20, 2, 10)
    assert [event["progress"] for event in await told(db, "job_update")] == [0, 0, 10, 20]
