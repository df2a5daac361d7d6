"""Permits of a user are counted by class, and work that nobody pays for takes none."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from app.db.pool import Database
from app.domain.jobs import ClaimedJob, Completed, Permit, Settlement
from app.domain.user_limits import UserLimits
from app.queue import permits
from app.queue.plans import RequestPlan

from tests import kernel
from tests.integration.factories import image_plan, make_user, make_worker
from tests.integration.majors import database

__all__ = ["database"]

ONE = UserLimits(in_flight=1)


def plan_of(user: UUID, task_id: str, permit: Permit, jobs: int = 1) -> RequestPlan:
    """A request of so many jobs of the class, all of its first step."""
    plan = image_plan(user, task_id)
    first = plan.jobs[0]
    more = [replace(image_plan(user, task_id).jobs[0], chunk=number) for number in range(1, jobs)]
    return replace(plan, jobs=[replace(job, permit=permit) for job in (first, *more)])


async def waiting(db: Database) -> dict[str, int]:
    rows = await db.fetch(
        "select permit, count(*) as n from makeit3d.jobs where waiting_for = 'user_limit' group by permit"
    )
    return {row["permit"]: row["n"] for row in rows}


async def claimed(db: Database) -> list[ClaimedJob]:
    worker = await make_worker(db)
    return list((await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=50)).jobs)


async def test_free_work_takes_no_permit_and_waits_for_none(db: Database) -> None:
    user = await make_user(db)
    assert not await kernel.accept(db, plan_of(user, "task-free-one", "none", jobs=5), ONE)
    assert not await kernel.accept(db, plan_of(user, "task-paid-one", "paid"), ONE)
    assert not await kernel.accept(db, plan_of(user, "task-free-two", "none"), ONE)
    assert await waiting(db) == {}
    assert await kernel.accept(db, plan_of(user, "task-paid-two", "paid"), ONE)
    assert await waiting(db) == {"paid": 1}


async def test_a_request_of_free_jobs_starts_while_all_permits_are_taken(db: Database) -> None:
    user = await make_user(db)
    await kernel.accept(db, plan_of(user, "task-paid-all", "paid", jobs=3), ONE)
    assert await waiting(db) == {"paid": 2}
    await kernel.accept(db, plan_of(user, "task-free-all", "none", jobs=3), ONE)
    assert sorted(job.task_id for job in await claimed(db)) == ["task-free-all"] * 3 + ["task-paid-all"]


@pytest.mark.parametrize(("permit", "other"), [("paid", "gpu"), ("gpu", "paid")])
async def test_a_permit_of_one_class_frees_none_of_the_other(db: Database, permit: Permit, other: Permit) -> None:
    user = await make_user(db)
    for number in range(2):
        await kernel.accept(db, plan_of(user, f"task-{permit}-{number}", permit), ONE)
        await kernel.accept(db, plan_of(user, f"task-{other}-{number}", other), ONE)
    assert await waiting(db) == {permit: 1, other: 1}
    run = next(job for job in await claimed(db) if job.task_id == f"task-{permit}-0")
    await kernel.finish(db, [Settlement(run, Completed(()))])
    released = await permits.release(db, user, in_flight=1)
    assert {task_id for task_id, _ in released.tasks} == {f"task-{permit}-1"}
    assert await waiting(db) == {other: 1}
