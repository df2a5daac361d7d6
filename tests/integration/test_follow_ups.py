"""Work that a job found to do is accepted with the end of the job, or fails as a request of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from app.config import Settings
from app.db.jobs import failed_request
from app.domain.jobs import ClaimedJob, Completed, FollowUp, Settlement
from app.domain.user_limits import UserLimits
from app.queue import permits
from app.services.audit import audit_rows
from app.services.retries import NotRetried
from app.task_types.params import Params
from app.task_types.registry import TaskType, TaskTypes
from app.task_types.steps import Inputs, Planning, Step

from tests.integration.factories import image_plan, local_step, make_user, stepped_plan
from tests.integration.ledger import Harness, harness, open_queue, retries
from tests.unit.extension.obelisk import OBELISK, Obelisk

__all__ = ["harness"]

TASK = "task-of-parents"
WORDS = {"prompt": "a fox"}


def _booked(params: Obelisk, inputs: Inputs, planning: Planning) -> list[Step]:
    return [replace(step, participants=("ledger",)) for step in OBELISK.plan(params, inputs, planning)]


def _broken(params: Obelisk, inputs: Inputs, planning: Planning) -> list[Step]:
    raise ZeroDivisionError(params, inputs, planning)


BOOKED = replace(OBELISK, name="booked", aliases=(), plan=_booked)
BROKEN = replace(OBELISK, name="broken", aliases=(), plan=_broken)


class Lax(Params):
    words: str


def _lax(params: Lax, inputs: Inputs, planning: Planning) -> list[Step]:
    del inputs, planning
    return [Step("polish_pebbles", None, "local", {"pebbles": [params.words]})]


LAX = TaskType(
    name="lax", label="Lax", description="Takes any words.", category="utility", params=Lax, plan=_lax, example={}
)
TASK_TYPES = TaskTypes([OBELISK, BOOKED, BROKEN, LAX])


@pytest.fixture
def world(harness: Harness, settings: Settings) -> Harness:
    queue = open_queue(harness.db, harness.ledger, settings, task_types=TASK_TYPES)
    return Harness(harness.db, harness.ledger, queue, harness.user)


async def parent(h: Harness) -> ClaimedJob:
    await h.queue.accept(stepped_plan(h.user, TASK, local_step(1, participants=("ledger",))))
    return next(job for job in await h.claim() if job.task_id == TASK)


def follow_up(task_type: str = "booked", params: dict[str, Any] | None = None, **values: Any) -> FollowUp:  # noqa: ANN401
    fields: dict[str, Any] = {"key": "one", **values}
    return FollowUp(task_type, WORDS if params is None else params, **fields)


async def end(h: Harness, *follow_ups: FollowUp) -> ClaimedJob:
    """The parent is completed with these follow-ups."""
    job = await parent(h)
    assert await h.finish(job, Completed(follow_ups=follow_ups))
    assert await h.status(job.claim.job_id) == "completed"
    return job


async def requests(h: Harness) -> list[tuple[str, str, str, str | None]]:
    """Of all tasks but the first request, which is the parent's."""
    query = "select task_id, operation, status, error_code from makeit3d.requests order by number offset 1"
    rows = await h.db.fetch(query)
    return [tuple(row) for row in rows]


async def told(h: Harness, task_id: str = TASK) -> Sequence[str]:
    rows = await h.db.fetch(
        "select payload from makeit3d.events where type = 'task_update' and task_id = $1 order by id", task_id
    )
    return [row["payload"]["status"] for row in rows]


async def test_it_joins_the_task_of_its_job(world: Harness) -> None:
    job = await end(world, follow_up())
    assert await requests(world) == [(TASK, "booked", "queued", None)]
    rows = await world.db.fetch(
        "select j.step, j.status, waiting_for, user_id = $1 as own, price ? 'micros' as priced,"
        " l.accepted_at is not null as accepted from makeit3d.jobs j join ledger l on l.job_id = j.id"
        " where j.id <> $2 order by step",
        world.user,
        job.claim.job_id,
    )
    assert [tuple(row) for row in rows] == [
        (1, "queued", None, True, True, True),
        (2, "queued", "step", True, True, True),
    ]
    # the task was never told to be over
    assert await told(world) == ["queued", "running", "running", "queued"]
    await world.assert_books_agree()


async def test_its_lane_is_woken(world: Harness) -> None:
    job = await parent(world)
    finished = await world.queue.finish([Settlement(job, Completed(follow_ups=(follow_up(),)))])
    assert finished.committed.lanes == {"normal"}


async def test_a_key_is_accepted_once(world: Harness) -> None:
    job = await end(world, follow_up(), follow_up(), follow_up(key="two"))
    assert not await world.finish(job, Completed(follow_ups=(follow_up(key="three"),)))
    assert [one[1] for one in await requests(world)] == ["booked", "booked"]
    await world.assert_books_agree()


async def test_it_may_have_a_task_of_its_own(world: Harness) -> None:
    await end(world, follow_up(task_id="task-of-child-2"), follow_up(task_id="task-of-child-1", key="two"))
    assert {one[0] for one in await requests(world)} == {"task-of-child-1", "task-of-child-2"}
    assert await told(world) == ["queued", "running", "completed"]
    assert await told(world, "task-of-child-1") == ["queued"]


async def test_a_rollback_leaves_neither_the_end_nor_the_follow_up(world: Harness) -> None:
    job = await parent(world)
    world.ledger.fails_on = {job.claim.job_id}
    with pytest.raises(ValueError, match="cannot"):
        await world.finish(job, Completed(follow_ups=(follow_up(),)))
    assert await world.status(job.claim.job_id) == "running"
    assert await requests(world) == []
    assert await world.db.fetchval("select count(*) from ledger") == 1
    world.ledger.fails_on = set()
    assert await world.finish(job, Completed(follow_ups=(follow_up(),)))
    assert len(await requests(world)) == 1
    await world.assert_books_agree()


async def test_the_permits_of_the_user_are_waited_for(world: Harness, settings: Settings) -> None:
    limits = UserLimits(in_flight=1)
    queue = open_queue(world.db, world.ledger, settings, limits=limits, task_types=TASK_TYPES)
    limited = Harness(world.db, world.ledger, queue, world.user)
    await queue.accept(image_plan(world.user, "task-under-way"), limits)
    await limited.claim()
    await end(limited, follow_up())
    waits = "select waiting_for from makeit3d.jobs where task_id = $1 and step = 1 and type = 'generate_images'"
    assert await world.db.fetchval(waits, TASK) == "user_limit"
    await queue.cancel("task-under-way", world.user)
    assert (await permits.release(world.db, world.user, in_flight=1)).lanes == {"normal"}
    assert await world.db.fetchval(waits, TASK) is None


# --- what cannot be accepted -----------------------------------------------------------------------------------------


async def test_one_that_a_participant_refuses_fails_and_its_job_stays(world: Harness) -> None:
    job = await parent(world)
    world.ledger.refuses = True
    assert await world.finish(job, Completed(follow_ups=(follow_up(),)))
    assert await world.status(job.claim.job_id) == "completed"
    assert await requests(world) == [(TASK, "booked", "failed", "user_budget_exceeded")]
    assert await world.db.fetchval("select status from makeit3d.tasks") == "failed"
    assert {row["status"] for row in await world.db.fetch("select status from concept_images")} == {"failed"}
    assert [row["job_id"] for row in await world.db.fetch("select job_id from ledger")] == [job.claim.job_id]
    # who refuses today may take it tomorrow
    world.ledger.refuses = False
    async with retries(world) as operator:
        await operator.retry(await operator.find(TASK), may_pay_again=False)
    assert await world.db.fetchval("select count(*) from ledger where ended_at is null") == 2


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (follow_up("nobody-knows-it"), "unknown_task_type"),
        (follow_up(params={"surface": "wet"}), "validation_error"),
        (follow_up(params={**WORDS, "provider": "nobody"}), "provider_not_available"),
        (follow_up(task_id="no task id"), "validation_error"),
        (follow_up("broken"), "internal_error"),
    ],
    ids=["type", "params", "provider", "task", "plan"],
)
async def test_one_that_cannot_be_planned_is_a_failed_request(
    world: Harness, settings: Settings, found: FollowUp, code: str
) -> None:
    await end(world, found, follow_up("obelisk", key="two"))
    assert set(await requests(world)) == {
        (TASK, found.task_type, "failed", code),
        (TASK, "obelisk", "queued", None),
    }
    assert (await audit_rows(world.db, settings)).differences == []
    request_id: UUID = await world.db.fetchval("select id from makeit3d.requests where status = 'failed'")
    failed = await failed_request(world.db, request_id)
    assert failed is not None
    async with retries(world) as operator:
        with pytest.raises(NotRetried, match="could not be planned"):
            await operator.retry(failed, may_pay_again=False)


@pytest.mark.parametrize(
    "found",
    [
        follow_up("lax", {"words": "a \x00 fox"}),
        follow_up("lax", {"words": "a \ud800 fox"}),
        follow_up(task_id="task\x00of-child"),
        follow_up("ob\x00elisk"),
        follow_up(params={**WORDS, "\x00": 1}),
    ],
    ids=["params", "surrogate", "task", "type", "fault"],
)
async def test_one_that_the_database_does_not_take_fails_and_its_job_stays(world: Harness, found: FollowUp) -> None:
    await end(world, found, follow_up("obelisk", key="two"))
    rows = await requests(world)
    assert (TASK, "obelisk", "queued", None) in rows
    assert [row[2] for row in rows if row[1] != "obelisk"] == ["failed"]


@pytest.mark.parametrize("key", ["a \x00 key", "a \ud800 key", "a long key " * 1000], ids=["nul", "surrogate", "long"])
async def test_its_key_may_be_any_text(world: Harness, key: str) -> None:
    await end(world, follow_up(key=key), follow_up(key=key), follow_up(key="two"))
    assert [row[1:] for row in await requests(world)] == [("booked", "queued", None)] * 2


async def test_one_for_a_task_of_another_user_fails_in_the_task_of_its_job(world: Harness) -> None:
    await world.queue.accept(image_plan(await make_user(world.db), "task-of-another"))
    await end(world, follow_up(task_id="task-of-another"))
    assert (TASK, "booked", "failed", "task_not_found") in await requests(world)
    assert await world.db.fetchval("select count(*) from makeit3d.requests where task_id = 'task-of-another'") == 1
