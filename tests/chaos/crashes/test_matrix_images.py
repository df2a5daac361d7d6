"""A worker dies at every point of an image job."""

from __future__ import annotations

import pytest

from tests.chaos.crashes.matrix import IMAGES, Case
from tests.chaos.crashes.town import Town

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]

OPERATIONS = IMAGES


def test_a_worker_dies(town: Town, case: Case) -> None:
    town.holds(case)


def test_a_worker_dies_in_the_middle_of_a_post(town: Town) -> None:
    """Between first byte and reply. Nobody can look the call up: it may have been paid, and is not sent again."""
    assert town.cut_in_the_middle(OPERATIONS, where="openai") == {"failed"}


def test_and_nothing_is_left_over(town: Town) -> None:
    town.nothing_is_left_over()
    town.audit()
