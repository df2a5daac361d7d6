"""Any order of steps, by any worker: the database stays true after each, and everything ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from pathlib import Path
from typing import Any

import pytest
from app.ai_clients.registry import build_registry
from app.db import pools as pool_rows
from app.db.pool import Database
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.chaos.job_world import World, new_world
from tests.chaos.state_machine import JobLife
from tests.integration.factories import settings_for
from tests.kernel import ASSET_KINDS

pytestmark = pytest.mark.chaos

CI = settings(
    max_examples=20,
    stateful_step_count=30,
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=False,
    phases=(Phase.generate,),  # a failure prints its steps; steps at once make shrinking a gamble
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.function_scoped_fixture),
)
SOAK = settings(CI, max_examples=200, stateful_step_count=50, derandomize=False)


@pytest.fixture
def life(database: str, tmp_path: Path) -> Generator[type[JobLife]]:
    gateway = settings_for(database, tmp_path)
    with asyncio.Runner() as runner:
        db = runner.run(Database.open(gateway, ASSET_KINDS, application_name="makeit3d test"))
        specs = {name: (pool.provider, pool.slots) for name, pool in build_registry().pools(gateway).items()}
        runner.run(pool_rows.ensure(db, specs))

        class Life(JobLife):
            def run(self, work: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - what the work returns
                return runner.run(work)

            def begin(self) -> World:
                return runner.run(new_world(db, gateway))

        yield Life
        runner.run(db.close())


def test_any_order_of_steps_keeps_the_invariants(life: type[JobLife]) -> None:
    run_state_machine_as_test(life, settings=SOAK if settings.get_current_profile_name() == "soak" else CI)
