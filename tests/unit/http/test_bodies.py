"""What the six operations accept, and what command it becomes."""

from __future__ import annotations

from typing import Any

import pytest
from app.domain.commands import GenerateCommand
from app.domain.operations import ModelOptions, Operation
from app.schemas.generation import (
    ImageToImage,
    ImageToModel,
    RefineModel,
    SketchToModel,
    TextToImage,
    TextToModel,
)
from pydantic import BaseModel, ValidationError

T = "task-0001"
URL = "https://project.supabase.co/storage/v1/object/public/b/k.png"
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
    limit = 1_024 if model is TextToModel else 32_000
    assert faults(model, prompt="x" * limit) == []
    assert faults(model, prompt="  " + "x" * limit + "  ") == []
    assert faults(model, prompt="two\nlines\tand ü 🦊") == []
    for bad in (..., None, "", " \n ", "x" * (limit + 1), "nul\x00", "esc\x1b[2J", "\ud800", 7):
        assert faults(model, prompt=bad) == ["prompt"], repr(bad)
    # style is appended, so both have to fit together
    assert faults(model, prompt="x" * (limit - 5), style="oak") == [""]


@pytest.mark.parametrize("model", [ImageToModel, SketchToModel, RefineModel])
def test_optional_prompts(model: type[BaseModel]) -> None:
    for good in (None, "", "  ", "a fox"):
        assert faults(model, prompt=good) == []
    for bad in ("x" * 1_025, "nul\x00"):
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
            ("1024", "100x100", "1023x1024", "4096x2048", "3088x1024", "1x1", "１０２４x１０２４"),
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
        ("face_limit", (50, 1_500_000, 50.0, None), (49, 49.0, 1e300, 50.5, 1_500_001, "1000", True)),
        ("texture_quality", ("standard", "detailed", "extreme"), ("fast", "")),
        ("orientation", ("default", "align_image"), ("up",)),
        ("model_version", ("v3.1-20260211", "P1-20260311"), ("v9", "tripo-v3.1")),
    ):
        assert [faults(model, **{field: value}) for value in good] == [[]] * len(good), field
        assert [faults(model, **{field: value}) for value in bad] == [[field]] * len(bad), field
    assert faults(model, texture=False, pbr=True) == [""]
    assert faults(model, texture=False, pbr=False) == []
    assert faults(model, model_version="P1-20260311", face_limit=20_001) == [""]
    assert faults(model, model_version="v2.5-20250123", face_limit=500_000) == []


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
    assert faults(RefineModel, model_version="v3.1-20260211") == ["model_version"]
    assert faults(RefineModel, model_version="v3.5-20260815", texture_quality="fast") == []


def command(model: type[BaseModel], **changes: Any) -> GenerateCommand:  # noqa: ANN401 - any JSON
    body = {key: value for key, value in (BODIES[model] | changes).items() if value is not ...}
    parsed: Any = model.model_validate(body)
    return parsed.command()


def test_commands_hold_what_was_sent() -> None:
    assert command(TextToImage, prompt=" a fox ", n=3, style="oak", size="auto") == GenerateCommand(
        Operation.TEXT_TO_IMAGE, T, prompt="a fox", n=3, style="oak", size="auto"
    )
    assert command(ImageToModel, pbr=True, face_limit=1000, provider="tripo") == GenerateCommand(
        Operation.IMAGE_TO_MODEL,
        T,
        input_image_asset_urls=(URL,),
        options=ModelOptions(pbr=True, face_limit=1000),
        provider="tripo",
    )
    assert command(ImageToImage).input_image_asset_urls == (URL,)
    assert command(SketchToModel).input_sketch_asset_url == URL
    assert command(RefineModel, texture_quality="extreme").options == ModelOptions(texture_quality="extreme")


def test_a_body_of_fields_that_are_not_there_costs_one_fault() -> None:
    for operation in (TextToImage, ImageToImage, TextToModel, ImageToModel, SketchToModel, RefineModel):
        with pytest.raises(ValidationError) as refused:
            operation.model_validate({f"unknown_{number}": 0 for number in range(1000)})
        assert refused.value.error_count() == 1
        assert len(operation.model_fields) < 50
