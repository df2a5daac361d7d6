"""What waits costs nothing: with 100,000 jobs that can not run, the hot statements read a handful of pages.

Proven by the pages and rows that EXPLAIN ANALYZE counts, for fresh and for current statistics, and for plans that do
not know their parameters.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
import pytest
from app.db import installation, user_limits, workers
from app.db.pool import Connection, Database
from app.domain.statuses import WaitingFor

from tests import kernel
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


def statements(crowd: Crowd, *, analyzed: bool) -> Generator[tuple[str, str, Sequence[object]]]:
    """Name, statement and its arguments."""
    lanes, types = ["priority", "normal"], ["generate_images", "generate_model"]
    yield "lanes, pools and types with work", "select * from makeit3d.claimable_heads()", []
    yield "used slots", "select makeit3d.slots_used(p) from unnest($1::text[]) as p", [["openai", "tripo_h"]]
    yield "picked jobs", "select * from makeit3d.pick_jobs($1, $2, $3, $4)", [lanes, types, "here", 20]
    claim = kernel.queue_of(crowd.db).statements.claim
    wanted = {"worker_id": UUID(int=1), "lanes": lanes, "types": types, "most": 20, "host": "", "time_limits": {}}
    yield "claim", claim.text, claim.arguments(wanted)
    yield "lanes to ring", workers.CLAIMABLE_LANES.text, []
    if analyzed:  # until then the planner makes a bitmap of all of the user's jobs: of the index alone
        yield "load of a user", user_limits.LOAD, [crowd.flooder, 5, 20, False]
    yield "release", user_limits.RELEASE, [crowd.flooder, 5]
    yield "users that wait", user_limits.WAITING_USERS, []
    accept_statement = kernel.queue_of(crowd.db).statements.accept
    plan = model_plan(crowd.other, "task-accept-1")
    yield "accept", accept_statement.text, accept_statement.arguments(plan.arguments(None))


def literal(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool() | int():
            return str(value)
        case [str(), *_]:
            return f"array[{', '.join(map(literal, value))}]"
        case list() | dict():
            return literal(orjson.dumps(value).decode())
        case _:
            return "'" + str(value).replace("'", "''") + "'"


async def explain(connection: Connection, statement: str, arguments: Sequence[object]) -> dict[str, Any]:
    """The executed plan; its changes are undone. Of the second time: the first reads catalogs for functions' plans."""
    await explain_once(connection, statement, arguments)
    return await explain_once(connection, statement, arguments)


async def explain_once(connection: Connection, statement: str, arguments: Sequence[object]) -> dict[str, Any]:
    undo = connection.driver.transaction()
    await undo.start()
    given = f"({', '.join(map(literal, arguments))})" if arguments else ""
    try:
        await connection.execute(f"prepare hot as {statement}")
        text = await connection.fetchval(
            f"explain (analyze, buffers, timing off, costs off, format json) execute hot{given}"
        )
        await connection.execute("deallocate hot")
    finally:
        await undo.rollback()
    return (text if isinstance(text, list) else orjson.loads(text))[0]["Plan"]


def widest(plan: dict[str, Any]) -> float:
    """The most rows that any node of the plan touched, thrown away or not."""
    removed = sum(value for name, value in plan.items() if name.startswith("Rows Removed"))
    own = (plan["Actual Rows"] + removed) * plan["Actual Loops"]
    return max([own, *(widest(child) for child in plan.get("Plans", []))])


async def test_hot_statements_read_a_handful_of_pages(crowd: Crowd) -> None:
    db = crowd.db
    for number in range(3):
        await accept(db, image_plan(crowd.other, f"task-runnable-{number}"))
    await assert_cheap(crowd, analyzed=False)
    for table in ("jobs", "tasks", "pools", "requests"):
        await db.execute(f"analyze makeit3d.{table}")
    await assert_cheap(crowd, analyzed=True)
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
    assert plan_of_claim["Shared Hit Blocks"] + plan_of_claim["Shared Read Blocks"] <= 3 * MAX_PAGES, plan_of_claim
    worker = await make_worker(db)
    claimed = (await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=100)).jobs
    assert {job.task_id for job in claimed} == {"task-plugin-1", "task-runnable-1"}


async def assert_a_scrape_is_bounded(crowd: Crowd) -> None:
    """Monitoring counts so many of each kind and no more."""
    async with crowd.db.transaction() as connection:
        await connection.execute(installation.NO_BITMAP)
        plan = await explain(connection, installation.QUEUES, [installation.STORED])
        queues = await connection.fetch(installation.QUEUES, installation.STORED)
    assert widest(plan) <= len(queues) * installation.COUNTED < BLOCKED, plan
    assert max(queue["jobs"] for queue in queues) == installation.COUNTED
    assert {queue["waiting_for"] for queue in queues} == set(WaitingFor)


async def assert_cheap(crowd: Crowd, *, analyzed: bool) -> None:
    for mode in ("force_custom_plan", "force_generic_plan"):
        for name, statement, arguments in statements(crowd, analyzed=analyzed):
            async with crowd.db.transaction() as connection:
                await connection.execute(f"set local plan_cache_mode = {mode}")
                plan = await explain(connection, statement, arguments)
            pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
            assert pages <= MAX_PAGES * STATEMENTS.get(name, 1), (name, mode, pages, plan)
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
        pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        assert plan["Actual Rows"] == 1 + 4
        assert pages <= 2 * MAX_PAGES, (mode, pages, plan)
        assert widest(plan) <= MAX_ROWS, (mode, widest(plan), plan)
