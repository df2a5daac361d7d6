"""A worker process dies between jobs: at housekeeping, at a bell, before a claim."""

from __future__ import annotations

from uuid import uuid4

import pytest
from app.domain.crash_points import CrashPoint
from app.domain.operations import Operation

from tests.chaos.crashes.matrix import PROCESS, all_points
from tests.chaos.crashes.plan import ANYBODY
from tests.chaos.crashes.town import Town
from tests.e2e.gateway import wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]

DEATHS = 3


def test_processes_die_whatever_they_work_on(town: Town) -> None:
    """Three times in a row at each point, while tasks of every operation are under way."""
    plan = town.plan("worker")
    tasks: dict[str, Operation] = {}
    for point in all_points(PROCESS):
        task_id = str(uuid4())
        tasks[task_id] = list(Operation)[len(tasks) % len(Operation)]
        die_at(town, point, tasks[task_id], task_id)
    for task_id, operation in tasks.items():
        assert town.ended(task_id)["status"] == "complete"
        town.complete_once(task_id, operation)
    assert plan.deaths(ANYBODY) == DEATHS * len(tasks)
    town.nothing_is_left_over()
    town.audit()


def die_at(town: Town, point: CrashPoint, operation: Operation, task_id: str) -> None:
    plan = town.plan("worker")
    before = plan.deaths(ANYBODY)
    plan.condemn(ANYBODY, point, before + DEATHS)
    town.ask(operation, task_id)
    wait_for(lambda: plan.deaths(ANYBODY) == before + DEATHS or None)
    (plan.directory / ANYBODY).unlink()
