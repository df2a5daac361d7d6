"""A request is held to the limits of the provider that is chosen for it, and to those of no other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from app.ai_clients.base import Capability
from app.ai_clients.limits import Limits
from app.ai_clients.openai.limits import CAPABILITIES as OPENAI
from app.ai_clients.registry import Providers
from app.ai_clients.tripo.limits import CAPABILITIES as TRIPO
from app.container import build_registry
from app.domain.params import ObjectRef
from app.task_types.inputs import SKETCH, VIEWS
from app.task_types.planner import Planner
from app.task_types.steps import Inputs, ParamsRefused

from tests.fake_providers import FakeImages, FakeModels
from tests.integration.factories import settings_for

PICTURE = ObjectRef("b", "k.png")
URL = "https://project.supabase.co/storage/v1/object/public/b/k.png"
Fault = tuple[str, str, str]


def faults(home: Path, operation: str, *, renderer: str | None = None, **params: Any) -> list[Fault]:  # noqa: ANN401
    """What the planner finds wrong; ``generous`` is a provider of models without limits."""
    anything = dict.fromkeys(TRIPO, Limits())
    providers = Providers([FakeImages(), FakeModels(), FakeModels(name="generous", capabilities=anything)])
    registry = build_registry(sketch_renderer=renderer)
    planner = Planner(providers, settings_for("postgresql://x/y", home), registry.job_types.permits)
    task_type = registry.task_types.named(operation)
    inputs = Inputs({VIEWS.key: (PICTURE,), SKETCH.key: (PICTURE,)})
    try:
        planner.plan(task_type, task_type.params.model_validate(params), inputs, uuid4())
    except ParamsRefused as refused:
        return [(fault.field, fault.code, fault.message) for fault in refused.faults]
    return []


VERSIONS = "'v3.1-20260211', 'v3.0-20250812', 'v2.5-20250123', 'P1-20260311' or 'P2-20260801'"
TEXTURES = "'v3.5-20260815', 'v3.0-20250812' or 'v2.5-20250123'"
LONG = ("prompt", "string_too_long", "String should have at most 1024 characters")
WITH_STYLE = ("body", "value_error", "Prompt and style together may have 1024 characters.")

REFUSED: Sequence[tuple[str, dict[str, Any], Fault]] = (
    (
        "text-to-model",
        {"face_limit": 49},
        ("face_limit", "greater_than_equal", "Input should be greater than or equal to 50"),
    ),
    (
        "text-to-model",
        {"face_limit": 1_500_001},
        ("face_limit", "less_than_equal", "Input should be less than or equal to 1500000"),
    ),
    (
        "text-to-model",
        {"model_version": "P1-20260311", "face_limit": 20_001},
        ("body", "value_error", "P1-20260311 makes at most 20000 faces."),
    ),
    ("text-to-model", {"model_version": "v9"}, ("model_version", "literal_error", f"Input should be {VERSIONS}")),
    (
        "text-to-model",
        {"texture_quality": "fast"},
        ("texture_quality", "literal_error", "Input should be 'standard', 'detailed' or 'extreme'"),
    ),
    (
        "image-to-model",
        {"orientation": "up"},
        ("orientation", "literal_error", "Input should be 'default' or 'align_image'"),
    ),
    ("text-to-model", {"prompt": "x" * 1_025}, LONG),
    ("text-to-model", {"prompt": "x" * 1_019, "style": "oak"}, WITH_STYLE),
    ("refine-model", {"prompt": "x" * 1_025}, LONG),
    (
        "refine-model",
        {"model_version": "v3.1-20260211"},
        ("model_version", "literal_error", f"Input should be {TEXTURES}"),
    ),
)
LEAST: dict[str, dict[str, Any]] = {
    "text-to-model": {"prompt": "a fox"},
    "image-to-model": {"input_image_asset_urls": [URL]},
    "sketch-to-model": {"input_sketch_asset_url": URL},
    "refine-model": {"tripo_draft_task_id": "draft-1"},
}


@pytest.mark.parametrize(("operation", "params", "fault"), REFUSED)
def test_what_one_provider_refuses_another_may_take(
    tmp_path: Path, operation: str, params: dict[str, Any], fault: Fault
) -> None:
    asked = LEAST[operation] | params
    assert faults(tmp_path, operation, **asked) == [fault]
    assert faults(tmp_path, operation, **asked, provider="tripo") == [fault]
    assert faults(tmp_path, operation, **asked, provider="generous") == []


@pytest.mark.parametrize(
    ("operation", "params"),
    [
        ("text-to-model", {"face_limit": 50}),
        ("text-to-model", {"face_limit": 1_500_000}),
        ("text-to-model", {"model_version": "v2.5-20250123", "face_limit": 500_000}),
        ("text-to-model", {"prompt": "x" * 1_024}),
        ("image-to-model", {"prompt": "x" * 1_025}),  # kept with the model, and not sent
        ("refine-model", {"model_version": "v3.5-20260815", "texture_quality": "fast"}),
    ],
)
def test_what_it_takes(tmp_path: Path, operation: str, params: dict[str, Any]) -> None:
    assert faults(tmp_path, operation, **(LEAST[operation] | params)) == []


def test_a_sketch_is_held_to_the_limits_of_who_draws_it(tmp_path: Path) -> None:
    long = LEAST["sketch-to-model"] | {"prompt": "x" * 1_801}
    assert faults(tmp_path, "sketch-to-model", **long) == []
    assert faults(tmp_path, "sketch-to-model", renderer="generous", **long) == []
    assert [fault[1] for fault in faults(tmp_path, "sketch-to-model", renderer="tripo", **long)] == ["string_too_long"]


@pytest.mark.parametrize("size", ["100x100", "1023x1024", "4096x2048", "3088x1024"])
def test_sizes_are_the_picture_makers(tmp_path: Path, size: str) -> None:
    assert [fault[:2] for fault in faults(tmp_path, "text-to-image", prompt="a fox", size=size)] == [
        ("size", "value_error")
    ]
    for good in ("auto", "1024x1024", "3072x1024"):
        assert faults(tmp_path, "text-to-image", prompt="a fox", size=good) == []


def test_prompts_of_pictures_fit_with_their_style(tmp_path: Path) -> None:
    [fault] = faults(tmp_path, "text-to-image", prompt="x" * 31_995, style="oak")
    assert fault == ("body", "value_error", "Prompt and style together may have 32000 characters.")
    assert OPENAI[Capability.TEXT_TO_IMAGE].prompt_characters == 32_000
