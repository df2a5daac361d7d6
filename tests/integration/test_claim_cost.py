"""What waits costs nothing: with 100,000 jobs that can not run, the hot statements read a handful of pages.

Proven by the pages and rows that EXPLAIN ANALYZE counts, for fresh and for current statistics, and for plans that do
not know their parameters.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from app.db import installation
from app.db.pool import Database
from app.db.sql import Statement
from app.domain.statuses import WaitingFor
from app.queue import permits, waits

from tests import kernel
from tests.integration.explain import explain, pages, widest
from tests.integration.factories import (
    accept,
    image_plan,
    local_step,
    make_user,
    make_worker,
    model_plan,
    multiply,
    multiply_blocked,
    sketch_plan,
    stepped_plan,
)
from tests.integration.majors import database

__all__ = ["database"]

BLOCKED = 100_000
REQUESTS = 10_000
MAX_PAGES = 120  # a whole scan of the jobs would be thousands
MAX_ROWS = 60
STATEMENTS = {"picked jobs": 4, "claim": 5}  # in one round trip; the others are one each


@dataclass(frozen=True, slots=True)
class Crowd:
    """A database with jobs that wait for everything there is to wait for, the claimable ones for a full pool."""

    db: Database
    flooder: UUID
    other: UUID


@pytest.fixture
async def crowd(db: Database) -> Crowd:
    flooder, other = await make_user(db), await make_user(db)
    await db.execute("update makeit3d.pools set slots = 1 where name = 'tripo_h'")
    plan = await accept(db, model_plan(flooder, "task-crowd-01"))
    worker = await make_worker(db)
    assert len((await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=5)).jobs) == 1
    await multiply_blocked(db, plan, BLOCKED)
    return Crowd(db, flooder, other)


def statements(crowd: Crowd) -> Generator[tuple[str, str, Sequence[object]]]:
    """Name, statement and its arguments."""
    lanes, types = ["priority", "normal"], ["generate_images", "generate_model"]
    yield "lanes, pools and types with work", "select * from makeit3d.claimable_heads()", []
    yield "used slots", "select makeit3d.slots_used(p) from unnest($1::text[]) as p", [["openai", "tripo_h"]]
    yield "picked jobs", "select * from makeit3d.pick_jobs($1, $2, $3, $4)", [lanes, types, "here", 20]
    wanted = {"worker_id": UUID(int=1), "lanes": lanes, "types": types, "most": 20, "host": "", "time_limits": {}}
    yield named("claim", kernel.queue_of(crowd.db).statements.claim, **wanted)
    yield named("lanes to wake", waits.CLAIMABLE_LANES)
    yield named("load", permits.LOAD, user_id=crowd.flooder, in_flight=5, unfinished=20, with_spent=False)
    yield named("release", permits.RELEASE, user_id=crowd.flooder, permits=5)
    yield named("users that wait", permits.WAITING_USERS)
    plan = model_plan(crowd.other, "task-accept-1")
    yield named("accept", kernel.queue_of(crowd.db).statements.accept, **plan.arguments(None))


def named(name: str, statement: Statement, **values: object) -> tuple[str, str, Sequence[object]]:
    return name, statement.text, statement.arguments(values)


async def test_hot_statements_read_a_handful_of_pages(crowd: Crowd) -> None:
    db = crowd.db
    for number in range(3):
        await accept(db, image_plan(crowd.other, f"task-runnable-{number}"))
    await assert_cheap(crowd)
    for table in ("jobs", "tasks", "pools", "requests"):
        await db.execute(f"analyze makeit3d.{table}")
    await assert_cheap(crowd)
    await assert_a_scrape_is_bounded(crowd)
    worker = await make_worker(db)
    claimed = (await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=100)).jobs
    assert [job.user_id for job in claimed] == [crowd.other] * 3


_OF_ANOTHER_TYPE = """
insert into makeit3d.jobs (id, task_id, request_id, user_id, step, chunk, type, provider, pool, lane, priority,
  fair_tag, status, params)
select gen_random_uuid(), j.task_id, j.request_id, j.user_id, 1, n, 'of_a_plugin', j.provider, j.pool, j.lane, 50, n,
  'queued', '{}'
from makeit3d.jobs j, generate_series($1::integer, $2::integer) as n where j.id = $3
"""


async def test_jobs_of_types_that_a_worker_does_not_handle_cost_it_nothing(db: Database) -> None:
    plan = await accept(db, image_plan(await make_user(db), "task-plugin-1"))
    for first in range(0, BLOCKED, 5_000):
        await db.execute(_OF_ANOTHER_TYPE, first + 1, first + 5_000, plan.job_id)
    await accept(db, image_plan(await make_user(db), "task-runnable-1"))
    statement = kernel.queue_of(db).statements.claim
    types = ["generate_images", "generate_model"]
    wanted = {"worker_id": UUID(int=1), "lanes": ["normal"], "types": types, "most": 20, "host": "", "time_limits": {}}
    async with db.transaction() as connection:
        plan_of_claim = await explain(connection, statement.text, statement.arguments(wanted))
    assert pages(plan_of_claim) <= 3 * MAX_PAGES, plan_of_claim
    worker = await make_worker(db)
    claimed = (await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=100)).jobs
    assert {job.task_id for job in claimed} == {"task-plugin-1", "task-runnable-1"}


async def assert_a_scrape_is_bounded(crowd: Crowd) -> None:
    """Monitoring counts so many of each kind and no more."""
    async with crowd.db.transaction() as connection:
        await connection.execute(installation.WITHOUT_BITMAPS)
        asked: dict[str, Any] = {"stored": installation.STORED, "counted": installation.COUNTED}
        plan = await explain(connection, installation.QUEUES.text, installation.QUEUES.arguments(asked))
        queues = await connection.fetch(installation.QUEUES, **asked)
    assert widest(plan) <= len(queues) * installation.COUNTED < BLOCKED, plan
    assert max(queue["jobs"] for queue in queues) == installation.COUNTED
    assert {queue["waiting_for"] for queue in queues} == set(WaitingFor)


async def assert_cheap(crowd: Crowd) -> None:
    for mode in ("force_custom_plan", "force_generic_plan"):
        for name, statement, arguments in statements(crowd):
            async with crowd.db.transaction() as connection:
                await connection.execute(f"set local plan_cache_mode = {mode}")
                plan = await explain(connection, statement, arguments)
            assert pages(plan) <= MAX_PAGES * STATEMENTS.get(name, 1), (name, mode, pages(plan), plan)
            assert widest(plan) <= MAX_ROWS, (name, mode, widest(plan), plan)


@pytest.mark.parametrize("analyzed", [False, True])
async def test_the_next_step_costs_the_same_whatever_else_there_is(db: Database, analyzed: bool) -> None:
    """Of a request whose next jobs wait as rows, and of one whose next jobs are made of yielded items."""
    user = await make_user(db)
    await multiply(db, await accept(db, image_plan(user, "task-others-001")), REQUESTS)
    waiting = await accept(db, sketch_plan(user, "task-waiting-01"))
    yielding = [local_step(1, items=tuple(map(str, range(10)))), local_step(2, items_from=1, items_per_job=3)]
    made = await accept(db, stepped_plan(user, "task-yielding-1", *yielding))
    both = f"{{{waiting.id},{made.id}}}"
    await db.execute(
        "update makeit3d.jobs set status = 'completed' where step = 1 and request_id = any($1)", [waiting.id, made.id]
    )
    await db.execute("update makeit3d.job_items set status = 'done'")
    for table in ("jobs", "requests", "job_items") if analyzed else ():
        await db.execute(f"analyze makeit3d.{table}")
    statement = kernel.queue_of(db).statements.advance_steps
    given = statement.arguments({"completed": both, "freed": [], "limited": False, "failed": []})
    for mode in ("force_custom_plan", "force_generic_plan"):
        async with db.transaction() as connection:
            await connection.execute(f"set local plan_cache_mode = {mode}")
            plan = await explain(connection, statement.text, given)
        assert plan["Actual Rows"] == 1 + 4
        assert pages(plan) <= 2 * MAX_PAGES, (mode, pages(plan), plan)
        assert widest(plan) <= MAX_ROWS, (mode, widest(plan), plan)
