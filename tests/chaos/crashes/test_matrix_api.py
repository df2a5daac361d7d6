"""The API dies around its commit and its bell; the client repeats its request, and one task comes of it."""

from __future__ import annotations

from uuid import uuid4

import pytest
from app.domain.crash_points import Boundary, CrashPoint, Side
from app.domain.operations import Operation

from tests.chaos.crashes.matrix import Case, points
from tests.chaos.crashes.plan import ANYBODY
from tests.chaos.crashes.town import Town

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("point", points([Boundary.ACCEPT]), ids=str)
@pytest.mark.parametrize("operation", Operation, ids=lambda operation: operation.value)
def test_dies_around_the_commit(town: Town, operation: Operation, point: CrashPoint, times: int) -> None:
    case = Case(operation, point, times)
    if point.side is Side.AFTER and times > 1:
        case = Case(operation, point, 1)  # what is committed is not committed again: there is no second time
    town.start(case, kind="api")
    town.holds(case, kind="api")


@pytest.mark.parametrize("point", points([Boundary.RING]), ids=str)
def test_dies_around_the_bell(town: Town, point: CrashPoint) -> None:
    """It is rung by whoever accepts next: each operation follows one that was accepted and not told."""
    plan = town.plan("api")
    for operation in Operation:
        case = str(uuid4())
        before = plan.deaths(ANYBODY)
        plan.condemn(ANYBODY, point, before + 1)
        town.ask(operation, case)
        town.ended(case)
        town.complete_once(case, operation)
        assert plan.deaths(ANYBODY) == before + 1, "the point was not reached"
    (plan.directory / ANYBODY).unlink()


def test_and_nothing_is_left_over(town: Town) -> None:
    town.nothing_is_left_over()
    town.audit()
