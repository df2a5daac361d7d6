"""Which requests are one: by what was set of the operation's own body, and the objects that its links lead to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from app.domain.storage_urls import StorageRef
from pydantic import BaseModel

from tests.unit.task_types.test_params import (
    BODIES,
    TYPES,
    URL,
    ImageToImage,
    ImageToModel,
    RefineModel,
    SketchToModel,
    TextToImage,
    TextToModel,
    parsed,
)

SIGNED = "https://project.supabase.co/storage/v1/object/sign/b/k.png?token=one"
OBJECT = StorageRef("b", "k.png")

# Kept for ever: a hash that changes with the code lets a repeat be paid again, or be refused, after an update.
PINNED: list[tuple[type[BaseModel], dict[str, Any], str]] = [
    (TextToImage, {}, "1650fed9e9e4166614da02a0b6673566b74ec21aa3aeea3828800da1e514cafb"),
    (
        TextToImage,
        {"n": 4, "style": "oak", "size": "1024x1024", "quality": "low", "output_format": "webp"},
        "92de8b12d0b3efca002d3c4d6b8d9e484f68cbcdeb402af4a136aaefcce7cf2d",
    ),
    (ImageToImage, {}, "a494693df1c0644250a7e86bed09d2b281e8bf39c002a2e73c5653f85b453db8"),
    (TextToModel, {}, "c9006666f6ec78b23b7b918e049e5aa5d812bcf0e62156eb68df903d43dac22f"),
    (
        TextToModel,
        {"texture": True, "pbr": False, "face_limit": 30000, "provider": "tripo"},
        "093582e242dcfe1c51a9c47a098b137c94dc7fe5fe244abd736c8e6833bb7d1b",
    ),
    (ImageToModel, {}, "f98e662e77559548762d10371bb9e367279c8cd70e3881a7f699cb4c30fa1436"),
    (
        ImageToModel,
        {"prompt": "a fox", "orientation": "align_image"},
        "863893e24a6e1126ba54beac01345c7b8a4384f4866a6dd96ff9e4a27bb9ac36",
    ),
    (SketchToModel, {"prompt": "a chair"}, "ee7874bcdb56619786e67d940c2fddbb2139e85912dd21e5b09e488dac7298a9"),
    (RefineModel, {}, "aaf304a2b8cad44ea11cb87429cabf2f7090cb244ea233656f7d8c882f9f0cdf"),
    (
        RefineModel,
        {"tripo_draft_task_id": ..., "input_model_asset_url": URL, "prompt": "oak"},
        "987429873a5f3170ef93fcbed234541ece4c073f0597081332dbfddf87a3b610",
    ),
]


def hash_of(model: type[BaseModel], **changes: Any) -> str:  # noqa: ANN401 - any JSON
    task_type, params = parsed(model, **changes)
    return task_type.body_hash(params, {URL: OBJECT, SIGNED: OBJECT})


@pytest.mark.parametrize(("model", "changes", "pinned"), PINNED)
def test_a_hash_outlives_the_code(model: type[BaseModel], changes: dict[str, Any], pinned: str) -> None:
    assert hash_of(model, **changes) == pinned


@pytest.mark.parametrize("task_type", TYPES.values(), ids=lambda task_type: task_type.name)
def test_a_new_optional_field_changes_no_hash(task_type: Any) -> None:  # noqa: ANN401 - a class made on the spot
    class Newer(task_type.params):
        mood: str | None = None
        seed: int = 3

    newer, body = replace(task_type, params=Newer), dict(task_type.example)
    today = task_type.body_hash(task_type.params.model_validate(body), {})

    def hash_of_newer(**more: Any) -> str:  # noqa: ANN401 - any JSON
        return newer.body_hash(Newer.model_validate(body | more), {})

    assert hash_of_newer() == hash_of_newer(mood=None, seed=3) == today
    assert hash_of_newer(mood="calm") != today


@pytest.mark.parametrize("model", BODIES)
def test_spellings_of_one_request_are_one_request(model: type[BaseModel]) -> None:
    plain = hash_of(model)
    assert hash_of(model, style="", provider=None) == plain
    assert hash_of(model, task_id="task-0002") == plain  # the task is what a key counts within
    assert hash_of(model, style="oak") != plain


def test_both_spellings_of_a_draft_and_of_one_view_are_one_request() -> None:
    assert hash_of(RefineModel, tripo_draft_task_id=..., draft_model_task_id="draft-1") == hash_of(RefineModel)
    assert hash_of(RefineModel, tripo_draft_task_id="draft-2") != hash_of(RefineModel)
    assert hash_of(ImageToModel, input_image_asset_urls=..., input_image_asset_url=URL) == hash_of(ImageToModel)
    assert hash_of(TextToImage, n=2.0) == hash_of(TextToImage, n=2)
    assert hash_of(TextToImage, n=1) == hash_of(TextToImage)


def test_operations_with_the_same_fields_are_two_requests() -> None:
    assert hash_of(TextToImage) != hash_of(TextToModel)


def test_links_to_one_object_are_one_input() -> None:
    assert hash_of(ImageToImage, input_image_asset_url=SIGNED) == hash_of(ImageToImage)
    assert hash_of(ImageToModel, input_image_asset_urls=[URL, SIGNED]) == hash_of(
        ImageToModel, input_image_asset_urls=[SIGNED, URL]
    )
    assert hash_of(ImageToModel, input_image_asset_urls=[URL, URL]) != hash_of(ImageToModel)
    task_type, params = parsed(ImageToImage)
    other = task_type.body_hash(params, {URL: StorageRef("b", "other.png")})
    assert other != hash_of(ImageToImage)
    assert task_type.body_hash(params, {}) not in (other, hash_of(ImageToImage))


def test_a_type_that_forgets_an_input_is_refused() -> None:
    """Its links would not be part of the hash."""
    image_to_image = TYPES[ImageToImage]
    with pytest.raises(ValueError, match="disagree about input_image_asset_url"):
        replace(image_to_image, inputs=())
    with pytest.raises(ValueError, match="disagree about input_image_asset_url"):
        replace(TYPES[TextToImage], inputs=image_to_image.inputs)
