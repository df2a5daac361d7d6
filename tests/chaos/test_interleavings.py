"""Transactions that cross: each test holds one lock by hand, so that two statements meet in one order for certain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from app.calls import journal, orphans
from app.config import Settings
from app.db import events
from app.db.pool import Database
from app.domain.cursors import Cursor
from app.domain.jobs import Claim
from app.queue.accept import DuplicateRequest
from app.services.audit import audit_rows

from tests import kernel
from tests.integration.factories import accept, call_intent, image_plan, make_user, make_worker, model_plan

pytestmark = pytest.mark.chaos

PATIENCE = 20.0


@asynccontextmanager
async def holding(database: str, statement: str, *args: Any) -> AsyncGenerator[None]:  # noqa: ANN401 - of a statement
    """What the statement locks stays locked until the body ends."""
    connection = await asyncpg.connect(database)
    try:
        async with connection.transaction():
            await connection.execute(statement, *args)
            yield
    finally:
        await connection.close()


async def until_waiting(db: Database, sessions: int) -> None:
    """So many sessions wait for a lock."""
    async with asyncio.timeout(PATIENCE):
        while sessions != await db.fetchval(
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        ):
            await asyncio.sleep(0.01)


async def claimed(db: Database) -> list[Claim]:
    worker = await make_worker(db)
    result = await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=50)
    return [job.claim for job in result.jobs]


async def clean(db: Database, settings: Settings) -> None:
    assert (await audit_rows(db, settings)).differences == []


async def test_a_cost_booked_while_its_job_is_canceled_is_not_lost(
    db: Database, database: str, settings: Settings
) -> None:
    user = await make_user(db)
    plan = await accept(db, image_plan(user, "task-cross-1"))
    (claim,) = await claimed(db)
    intent = call_intent()
    assert await journal.intend(db, claim, intent)
    async with holding(database, "select from makeit3d.jobs where id = $1 for update", claim.job_id):
        booked = asyncio.create_task(journal.settled(db, intent.id, cost_micros=40_000))
        await until_waiting(db, 1)
        canceled = asyncio.create_task(kernel.cancel(db, plan.task_id, user))
        await until_waiting(db, 2)
    await asyncio.gather(booked, canceled)
    assert await db.fetchval("select cost_micros from makeit3d.jobs where id = $1", claim.job_id) == 40_000
    await clean(db, settings)


async def test_a_call_settled_as_abandoned_costs_its_job_the_estimate(db: Database, settings: Settings) -> None:
    user = await make_user(db)
    await accept(db, image_plan(user, "task-cross-2"))
    (claim,) = await claimed(db)
    assert await journal.intend(db, claim, call_intent())
    await kernel.cancel(db, "task-cross-2", user)
    await db.execute("update makeit3d.provider_calls set deadline = now() - interval '1 hour'")
    assert await orphans.settle(db, looked_for=[]) == [("openai", 40_000)]
    await clean(db, settings)


async def test_a_claim_that_waited_is_read_after_what_it_claimed(
    db: Database, database: str, settings: Settings
) -> None:
    user = await make_user(db)
    await accept(db, image_plan(user, "task-cross-3"))
    await accept(db, model_plan(user, "task-cross-4"))
    worker = await make_worker(db)
    # the claim has locked the first pool, and with it has its transaction's number, when the request is accepted
    async with holding(database, "select from makeit3d.pools where name = 'tripo_h' for update"):
        claim = asyncio.create_task(kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=3))
        await until_waiting(db, 1)
        await accept(db, image_plan(user, "task-cross-5"))
    first = await claim
    # it has room for the new one, and leaves it to the next claim
    assert {job.task_id for job in first.jobs} == {"task-cross-3", "task-cross-4"}
    assert (first.more, first.full) == (True, False)
    assert len(await claimed(db)) == 1
    for task in ("task-cross-3", "task-cross-4", "task-cross-5"):
        read = await events.after(db, user, Cursor(0, 0), task_id=task)
        assert [event.payload["status"] for event in read if event.type == "job_update"] == ["queued", "running"]
        assert [event.payload["status"] for event in read if event.type == "task_update"] == ["queued", "running"]
    await clean(db, settings)


async def test_a_claim_given_back_is_told(db: Database, settings: Settings) -> None:
    user = await make_user(db)
    await accept(db, image_plan(user, "task-cross-6"))
    (claim,) = await claimed(db)
    await kernel.requeue(db, claim.worker_id, [(claim.job_id, claim.attempt)])
    assert await db.fetchval("select status from makeit3d.tasks") == "queued"
    await clean(db, settings)
    (again,) = await claimed(db)
    assert again.attempt == claim.attempt + 1
    await clean(db, settings)


async def test_two_repeats_at_once_are_one_request(db: Database, settings: Settings) -> None:
    user = await make_user(db)
    plans = [image_plan(user, "task-cross-7", key="key:the-same") for _ in range(8)]
    answers = await asyncio.gather(*(kernel.accept(db, plan) for plan in plans), return_exceptions=True)
    assert sum(isinstance(answer, DuplicateRequest) for answer in answers) == 7
    assert await db.fetchval("select count(*) from makeit3d.jobs") == 1
    await clean(db, settings)
