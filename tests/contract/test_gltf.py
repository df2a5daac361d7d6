"""Models of the sandbox against the Khronos validator (npm ``gltf-validator``)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from app.sandbox.media.models import build_model
from app.sandbox.media.retexture import retexture_model
from app.sandbox.providers.stock import stock_model
from PIL import Image

from tests.e2e.gateway import sample
from tests.node import installed

HERE = Path(__file__).parent / "gltf_validator"
pytestmark = pytest.mark.generate


@pytest.fixture(scope="module")
def node() -> list[str]:
    return installed(HERE)


@pytest.fixture(scope="module")
def model() -> bytes:
    photo = Image.open(sample("coffee.png"))
    return build_model([photo, None, None, None], face_limit=8000, texture=True, pbr=True, texture_size=512, seed=1)


def issues(node: list[str], glb: bytes, directory: Path) -> dict[str, Any]:
    path = directory / "model.glb"
    path.write_bytes(glb)
    done = subprocess.run(
        [*node, "validate.mjs", str(path)], cwd=HERE, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_a_model_is_valid(node: list[str], model: bytes, tmp_path: Path) -> None:
    report = issues(node, model, tmp_path)
    assert (report["numErrors"], report["numWarnings"]) == (0, 0), report["messages"]


def test_a_refined_model_is_valid(node: list[str], model: bytes, tmp_path: Path) -> None:
    refined = retexture_model(model, prompt="weathered oak", reference=None, texture_size=512, seed=2)
    report = issues(node, refined, tmp_path)
    assert (report["numErrors"], report["numWarnings"]) == (0, 0), report["messages"]


def test_a_bare_model_is_valid(node: list[str], tmp_path: Path) -> None:
    photo = Image.open(sample("horse.png"))
    bare = build_model([photo, None, None, None], face_limit=3000, texture=False, pbr=False, texture_size=512, seed=1)
    report = issues(node, bare, tmp_path)
    assert (report["numErrors"], report["numWarnings"]) == (0, 0), report["messages"]


def test_the_validator_notices_a_broken_model(node: list[str], model: bytes, tmp_path: Path) -> None:
    broken = model.replace(b'"version":"2.0"', b'"version":"9.0"').replace(b'"version": "2.0"', b'"version": "9.0"')
    assert broken != model
    assert issues(node, broken, tmp_path)["numErrors"] > 0


def test_the_stock_model_is_valid(node: list[str], tmp_path: Path) -> None:
    report = issues(node, stock_model(), tmp_path)
    assert (report["numErrors"], report["numWarnings"]) == (0, 0), report["messages"]
