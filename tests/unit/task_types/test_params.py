"""What the bodies of the six operations accept, and what parameters they become."""

from __future__ import annotations

from typing import Any

import pytest
from app.container import build_task_types
from app.domain.operations import ModelOptions
from app.schemas.generation import body_of
from app.task_types.params import Params
from app.task_types.registry import AnyTaskType
from pydantic import BaseModel, ValidationError

T = "task-0001"
URL = "https://project.supabase.co/storage/v1/object/public/b/k.png"
TYPES = {body_of(task_type): task_type for task_type in build_task_types()}
TextToImage, ImageToImage, TextToModel, ImageToModel, SketchToModel, RefineModel = TYPES
BODIES: dict[type[BaseModel], dict[str, Any]] = {
    TextToImage: {"task_id": T, "prompt": "a fox"},
    ImageToImage: {"task_id": T, "prompt": "a fox", "input_image_asset_url": URL},
    TextToModel: {"task_id": T, "prompt": "a fox"},
    ImageToModel: {"task_id": T, "input_image_asset_urls": [URL]},
    SketchToModel: {"task_id": T, "input_sketch_asset_url": URL},
    RefineModel: {"task_id": T, "tripo_draft_task_id": "draft-1"},
}
IMAGES = (TextToImage, ImageToImage)
MODELS = (TextToModel, ImageToModel, SketchToModel)


def faults(model: type[BaseModel], **changes: Any) -> list[str]:  # noqa: ANN401 - any JSON
    """Fields that are found wrong when the good body is changed so; a change to ... takes the field away."""
    body = {key: value for key, value in (BODIES[model] | changes).items() if value is not ...}
    try:
        model.model_validate(body)
    except ValidationError as error:
        return [".".join(str(part) for part in fault["loc"]) for fault in error.errors()]
    return []


@pytest.mark.parametrize("model", BODIES)
def test_the_least_body_is_enough_and_the_example_is_good(model: type[BaseModel]) -> None:
    assert faults(model) == []
    model.model_validate(model.model_json_schema()["example"])


@pytest.mark.parametrize("model", BODIES)
def test_task_ids_and_unknown_fields(model: type[BaseModel]) -> None:
    for good in ("a" * 8, "A-b_9" * 12, "6f9a3c1e-54a7-4c0d-9f0e-2b7f6d1c8a42"):
        assert faults(model, task_id=good) == []
    for bad in (..., None, 7, "", "short", "a" * 65, "task 0001", "task-0001\n", "täsk-0001", "../../etc"):
        assert faults(model, task_id=bad) == ["task_id"]
    assert faults(model, colour="red") == ["colour"]
    assert faults(model, provider="Tripo!") == ["provider"]


@pytest.mark.parametrize("model", [TextToImage, ImageToImage, TextToModel])
def test_needed_prompts(model: type[BaseModel]) -> None:
    limit = 32_000
    assert faults(model, prompt="x" * limit) == []
    assert faults(model, prompt="  " + "x" * limit + "  ") == []
    assert faults(model, prompt="two\nlines\tand ü 🦊") == []
    for bad in (..., None, "", " \n ", "x" * (limit + 1), "nul\x00", "esc\x1b[2J", "\ud800", 7):
        assert faults(model, prompt=bad) == ["prompt"], repr(bad)


@pytest.mark.parametrize("model", [ImageToModel, SketchToModel, RefineModel])
def test_optional_prompts(model: type[BaseModel]) -> None:
    for good in (None, "", "  ", "a fox"):
        assert faults(model, prompt=good) == []
    for bad in ("x" * 32_001, "nul\x00"):
        assert faults(model, prompt=bad) == ["prompt"]


@pytest.mark.parametrize("model", IMAGES)
def test_image_options(model: type[BaseModel]) -> None:
    for field, good, bad in (
        ("n", (1, 10, 5.0), (0, 0.0, float("inf"), 11, -1, "2", True, 1.5, None)),
        ("background", ("auto", "opaque", "transparent", None), ("none", "")),
        ("quality", ("auto", "high"), ("max", "")),
        ("output_format", ("png", "webp"), ("gif", "svg")),
        (
            "size",
            ("auto", "1024x1024", "3072x1024"),
            ("1024", "1x1", "１０２４x１０２４", "x", ""),
        ),
        ("style", ("oak", "", None), ("x" * 201, "a\x00")),
    ):
        assert [faults(model, **{field: value}) for value in good] == [[]] * len(good), field
        assert [faults(model, **{field: value}) for value in bad] == [[field]] * len(bad), field
    assert faults(model, background="transparent", output_format="jpeg") == [""]
    assert faults(model, background="transparent", output_format="webp") == []


@pytest.mark.parametrize("model", MODELS)
def test_model_options(model: type[BaseModel]) -> None:
    for field, good, bad in (
        ("texture", (True, False, None), ("yes", 1)),
        ("pbr", (True, False), ("no",)),
        ("auto_size", (True,), (0,)),
        ("face_limit", (50, 1_500_000, 50.0, None), (0, 0.0, 1e300, 50.5, 2**31, "1000", True)),
        ("texture_quality", ("standard", "detailed", "extreme"), ("a b", "")),
        ("orientation", ("default", "align_image"), ("up!",)),
        ("model_version", ("v3.1-20260211", "P1-20260311"), ("v 9", "", 3)),
    ):
        assert [faults(model, **{field: value}) for value in good] == [[]] * len(good), field
        assert [faults(model, **{field: value}) for value in bad] == [[field]] * len(bad), field
    assert faults(model, texture=False, pbr=True) == [""]
    assert faults(model, texture=False, pbr=False) == []


def test_views_of_an_object() -> None:
    assert faults(ImageToModel, input_image_asset_urls=[URL] * 4) == []
    assert faults(ImageToModel, input_image_asset_urls=...) == [""]
    assert faults(ImageToModel, input_image_asset_urls=..., input_image_asset_url=URL) == []
    assert faults(ImageToModel, input_image_asset_url=URL) == [""]
    for bad in ([], [URL] * 5, URL):
        assert faults(ImageToModel, input_image_asset_urls=bad) == ["input_image_asset_urls"]
    assert faults(ImageToModel, input_image_asset_urls=[URL, ""]) == ["input_image_asset_urls.1"]
    assert faults(ImageToImage, input_image_asset_url="x" * 2049) == ["input_image_asset_url"]


def test_what_can_be_refined() -> None:
    assert faults(RefineModel, tripo_draft_task_id=...) == [""]
    assert faults(RefineModel, input_model_asset_url=URL, prompt="oak") == [""]
    assert faults(RefineModel, tripo_draft_task_id=..., input_model_asset_url=URL) == [""]
    assert faults(RefineModel, tripo_draft_task_id=..., input_model_asset_url=URL, prompt="oak") == []
    assert faults(RefineModel, tripo_draft_task_id=..., draft_model_task_id="draft-1") == []
    assert faults(RefineModel, tripo_draft_task_id="a b") == ["tripo_draft_task_id"]
    assert faults(RefineModel, texture=False) == ["texture"]
    assert faults(RefineModel, model_version="v3.5-20260815", texture_quality="fast") == []


def parsed(model: type[BaseModel], **changes: Any) -> tuple[AnyTaskType, Any]:  # noqa: ANN401 - any JSON
    """The type of a body and its parameters; a change to ... takes the field away."""
    body = {key: value for key, value in (BODIES[model] | changes).items() if value is not ...}
    found = model.model_validate(body)
    assert isinstance(found, Params)
    return next(task_type for known, task_type in TYPES.items() if known is model), found


def test_parameters_hold_what_was_sent() -> None:
    task_type, params = parsed(TextToImage, prompt=" a fox ", n=3, style="oak", size="auto")
    assert task_type.name == "text-to-image"
    assert task_type.set_fields(params) == {"prompt": "a fox", "n": 3, "style": "oak", "size": "auto"}
    task_type, params = parsed(ImageToModel, pbr=True, face_limit=1000, provider="tripo")
    assert task_type.input_urls(params) == {"input_image_asset_urls": (URL,)}
    assert params.options() == ModelOptions(pbr=True, face_limit=1000)
    assert task_type.set_fields(params) == {"pbr": True, "face_limit": 1000, "provider": "tripo"}
    assert parsed(ImageToImage)[0].input_urls(parsed(ImageToImage)[1]) == {"input_image_asset_urls": (URL,)}
    _, params = parsed(RefineModel, texture_quality="extreme")
    assert params.options() == ModelOptions(texture_quality="extreme")


def test_a_body_of_fields_that_are_not_there_costs_one_fault() -> None:
    for operation in BODIES:
        with pytest.raises(ValidationError) as refused:
            operation.model_validate({f"unknown_{number}": 0 for number in range(1000)})
        assert refused.value.error_count() == 1
        assert len(operation.model_fields) < 50
