"""What a task type costs at each provider, and what its document says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from app.ai_clients.registry import Providers
from app.container import build_task_types
from app.errors import AppError, ErrorCode
from app.task_types.catalogue import Catalogue, describe
from app.task_types.planner import Planner
from app.task_types.registry import AnyTaskType, TaskTypes
from app.task_types.text_to_image import TEXT_TO_IMAGE

from tests import kernel
from tests.fake_providers import FakeImages, FakeModels
from tests.integration.factories import settings_for


def planner(home: Path, *, images: bool = True) -> Planner:
    providers = Providers([*([FakeImages()] if images else []), FakeModels(), FakeModels(name="bargain")])
    return Planner(providers, settings_for("postgresql://x/y", home), kernel.REGISTRY.job_types.permits)


@pytest.mark.parametrize("task_type", list(build_task_types()), ids=lambda task_type: task_type.name)
def test_estimates_name_each_provider_that_may_be_chosen(task_type: AnyTaskType, tmp_path: Path) -> None:
    estimates = describe(task_type, planner(tmp_path))["estimates"]
    named = [(estimate["provider"], estimate["default"]) for estimate in estimates]
    if task_type.name.endswith("-image"):
        assert named == [("openai", True)]
    else:
        assert named == [("tripo", True), ("bargain", False)]
    assert all(estimate["micros"] > 0 for estimate in estimates)


def test_a_sketch_costs_its_concept_and_its_model(tmp_path: Path) -> None:
    def micros(renderer: Any) -> int:  # noqa: ANN401 - of the setting
        task_type = build_task_types(sketch_renderer=renderer).named("sketch-to-model")
        found: int = describe(task_type, planner(tmp_path))["estimates"][0]["micros"]
        return found

    assert micros("openai") > micros("none")
    assert micros("tripo") > micros("none")


def test_what_nobody_offers_has_no_estimate(tmp_path: Path) -> None:
    assert describe(TEXT_TO_IMAGE, planner(tmp_path, images=False))["estimates"] == []


def test_documents_are_the_same_for_the_same_types(tmp_path: Path) -> None:
    first, second = (Catalogue(build_task_types(), planner(tmp_path)) for _ in range(2))
    assert first.whole == second.whole
    fewer = Catalogue(TaskTypes([TEXT_TO_IMAGE]), planner(tmp_path))
    assert fewer.whole.etag != first.whole.etag
    assert fewer.one("text_to_image") == first.one("text-to-image")
    assert json.loads(fewer.one("text-to-image").body) == json.loads(fewer.whole.body)["task_types"][0]
    with pytest.raises(AppError) as refused:
        fewer.one("text-to-model")
    assert refused.value.error is ErrorCode.NOT_FOUND


def test_two_types_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="text-to-image names two task types"):
        TaskTypes([TEXT_TO_IMAGE, TEXT_TO_IMAGE])
