"""Requests that wait for other tasks start when those are completed, and fail when they are not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from app.db import jobs
from app.db.pool import Database
from app.domain.jobs import ClaimedJob, Completed, Failed, Lane, Outcome, Settlement
from app.domain.operations import Operation
from app.domain.user_limits import NO_LIMITS, UserLimits
from app.errors import AppError, ErrorCode
from app.queue.contracts import Committed
from app.queue.maintenance import advance_dependents
from app.queue.plans import RequestPlan
from app.services.notifier import Notifier
from app.services.publisher import Publisher
from app.services.retries import NotRetried, Retries

from tests import kernel
from tests.integration.factories import (
    image_plan,
    local_step,
    make_user,
    make_worker,
    multiply,
    sketch_plan,
    stepped_plan,
)
from tests.integration.http_gateway import DeafBells
from tests.integration.majors import database
from tests.integration.workshop import Workshop, workshop

__all__ = ["Workshop", "database", "workshop"]

BROKEN = Failed(ErrorCode.PROVIDER_CONTENT_REFUSED, "no")
ONE = UserLimits(in_flight=1)


class Line:
    """Tasks of one user that wait for each other."""

    def __init__(self, db: Database, user: UUID) -> None:
        self.db = db
        self.user = user

    async def ask(
        self,
        task_id: str,
        *after: str,
        steps: int = 1,
        limits: UserLimits = NO_LIMITS,
        **more: Any,  # noqa: ANN401 - fields of the plan
    ) -> RequestPlan:
        plan = (image_plan if steps == 1 else sketch_plan)(self.user, task_id)
        plan = replace(plan, depends_on=after, **more)
        await kernel.accept(self.db, plan, limits)
        return plan

    async def claim(self) -> dict[str, ClaimedJob]:
        worker = await make_worker(self.db)
        claimed = await kernel.claim(self.db, worker_id=worker.id, lanes=worker.lanes, limit=50)
        return {job.task_id: job for job in claimed.jobs}

    async def end(self, job: ClaimedJob, outcome: Outcome) -> set[str]:
        """The tasks whose dependents are to be told."""
        finished = await kernel.finish(self.db, [Settlement(job, outcome)])
        assert finished.jobs
        return finished.committed.dependents

    async def tell(self, *, limited: bool = False) -> None:
        await advance_dependents(kernel.queue_of(self.db), limited=limited)

    async def jobs(self, task_id: str) -> list[tuple[str, str | None, str | None]]:
        rows = await self.db.fetch(
            "select status, waiting_for, error_code from makeit3d.jobs where task_id = $1 order by created_at, step",
            task_id,
        )
        return [tuple(row) for row in rows]

    async def pending(self) -> list[str]:
        rows = await self.db.fetch("select id from makeit3d.tasks where dependents_pending order by id")
        return [row["id"] for row in rows]


@pytest.fixture
async def line(db: Database) -> Line:
    return Line(db, await make_user(db))


WAITS = ("queued", "dependency", None)
READY = ("queued", None, None)
FAILED = ("failed", None, "dependency_failed")


async def test_a_request_waits_for_all_of_its_tasks(line: Line) -> None:
    await line.ask("task-first-01")
    await line.ask("task-first-02")
    await line.ask("task-second-1", "task-first-01", "task-first-02", steps=2)
    assert await line.jobs("task-second-1") == [WAITS, ("queued", "step", None)]
    first = await line.claim()
    assert sorted(first) == ["task-first-01", "task-first-02"]
    for task_id, then in (("task-first-01", WAITS), ("task-first-02", READY)):
        assert await line.end(first[task_id], Completed()) == {task_id}
        assert (await line.jobs("task-second-1"))[0] == WAITS
        await line.tell()
        assert await line.jobs("task-second-1") == [then, ("queued", "step", None)]
    assert await line.pending() == []
    assert sorted(await line.claim()) == ["task-second-1"]


async def test_a_task_that_nobody_waits_for_tells_nobody(line: Line) -> None:
    await line.ask("task-alone-01")
    assert await line.end((await line.claim())["task-alone-01"], Completed()) == set()
    assert await line.pending() == []


async def test_what_is_completed_already_holds_nothing_back(line: Line) -> None:
    await line.ask("task-first-01")
    await line.end((await line.claim())["task-first-01"], Completed())
    await line.ask("task-second-1", "task-first-01")
    assert await line.jobs("task-second-1") == [READY]


@pytest.mark.parametrize("end", ["failed", "canceled"])
async def test_what_failed_already_is_refused(line: Line, end: str) -> None:
    await line.ask("task-first-01")
    job = (await line.claim())["task-first-01"]
    if end == "failed":
        await line.end(job, BROKEN)
    else:
        await kernel.cancel(line.db, job.task_id, line.user)
    with pytest.raises(AppError) as refused:
        await line.ask("task-second-1", "task-first-01")
    assert refused.value.error is ErrorCode.DEPENDENCY_FAILED
    assert refused.value.detail == f"Task task-first-01 is {end}."
    assert await line.jobs("task-second-1") == []


async def test_a_strange_task_is_refused_as_one_that_is_not_there(line: Line) -> None:
    await Line(line.db, await make_user(line.db)).ask("task-of-another")
    told: set[str] = set()
    for task_id in ("task-of-another", "task-of-nobody1"):
        with pytest.raises(AppError) as refused:
            await line.ask("task-second-1", task_id)
        assert (refused.value.error, refused.value.extra) == (
            ErrorCode.DEPENDENCY_NOT_FOUND,
            {"depends_on": [task_id]},
        )
        told.add(str(refused.value.detail).replace(task_id, "ID"))
    assert told == {"No task ID."}
    assert await line.jobs("task-second-1") == []


@pytest.mark.parametrize(
    ("end", "cause"), [(BROKEN, "failed: provider_content_refused"), (None, "was canceled")], ids=["failed", "canceled"]
)
async def test_dependents_fail_level_by_level_and_say_why(line: Line, end: Outcome | None, cause: str) -> None:
    await line.ask("task-level-01")
    for number in (2, 3):
        await line.ask(f"task-level-0{number}", f"task-level-0{number - 1}", steps=2)
    job = (await line.claim())["task-level-01"]
    if end is None:
        await kernel.cancel(line.db, job.task_id, line.user)
    else:
        await line.end(job, end)
    assert await line.pending() == ["task-level-01"]
    await line.tell()
    assert await line.pending() == []
    messages = await line.db.fetch(
        "select distinct task_id, error_message from makeit3d.jobs where task_id <> 'task-level-01' order by task_id"
    )
    assert [row["error_message"] for row in messages] == [
        f"The task task-level-01, which it depends on, {cause}.",
        "The task task-level-02, which it depends on, failed: dependency_failed.",
    ]
    for number in (2, 3):
        assert await line.jobs(f"task-level-0{number}") == [FAILED] * 2
    assets = await line.db.fetch(
        "select status, error_code from concept_images where task_id <> 'task-level-01'"
        " union all select status, error_code from models"
    )
    assert [tuple(row) for row in assets] == [("failed", "dependency_failed")] * 4
    statuses = await line.db.fetch("select status from makeit3d.tasks where id <> 'task-level-01'")
    assert [row["status"] for row in statuses] == ["failed"] * 2


async def test_the_first_task_that_fails_decides(line: Line) -> None:
    await line.ask("task-first-01")
    await line.ask("task-first-02")
    await line.ask("task-second-1", "task-first-01", "task-first-02")
    first = await line.claim()
    await line.end(first["task-first-02"], BROKEN)
    await line.tell()
    assert await line.jobs("task-second-1") == [FAILED]
    await line.end(first["task-first-01"], Completed())
    await line.tell()
    assert await line.jobs("task-second-1") == [FAILED]
    assert await line.pending() == []


async def test_what_a_task_is_asked_for_later_changes_nothing_and_makes_no_cycle(line: Line) -> None:
    await line.ask("task-first-01")
    await line.ask("task-second-1", "task-first-01")
    await line.ask("task-first-01", "task-second-1")  # waits for what waits for the task's earlier request
    first = await line.claim()
    assert sorted(first) == ["task-first-01"]
    assert await line.end(first["task-first-01"], Completed()) == {"task-first-01"}
    await line.tell()
    assert await line.jobs("task-first-01") == [("completed", None, None), WAITS]
    assert await line.jobs("task-second-1") == [READY]
    await line.end((await line.claim())["task-second-1"], Completed())
    await line.tell()
    assert sorted(await line.claim()) == ["task-first-01"]


async def test_a_dependent_of_an_ended_request_is_not_held_by_a_new_one(line: Line) -> None:
    await line.ask("task-first-01")
    job = (await line.claim())["task-first-01"]
    await line.ask("task-second-1", "task-first-01")
    await line.ask("task-first-01")
    await line.end(job, Completed())
    assert await line.pending() == ["task-first-01"]  # though the task is active
    told = await line.db.fetch(
        "select payload->>'status' as status from makeit3d.events where type = 'task_update'"
        " and task_id = 'task-first-01' order by id"
    )
    assert [row["status"] for row in told] == ["queued", "running", "running", "queued"]
    await line.tell()
    assert await line.jobs("task-second-1") == [READY]


async def test_a_dependent_that_ended_meanwhile_stays_as_it_ended(line: Line) -> None:
    await line.ask("task-first-01")
    await line.ask("task-second-1", "task-first-01")
    await kernel.cancel(line.db, "task-second-1", line.user)
    await line.end((await line.claim())["task-first-01"], Completed())
    await line.tell()
    assert await line.jobs("task-second-1") == [("canceled", None, "canceled")]
    assert await line.pending() == []


async def test_an_operator_sees_which_tasks_are_left_to_wait_for(line: Line) -> None:
    await line.ask("task-first-01")
    await line.ask("task-first-02")
    chunks = local_step(1, items=("a", "b", "c"), items_per_job=2)
    plan = replace(
        stepped_plan(line.user, "task-second-1", chunks), depends_on=("task-first-01", "task-first-02"), expires_in=60
    )
    await kernel.accept(line.db, plan)
    await line.end((await line.claim())["task-first-01"], Completed())
    await line.tell()
    shown = await jobs.record(line.db, plan.jobs[1].id, events=1)
    assert shown is not None
    assert [shown.job[name] for name in ("waiting_for", "waits_for_tasks", "chunk", "items")] == [
        "dependency",
        "task-first-02",
        "2 of 2",
        "0 of 1",
    ]
    assert shown.job["expires_at"] is not None
    ended = await line.db.fetchval("select id from makeit3d.jobs where status = 'completed'")
    first = await jobs.record(line.db, ended, events=1)
    assert first is not None
    assert [first.job[name] for name in ("waits_for_tasks", "chunk", "items", "end_not_written")] == [None] * 4


async def test_erasing_a_user_ends_both(line: Line) -> None:
    await line.ask("task-first-01")
    await line.ask("task-second-1", "task-first-01")
    await kernel.queue_of(line.db).erase(line.user)
    await line.tell()
    for task_id in ("task-first-01", "task-second-1"):
        assert await line.jobs(task_id) == [("canceled", None, "canceled")]
    assert await line.pending() == []


async def test_many_dependents_are_told_in_batches(line: Line) -> None:
    await line.ask("task-first-01")
    tasks = [f"task-second-{number:04}" for number in range(520)]
    for task_id in tasks:
        await line.ask(task_id, "task-first-01")
    await line.end((await line.claim())["task-first-01"], Completed())
    await line.tell()
    assert await line.pending() == []
    assert await line.db.fetchval("select count(*) from makeit3d.jobs where waiting_for is null") == 521


# --- whose turn it is ------------------------------------------------------------------------------------------------


async def test_a_dependent_gets_its_turn_when_it_is_free_to_run(line: Line) -> None:
    """It saved up none while it waited."""
    await line.ask("task-first-01")
    await line.ask("task-second-1", "task-first-01")
    first = (await line.claim())["task-first-01"]
    for number in range(3):
        await line.ask(f"task-other-0{number}")
    await line.end(first, Completed())
    await line.tell()
    tags = await line.db.fetch("select task_id from makeit3d.jobs where status = 'queued' order by fair_tag")
    assert [row["task_id"] for row in tags] == ["task-other-00", "task-other-01", "task-other-02", "task-second-1"]


async def test_a_dependent_takes_a_permit_when_it_is_free_to_run(line: Line) -> None:
    await line.ask("task-first-01", limits=ONE)
    await line.ask("task-second-1", "task-first-01", limits=ONE)
    await line.ask("task-other-01", limits=ONE)
    assert (await line.jobs("task-other-01"))[0][1] == "user_limit"
    first = (await line.claim())["task-first-01"]
    notifier = Notifier(line.db)
    publisher = Publisher(kernel.queue_of(line.db), DeafBells(), notifier, ONE)
    finished = await kernel.finish(line.db, [Settlement(first, Completed())])
    publisher.publish(finished.committed)
    await publisher.aclose()
    await notifier.aclose()
    # one permit came free, and the older of the two has it
    assert await line.jobs("task-second-1") == [READY]
    assert (await line.jobs("task-other-01"))[0][1] == "user_limit"


class Order(Notifier):
    """Notes what is told and woken, in order."""

    def __init__(self, db: Database) -> None:
        super().__init__(db)
        self.noted: list[str] = []

    def changed(self, tasks: Iterable[tuple[str, UUID | None]]) -> None:
        self.noted += ["told"] * bool(set(tasks))

    def ring(self, lanes: Iterable[Lane]) -> None:
        self.noted += ["woken"] * bool(set(lanes))


async def test_a_long_line_holds_no_slot_up(line: Line) -> None:
    """Who frees a slot meanwhile waits for a part of it at most."""
    await line.ask("task-line-00")
    for number in range(1, 35):
        await line.ask(f"task-line-{number:02}", f"task-line-{number - 1:02}")
    await line.end((await line.claim())["task-line-00"], BROKEN)
    await line.ask("task-other-01")
    order = Order(line.db)
    publisher = Publisher(kernel.queue_of(line.db), order, order, NO_LIMITS)
    publisher.publish(Committed(capacity={"openai"}, dependents={"task-line-00"}))
    await publisher.aclose()
    assert order.noted[0] == "woken"
    assert order.noted.count("told") > 3
    assert await line.jobs("task-line-34") == [FAILED]
    assert await line.pending() == []


async def test_maintenance_tells_who_was_not_told(line: Line) -> None:
    """The process died between the end of a task and what follows for others."""
    await line.ask("task-first-01", limits=ONE)
    await line.ask("task-second-1", "task-first-01", limits=ONE)
    await line.ask("task-third-01", "task-second-1", limits=ONE)
    await line.end((await line.claim())["task-first-01"], Completed())
    notifier = Notifier(line.db)
    publisher = Publisher(kernel.queue_of(line.db), DeafBells(), notifier, ONE)
    await publisher.repair()
    await publisher.aclose()
    await notifier.aclose()
    assert await line.jobs("task-second-1") == [READY]
    assert await line.jobs("task-third-01") == [WAITS]


# --- the whole way ---------------------------------------------------------------------------------------------------


async def test_workers_make_one_after_the_other(workshop: Workshop) -> None:
    before = workshop.plan(Operation.TEXT_TO_IMAGE, "task-before-01")
    behind = replace(workshop.plan(Operation.TEXT_TO_MODEL, "task-behind-01"), depends_on=("task-before-01",))
    for plan in (before, behind):
        await kernel.accept(workshop.db, plan)
    assert (await workshop.status("task-behind-01")).jobs[0]["waiting_for"] == "dependency"
    for worker in workshop.workers:
        worker.engine.wake()
    status = await workshop.finished("task-behind-01")
    assert [job["status"] for job in status.jobs] == ["completed"]
    in_order = await workshop.db.fetchval(
        "select min(started_at) filter (where task_id = 'task-behind-01')"
        " >= max(finished_at) filter (where task_id = 'task-before-01') from makeit3d.jobs"
    )
    assert in_order


@pytest.fixture
async def retries(line: Line) -> AsyncGenerator[Retries]:
    notifier = Notifier(line.db)
    publisher = Publisher(kernel.queue_of(line.db), DeafBells(), notifier, NO_LIMITS)
    yield Retries(kernel.queue_of(line.db), publisher)
    await publisher.aclose()
    await notifier.aclose()


async def test_a_retry_depends_on_the_retry_of_what_failed(line: Line, retries: Retries) -> None:
    await line.ask("task-first-01")
    await line.ask("task-second-1", "task-first-01")
    await line.end((await line.claim())["task-first-01"], BROKEN)
    await line.tell()
    with pytest.raises(NotRetried, match=r"is failed\. Retry first what failed"):
        await retries.retry(await retries.find("task-second-1"), may_pay_again=False)
    for task_id in ("task-first-01", "task-second-1"):
        await retries.retry(await retries.find(task_id), may_pay_again=False)
    assert await line.jobs("task-second-1") == [FAILED, WAITS]
    await line.end((await line.claim())["task-first-01"], Completed())
    await line.tell()
    assert await line.jobs("task-second-1") == [FAILED, READY]


# --- time ------------------------------------------------------------------------------------------------------------


async def expire(line: Line) -> int:
    await line.db.execute("update makeit3d.jobs set expires_at = now() - interval '1 second' where expires_at > now()")
    swept = await kernel.sweep(line.db, ttl_seconds=60, max_crashes=3)
    assert swept is not None
    return len(swept.unstarted)


async def test_a_request_that_is_not_started_in_time_fails_whatever_it_waits_for(line: Line) -> None:
    await line.ask("task-first-01", limits=ONE)
    await line.ask("task-second-1", "task-first-01", limits=ONE, expires_in=60)
    await line.ask("task-limited1", limits=ONE, expires_in=60, steps=2)
    await line.ask("task-lasting1", limits=ONE)
    await line.claim()
    assert await expire(line) == 2
    assert await line.jobs("task-second-1") == [("failed", None, "expired")]
    assert await line.jobs("task-limited1") == [("failed", None, "expired")] * 2
    assert (await line.jobs("task-lasting1"))[0][1] == "user_limit"
    assert await expire(line) == 0


async def test_a_request_that_was_started_in_time_goes_on(line: Line) -> None:
    await line.ask("task-started1", expires_in=60, steps=2)
    job = (await line.claim())["task-started1"]
    assert await expire(line) == 0
    await line.end(job, Completed())
    assert await expire(line) == 0
    assert await line.jobs("task-started1") == [("completed", None, None), READY]


async def test_what_expired_is_not_started_though_nobody_has_said_so_yet(line: Line) -> None:
    for task_id in ("task-expired1", "task-lasting1"):
        await line.ask(task_id, expires_in=60)
    await line.db.execute(
        "update makeit3d.jobs set expires_at = now() - interval '1 second' where task_id = 'task-expired1'"
    )
    worker = await make_worker(line.db)
    claimed = await kernel.claim(line.db, worker_id=worker.id, lanes=worker.lanes, limit=50)
    assert [job.task_id for job in claimed.jobs] == ["task-lasting1"]
    assert not claimed.more  # nothing for which to ask again at once


async def test_many_requests_expire_in_one_round(line: Line) -> None:
    await line.ask("task-expired1", expires_in=60)
    await multiply(line.db, await line.ask("task-expired2", expires_in=60), 520)
    await line.db.execute("update makeit3d.jobs set expires_at = now() + interval '1 minute'")
    assert await expire(line) == 521


async def test_who_waits_for_an_expired_request_fails_with_it(line: Line) -> None:
    await line.ask("task-first-01", expires_in=60)
    await line.ask("task-second-1", "task-first-01")
    assert await expire(line) == 1
    await line.tell()
    assert await line.jobs("task-second-1") == [FAILED]


# --- the cost --------------------------------------------------------------------------------------------------------


async def test_what_nobody_waits_for_is_not_looked_at(line: Line) -> None:
    """Each statement of maintenance reads an index of those rows alone."""
    await line.ask("task-first-01")
    await line.ask("task-second-1", "task-first-01", expires_in=60)
    statements = kernel.queue_of(line.db).statements
    indexes = {
        "jobs_unstarted": (statements.unstarted_jobs, {"most": 10}),
        "jobs_stuck": (statements.stuck_jobs, {"most": 10}),
        "tasks_dependents_pending": (statements.pending_dependents, {"task_ids": None, "without": [], "most": 10}),
    }
    for index, (statement, values) in indexes.items():
        async with line.db.transaction() as connection:
            await connection.execute("set local enable_seqscan = off")
            plan = await connection.fetch(f"explain {statement.text}", *statement.arguments(values))
        assert index in "\n".join(row["QUERY PLAN"] for row in plan)


async def test_accepting_with_dependencies_holds_nobody_up(line: Line) -> None:
    """Two requests that name tasks in another order, and each other's."""
    for number in range(4):
        await line.ask(f"task-first-0{number}")
    names = [f"task-first-0{number}" for number in range(4)]
    await asyncio.gather(
        *(line.ask(f"task-second-{n}", *(names if n % 2 else reversed(names))) for n in range(8)),
        *(line.ask(names[n], names[3 - n]) for n in range(4)),
    )
    assert await line.db.fetchval("select count(*) from makeit3d.task_dependencies") == 8 * 4 + 4
