"""Steps of a task type become plans of jobs, with a price for each and outputs where they belong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from app.ai_clients.registry import Providers
from app.outputs.kinds import CONCEPT as CONCEPT_KIND
from app.task_types.planner import Plan, Planner
from app.task_types.steps import Inputs, Output, Step

from tests.fake_providers import FakeImages, FakeModels
from tests.integration.factories import settings_for
from tests.unit.extension.obelisk import OBELISK
from tests.unit.extension.registry import build_registry

CONCEPT = Output(CONCEPT_KIND)


def local(**values: object) -> Step:
    return Step("polish_pebbles", None, "local", {}, **values)  # pyright: ignore[reportArgumentType]


def plan(home: Path, steps: Sequence[Step], *, price: int = 0) -> Plan:
    providers = Providers([FakeImages(), FakeModels()])
    planner = Planner(providers, settings_for("postgresql://x/y", home), build_registry().job_types.permits)
    task_type = replace(OBELISK, plan=lambda *_: steps, price=lambda *_: price)
    return planner.plan(task_type, OBELISK.least_example(), Inputs(), UUID(int=1))


def test_every_step_is_data_of_the_request(tmp_path: Path) -> None:
    found = plan(
        tmp_path, [local(items=("a", "b", "c"), items_per_job=2), local(items_from=1, participants=("credits",))]
    )
    assert [(step.step, step.permit, step.items_from, step.participants) for step in found.steps] == [
        (1, "none", None, ()),
        (2, "none", 1, ("credits",)),
    ]
    assert [(job.step, job.chunk, job.items) for job in found.jobs] == [(1, 0, ("a", "b")), (1, 1, ("c",))]
    assert found.main_job_id == found.jobs[0].id


def test_each_job_has_its_share_of_the_price(tmp_path: Path) -> None:
    steps = [local(estimate_micros=30), local(estimate_micros=10), local(price={"pebble": 4})]
    assert [job.price for job in plan(tmp_path, steps, price=100).jobs] == [
        {"micros": 75},
        {"micros": 25},
        {"pebble": 4},
    ]
    free = [local(), local()]
    assert [job.price for job in plan(tmp_path, free, price=7).jobs] == [{"micros": 0}, {"micros": 7}]


def test_outputs_of_several_jobs_go_with_their_items(tmp_path: Path) -> None:
    outputs = tuple(replace(CONCEPT, prompt=key) for key in "abc")
    found = plan(tmp_path, [local(items=("a", "b", "c"), items_per_job=2, outputs=outputs)])
    first, second = found.jobs
    assert [(asset.prompt, asset.job_id) for asset in found.assets] == [
        ("a", first.id),
        ("b", first.id),
        ("c", second.id),
    ]


def test_a_step_that_cannot_be_is_refused(tmp_path: Path) -> None:
    for values in (
        {"items": ("a", "a")},
        {"items": ("a",), "items_from": 1},
        {"items_from": 1, "outputs": (CONCEPT,)},
        {"items": ("a", "b", "c"), "items_per_job": 1, "outputs": (CONCEPT,)},
        {"items_per_job": 0},
    ):
        with pytest.raises(ValueError, match="step"):
            local(**values)
    with pytest.raises(ValueError, match="no earlier one"):
        plan(tmp_path, [local(items_from=1)])
