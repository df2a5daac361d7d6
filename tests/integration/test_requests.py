"""Accepting: all or nothing, once per key, never for somebody else's task."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from app.db import tasks
from app.db.assets import UnknownUser
from app.db.pool import Database
from app.domain.jobs import Failed, Settlement
from app.errors import ErrorCode
from app.queue.accept import DuplicateRequest, TaskOwnedByAnother

from tests import kernel
from tests.integration.factories import accept, image_plan, make_user, make_worker, model_plan, sketch_plan
from tests.integration.majors import database

__all__ = ["database"]


COUNTED = ("makeit3d.requests", "makeit3d.jobs", "concept_images", "makeit3d.events")


async def count(db: Database, table: str) -> int:
    return await db.fetchval(f"select count(*) from {table}")  # noqa: S608 - names of this file


async def test_one_statement_writes_task_request_jobs_rows_and_events(db: Database) -> None:
    user = await make_user(db)
    await accept(db, sketch_plan(user, "task-accept-1"))
    status = await tasks.status(db, "task-accept-1", user)
    assert status is not None
    assert [(job["status"], job["waiting_for"]) for job in status.jobs] == [("queued", "worker"), ("queued", "step")]
    assert [(asset["kind"], asset["status"]) for asset in status.assets] == [
        ("concept", "pending"),
        ("model", "pending"),
    ]
    events = await db.fetch("select type from makeit3d.events order by id")
    assert [row["type"] for row in events] == [
        "task_update",
        "job_update",
        "job_update",
        "asset_update",
        "asset_update",
    ]


async def test_a_key_is_accepted_once_also_in_a_race(db: Database) -> None:
    user = await make_user(db)
    plans = [image_plan(user, "task-race-01", n=3, key="key:one") for _ in range(12)]
    results = await asyncio.gather(*(kernel.accept(db, plan) for plan in plans), return_exceptions=True)
    assert sum(result is False for result in results) == 1
    assert sum(isinstance(result, DuplicateRequest) for result in results) == 11
    assert await count(db, "makeit3d.jobs") == 1
    assert await db.fetchval("select reserved from makeit3d.tasks") == {"concept": 3}


async def test_another_users_task_changes_nothing(db: Database) -> None:
    owner, other = await make_user(db), await make_user(db)
    await accept(db, image_plan(owner, "task-owned-1"))
    before = [await count(db, table) for table in COUNTED]
    with pytest.raises(TaskOwnedByAnother):
        await kernel.accept(db, image_plan(other, "task-owned-1"))
    assert [await count(db, table) for table in COUNTED] == before


async def test_a_task_of_a_deleted_user_stays_closed(db: Database) -> None:
    owner, other = await make_user(db), await make_user(db)
    await accept(db, image_plan(owner, "task-orphan-1"))
    await db.execute("delete from auth.users where id = $1", owner)
    with pytest.raises(TaskOwnedByAnother):
        await kernel.accept(db, image_plan(other, "task-orphan-1"))


async def test_an_unknown_user_is_refused(db: Database) -> None:
    with pytest.raises(UnknownUser):
        await kernel.accept(db, image_plan(uuid4(), "task-nobody-1"))
    assert await count(db, "makeit3d.tasks") == 0


async def test_numbers_of_outputs_are_never_used_twice(db: Database) -> None:
    user = await make_user(db)
    await asyncio.gather(*(accept(db, image_plan(user, "task-number-1", n=2)) for _ in range(8)))
    await accept(db, model_plan(user, "task-number-1"))
    await accept(db, model_plan(user, "task-number-1"))
    numbers = await db.fetch("select number from concept_images order by number")
    assert [row["number"] for row in numbers] == list(range(16))
    assert [row["number"] for row in await db.fetch("select number from models order by number")] == [0, 1]


async def test_an_implicit_key_matches_until_the_request_fails_and_an_explicit_one_always(db: Database) -> None:
    user = await make_user(db)
    worker = await make_worker(db)
    for key, again in (("body:x", True), ("key:x", False)):
        task = f"task-repeat-{again}"
        await accept(db, image_plan(user, task, key=key))
        with pytest.raises(DuplicateRequest):
            await kernel.accept(db, image_plan(user, task, key=key))
        (job,) = (await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=5)).jobs
        await kernel.finish(db, [Settlement(job, Failed(ErrorCode.PROVIDER_CONTENT_REFUSED, "no"))])
        if again:
            await kernel.accept(db, image_plan(user, task, key=key))
            await kernel.cancel(db, task, user)
        else:
            with pytest.raises(DuplicateRequest):
                await kernel.accept(db, image_plan(user, task, key=key))


async def test_a_flood_of_one_user_lets_another_user_in_next(db: Database) -> None:
    flooder, other = await make_user(db), await make_user(db)
    for number in range(30):
        await accept(db, image_plan(flooder, f"task-flood-{number:02}"))
    worker = await make_worker(db)
    first = await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=3)
    assert {job.user_id for job in first.jobs} == {flooder}
    await accept(db, image_plan(other, "task-modest-1"))
    following = await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=2)
    assert other in {job.user_id for job in following.jobs}
