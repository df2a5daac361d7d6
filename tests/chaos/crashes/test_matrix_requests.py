"""A worker dies at every point of a request of two jobs and between jobs; the API around its commit and its bell."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from uuid import UUID, uuid4

import pytest
from app.db.pool import Database
from app.domain.crash_points import Boundary, CrashPoint
from app.domain.operations import Operation

from tests import kernel
from tests.chaos.crashes.matrix import BOTH, PROCESS, Case, all_points, at_work, points
from tests.chaos.crashes.plan import ANYBODY, Plan
from tests.chaos.crashes.town import DEATHS, Town
from tests.e2e.gateway import wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]

OPERATIONS = BOTH
_A_TASK_SECONDS = 30.0  # far longer than one takes


def test_a_worker_dies(town: Town, case: Case) -> None:
    town.holds(case)


def test_a_worker_dies_in_the_middle_of_a_post(town: Town) -> None:
    """Between first byte and reply. Nobody can look the call up: it may have been paid, and is not sent again."""
    assert town.cut_in_the_middle(OPERATIONS, where="openai") == {"failed"}


def test_the_api_dies_around_its_commit(town: Town, api_case: Case) -> None:
    """The client repeats its request, and one task comes of it."""
    town.start(api_case, kind="api")
    town.holds(api_case, kind="api")


@pytest.mark.parametrize("point", points([Boundary.RING]), ids=str)
def test_the_api_dies_around_its_bell(town: Town, point: CrashPoint) -> None:
    """It is rung by whoever accepts next: each request follows one that was accepted and not told."""
    plan = town.plan("api")
    for operation in (Operation.TEXT_TO_IMAGE, Operation.SKETCH_TO_MODEL, Operation.TEXT_TO_MODEL):
        case = str(uuid4())
        before = plan.deaths(ANYBODY)
        plan.condemn(ANYBODY, point, before + 1)
        town.ask(operation, case)
        town.ended(case)
        town.complete_once(case, operation)
        assert plan.deaths(ANYBODY) == before + 1, "the point was not reached"
    (plan.directory / ANYBODY).unlink()


@pytest.mark.parametrize("point", all_points(PROCESS), ids=str)
def test_a_process_dies_whatever_it_works_on(town: Town, point: CrashPoint) -> None:
    """Three times in a row, while a task is under way; one after the other, for five deaths end a job."""
    plan = town.plan("worker")
    operation = at_work(point)
    tasks: list[str] = []
    before = plan.deaths(ANYBODY)
    plan.condemn(ANYBODY, point, before + DEATHS)
    while plan.deaths(ANYBODY) < before + DEATHS:
        assert len(tasks) <= DEATHS, "the point was not reached"
        tasks.append(str(uuid4()))
        if point.boundary == Boundary.PROMOTE:  # what is refused for now waits, and is promoted
            town.fault("openai", "rate_limit", words=tasks[-1])
        died = plan.deaths(ANYBODY)
        town.ask(operation, tasks[-1])
        with suppress(TimeoutError):  # a task may be over before a process died: then there is more work
            wait_for(partial(_more_than, plan, died), seconds=_A_TASK_SECONDS)
    (plan.directory / ANYBODY).unlink()
    for task_id in tasks:
        town.complete_or_cut(task_id, operation)


def _more_than(plan: Plan, deaths: int) -> bool | None:
    return plan.deaths(ANYBODY) > deaths or None


@pytest.mark.parametrize("point", all_points([Boundary.RELEASE]), ids=str)
def test_a_worker_dies_as_it_gives_back_what_it_never_heard_of(town: Town, point: CrashPoint) -> None:
    """A claim was made in its name, and the answer did not reach it."""
    plan = town.plan("worker")
    before = plan.deaths(ANYBODY)
    plan.condemn(ANYBODY, point, before + 1)
    task_id = str(uuid4())
    with town.standstill() as workers:
        town.ask(Operation.TEXT_TO_MODEL, task_id)
        asyncio.run(claim_for(town, workers[0]))
    wait_for(lambda: plan.deaths(ANYBODY) == before + 1 or None)
    (plan.directory / ANYBODY).unlink()
    assert town.ended(task_id)["status"] == "complete"
    town.complete_once(task_id, Operation.TEXT_TO_MODEL)


@pytest.mark.parametrize("point", all_points(["advance_dependents"]), ids=str)
def test_a_worker_dies_as_it_tells_who_waited_for_a_task(town: Town, point: CrashPoint) -> None:
    """Between the end of a task and the start of the next one; maintenance makes good what is lost."""
    first, second = str(uuid4()), str(uuid4())
    plan = town.plan("worker")
    plan.condemn(first, point, DEATHS)
    with town.standstill():
        town.ask(Operation.TEXT_TO_IMAGE, first)
        town.ask(Operation.TEXT_TO_IMAGE, second, after=[first])
    assert town.ended(first)["status"] == "complete"
    town.complete_once(first, Operation.TEXT_TO_IMAGE)
    # a process that dies may be at the paid call of the second one, which another process told before
    town.complete_or_cut(second, Operation.TEXT_TO_IMAGE)
    assert 1 <= plan.deaths(first) <= DEATHS, "the point was not reached"
    [began] = town.rows(
        "select min(j.started_at) >= max(b.finished_at) as late from makeit3d.jobs j, makeit3d.jobs b"
        " where j.task_id = $1 and b.task_id = $2",
        second,
        first,
    )
    assert began["late"]


async def claim_for(town: Town, worker_id: UUID) -> None:
    database = await Database.open(town.settings, kernel.ASSET_KINDS, application_name="makeit3d test")
    try:
        result = await kernel.claim(database, worker_id=worker_id, lanes=("priority", "normal"), limit=1)
    finally:
        await database.close()
    assert len(result.jobs) == 1


def test_and_nothing_is_left_over(town: Town) -> None:
    town.nothing_is_left_over()
    town.audit()
