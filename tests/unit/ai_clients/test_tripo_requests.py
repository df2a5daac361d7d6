"""The bodies of Tripo creates: only what differs, and a fingerprint that nobody else has."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from app.ai_clients.base import Capability, FileInput, ModelRequest
from app.ai_clients.errors import Refused
from app.ai_clients.tripo.requests import Versions, build, check, estimate, pictures_of, pool_of
from app.domain.operations import ModelOptions, View

VERSIONS = Versions("v3.1-20260211", "v3.5-20260815")
FILE = FileInput(Path("a.png"), "image/png", "a.png")
FRONT: dict[View, FileInput] = {"front": FILE}
NEVER = {"quad", "smart_low_poly", "generate_parts", "geometry_quality", "export_orientation"}


def body_of(
    spec: ModelRequest, tokens: Mapping[str, str] | None = None, seed: int = 1
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    check(spec, VERSIONS)
    call = build(spec, tokens or {}, VERSIONS, random.Random(seed))
    assert not NEVER & set(call.body)
    assert None not in call.body.values()
    assert json.loads(json.dumps(call.fingerprint)) == call.fingerprint
    return call.body, call.fingerprint


def without_seed(body: Mapping[str, Any]) -> dict[str, Any]:
    seeds = [value for name, value in body.items() if name.endswith("_seed")]
    assert all(-(2**31) <= value < 2**31 for value in seeds)
    return {name: value for name, value in body.items() if not name.endswith("_seed")}


def test_text_to_model_with_defaults() -> None:
    body, fingerprint = body_of(ModelRequest(Capability.TEXT_TO_MODEL, prompt="a boat"))
    assert without_seed(body) == {"prompt": "a boat", "model": "v3.1-20260211"}
    assert fingerprint == {"kind": "text-to-model", "tokens": [], "model_seed": body["model_seed"]}


def test_image_to_model_with_all_options() -> None:
    options = ModelOptions(
        texture=True,
        pbr=False,
        model_version="v3.0-20250812",
        face_limit=30_000,
        auto_size=True,
        texture_quality="detailed",
        orientation="align_image",
    )
    body, fingerprint = body_of(
        ModelRequest(Capability.IMAGE_TO_MODEL, views=FRONT, options=options), {"front": "file_a"}
    )
    assert without_seed(body) == {
        "input": "file_a",
        "model": "v3.0-20250812",
        "pbr": False,
        "face_limit": 30_000,
        "auto_size": True,
        "texture_quality": "detailed",
        "orientation": "align_image",
    }
    assert fingerprint["tokens"] == ["file_a"]


def test_what_equals_a_default_is_not_sent() -> None:
    options = ModelOptions(texture=True, pbr=True, auto_size=False, texture_quality="standard", orientation="default")
    body, _ = body_of(ModelRequest(Capability.IMAGE_TO_MODEL, views=FRONT, options=options), {"front": "file_a"})
    assert without_seed(body) == {"input": "file_a", "model": "v3.1-20260211"}


@pytest.mark.parametrize("pbr", [None, True, False])
def test_no_texture_means_no_pbr_either(pbr: bool | None) -> None:
    options = ModelOptions(texture=False, pbr=pbr, texture_quality="extreme")
    body, _ = body_of(ModelRequest(Capability.TEXT_TO_MODEL, prompt="x", options=options))
    assert without_seed(body) == {"prompt": "x", "model": "v3.1-20260211", "texture": False, "pbr": False}


def test_orientation_is_for_pictures_only() -> None:
    options = ModelOptions(orientation="align_image")
    body, _ = body_of(ModelRequest(Capability.TEXT_TO_MODEL, prompt="x", options=options))
    assert "orientation" not in body


def test_low_poly_models_get_nothing_they_do_not_know() -> None:
    options = ModelOptions(model_version="P1-20260311", face_limit=500)
    body, _ = body_of(ModelRequest(Capability.IMAGE_TO_MODEL, views=FRONT, options=options), {"front": "file_a"})
    assert without_seed(body) == {"input": "file_a", "model": "P1-20260311", "face_limit": 500}


def test_fast_texture_names_the_version_that_knows_it() -> None:
    options = ModelOptions(texture_quality="fast")
    body, _ = body_of(ModelRequest(Capability.TEXT_TO_MODEL, prompt="x", options=options))
    assert body["texture_version"] == "v3.5-20260815"


def test_views_are_in_order_and_gaps_are_left_out() -> None:
    views: dict[View, FileInput] = {"back": FILE, "front": FILE, "left": FILE}
    tokens = {"back": "file_c", "front": "file_a", "left": "file_b"}
    body, fingerprint = body_of(ModelRequest(Capability.MULTIVIEW_TO_MODEL, views=views), tokens)
    assert body["inputs"] == [{"front": "file_a"}, {"left": "file_b"}, {"back": "file_c"}]
    assert "input" not in body
    assert fingerprint["tokens"] == ["file_a", "file_b", "file_c"]


def test_a_sketch_is_rendered() -> None:
    spec = ModelRequest(Capability.SKETCH_TO_IMAGE, prompt="render", views=FRONT)
    body, fingerprint = body_of(spec, {"front": "file_s"})
    assert body == {"input": "file_s", "sketch_to_render": True, "prompt": "render", "output_format": "png"}
    assert fingerprint == {"kind": "sketch-to-image", "tokens": ["file_s"]}


def test_a_chained_task_needs_no_upload() -> None:
    spec = ModelRequest(Capability.IMAGE_TO_MODEL, source_task_id="0f1e", views=FRONT)
    assert pictures_of(spec) == {}
    body, _ = body_of(spec)
    assert body["input"] == "0f1e"


def test_an_import() -> None:
    body, _ = body_of(ModelRequest(Capability.IMPORT_MODEL, model_file=FILE), {"model": "file_m"})
    assert body == {"input": "file_m"}


def test_a_refinement_is_a_new_texture() -> None:
    spec = ModelRequest(Capability.TEXTURE_MODEL, prompt="weathered oak", source_task_id="0f1e")
    body, fingerprint = body_of(spec)
    assert without_seed(body) == {
        "input": "0f1e",
        "model": "v3.5-20260815",
        "texture": True,
        "pbr": True,
        "texture_quality": "detailed",
        "texture_prompt": {"text": "weathered oak"},
    }
    assert fingerprint["texture_seed"] == body["texture_seed"]


def test_a_refinement_by_picture_and_with_options() -> None:
    options = ModelOptions(pbr=False, texture_quality="extreme", model_version="v3.1-20260211")
    spec = ModelRequest(Capability.TEXTURE_MODEL, source_task_id="0f1e", views=FRONT, options=options)
    assert pictures_of(spec) == FRONT
    body, _ = body_of(spec, {"front": "file_r"})
    assert without_seed(body) == {
        "input": "0f1e",
        "model": "v3.5-20260815",
        "texture": True,
        "pbr": False,
        "texture_quality": "extreme",
        "texture_prompt": {"image": "file_r"},
    }


def test_every_attempt_has_its_own_seed() -> None:
    chance = random.SystemRandom()
    spec = ModelRequest(Capability.TEXT_TO_MODEL, prompt="x")
    seeds = {build(spec, {}, VERSIONS, chance).body["model_seed"] for _ in range(50)}
    assert len(seeds) == 50


@pytest.mark.parametrize(
    "spec",
    [
        ModelRequest(Capability.TEXT_TO_MODEL),
        ModelRequest(Capability.TEXT_TO_MODEL, prompt="x" * 1025),
        ModelRequest(Capability.SKETCH_TO_IMAGE, views=FRONT),
        ModelRequest(Capability.SKETCH_TO_IMAGE, prompt="x" * 1801, views=FRONT),
        ModelRequest(Capability.IMAGE_TO_MODEL),
        ModelRequest(Capability.MULTIVIEW_TO_MODEL, views=FRONT),
        ModelRequest(Capability.MULTIVIEW_TO_MODEL, views={"left": FILE, "back": FILE}),
        ModelRequest(Capability.IMPORT_MODEL),
        ModelRequest(Capability.TEXTURE_MODEL, prompt="oak"),
        ModelRequest(
            Capability.TEXT_TO_MODEL, prompt="x", options=ModelOptions(model_version="P1-20260311", face_limit=20_001)
        ),
        ModelRequest(Capability.TEXT_TO_MODEL, prompt="x", options=ModelOptions(face_limit=1_500_001)),
        ModelRequest(Capability.TEXT_TO_MODEL, prompt="x", options=ModelOptions(face_limit=0)),
    ],
)
def test_what_tripo_would_refuse_is_refused_here(spec: ModelRequest) -> None:
    with pytest.raises(Refused):
        check(spec, VERSIONS)


@pytest.mark.parametrize(
    ("kind", "version", "pool"),
    [
        (Capability.TEXT_TO_MODEL, None, "tripo_h"),
        (Capability.MULTIVIEW_TO_MODEL, "v2.5-20250123", "tripo_h"),
        (Capability.IMAGE_TO_MODEL, "P1-20260311", "tripo_p"),
        (Capability.IMAGE_TO_MODEL, "P2-20260801", "tripo_p"),
        (Capability.SKETCH_TO_IMAGE, None, "tripo_image"),
        (Capability.TEXTURE_MODEL, None, "tripo_texture"),
        (Capability.IMPORT_MODEL, None, "tripo_texture"),
    ],
)
def test_pools(kind: Capability, version: str | None, pool: str) -> None:
    assert pool_of(ModelRequest(kind, options=ModelOptions(model_version=version)), VERSIONS) == pool


@pytest.mark.parametrize(
    ("kind", "options", "credits_"),
    [
        (Capability.TEXT_TO_MODEL, ModelOptions(), 20),
        (Capability.TEXT_TO_MODEL, ModelOptions(texture=False), 10),
        (Capability.IMAGE_TO_MODEL, ModelOptions(), 30),
        (Capability.MULTIVIEW_TO_MODEL, ModelOptions(texture_quality="detailed"), 40),
        (Capability.IMAGE_TO_MODEL, ModelOptions(model_version="P1-20260311", texture_quality="extreme"), 70),
        (Capability.TEXT_TO_MODEL, ModelOptions(model_version="P2-20260801", texture=False), 100),
        (Capability.SKETCH_TO_IMAGE, ModelOptions(), 5),
        (Capability.IMPORT_MODEL, ModelOptions(), 0),
        (Capability.TEXTURE_MODEL, ModelOptions(), 20),
        (Capability.TEXTURE_MODEL, ModelOptions(texture_quality="standard"), 10),
    ],
)
def test_estimates(kind: Capability, options: ModelOptions, credits_: int) -> None:
    seen = estimate(ModelRequest(kind, options=options), VERSIONS)
    assert (seen.micros, seen.price_version) == (credits_ * 10_000, "2026-11-21")
