"""A worker dies at every point of a model job."""

from __future__ import annotations

import pytest
from app.domain.operations import Operation

from tests.chaos.crashes.matrix import MODELS, Case
from tests.chaos.crashes.town import Town

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]

OPERATIONS = MODELS


def test_a_worker_dies(town: Town, case: Case) -> None:
    town.holds(case)


def test_a_worker_dies_in_the_middle_of_a_post(town: Town) -> None:
    """Between first byte and reply. The provider's listing has the call."""
    generations = [operation for operation in OPERATIONS if operation is not Operation.REFINE_MODEL]  # imports first
    assert town.cut_in_the_middle(generations, where="tripo.submit") == {"complete"}


def test_and_nothing_is_left_over(town: Town) -> None:
    town.nothing_is_left_over()
    town.audit()
