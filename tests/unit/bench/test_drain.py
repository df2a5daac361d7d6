"""How many jobs make a round: slow queues do not hold up the others, fast ones run long enough to be measured."""

from __future__ import annotations

import pytest
from bench.drain import jobs_of_a_round


@pytest.mark.parametrize(("per_second", "jobs"), [(10.0, 300), (1000.0, 3000), (1_000_000.0, 50_000)])
def test_a_round_takes_some_seconds_within_bounds(per_second: float, jobs: int) -> None:
    assert jobs_of_a_round(per_second, 3.0) == jobs
