"""A worker dies at every point of a model job."""

from __future__ import annotations

from uuid import uuid4

import pytest
from app.domain.crash_points import Boundary, CrashPoint
from app.domain.operations import Operation

from tests.chaos.crashes.matrix import MODELS, Case, points
from tests.chaos.crashes.town import DEATHS, Town
from tests.e2e.gateway import wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]

OPERATIONS = MODELS


def test_a_worker_dies(town: Town, case: Case) -> None:
    town.holds(case)


def test_a_worker_dies_in_the_middle_of_a_post(town: Town) -> None:
    """Between first byte and reply. The provider's listing has the call."""
    generations = [operation for operation in OPERATIONS if operation is not Operation.REFINE_MODEL]  # imports first
    assert town.cut_in_the_middle(generations, where="tripo.submit") == {"complete"}


@pytest.mark.parametrize("point", points([Boundary.REMOVE]), ids=str)
def test_a_worker_dies_while_it_removes_what_a_canceled_job_left(town: Town, point: CrashPoint) -> None:
    task_id = str(uuid4())
    town.plan("worker").condemn(task_id, point, DEATHS)
    key = f"models/{task_id}/model.glb"
    town.storage_fault("slow", method="POST", path_contains=key, count=1, bytes_per_second=1)  # and its reply is long
    town.ask(Operation.TEXT_TO_MODEL, task_id)
    stored = "select from storage.objects where name = $1"
    wait_for(lambda: town.rows(stored, key) or None)
    town.http.post(f"/tasks/{task_id}/cancel").raise_for_status()
    assert town.ended(task_id)["status"] == "canceled"
    wait_for(lambda: town.plan("worker").deaths(task_id) == DEATHS or None)
    gone = "select state from makeit3d.files where task_id = $1 and state <> 'removed'"
    wait_for(lambda: town.rows(gone, task_id) == [] or None)
    assert town.rows(stored, key) == []
    town.told_once(task_id, "canceled")
    paid = (
        "select c.error_code from makeit3d.provider_calls c join makeit3d.jobs j on j.id = c.job_id"
        " where j.task_id = $1 and c.state = $2"
    )
    # what was paid stays in the books
    assert [row["error_code"] for row in wait_for(lambda: town.rows(paid, task_id, "settled") or None)] == [None]


def test_and_nothing_is_left_over(town: Town) -> None:
    town.nothing_is_left_over()
    town.audit()
