"""A worker dies at every point of an image job."""

from __future__ import annotations

import pytest

from tests.chaos.crashes.matrix import IMAGES, Case
from tests.chaos.crashes.town import Town

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]

OPERATIONS = IMAGES


def test_a_worker_dies(town: Town, case: Case) -> None:
    town.holds(case)


def test_and_nothing_is_left_over(town: Town) -> None:
    town.nothing_is_left_over()
    town.audit()
