"""``makeit3d generate`` against a running stack."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.gateway import REPOSITORY, Gateway, sample

pytestmark = pytest.mark.generate


def generate(gateway: Gateway, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY),
        "MAKEIT3D_HOME": str(gateway.home),
        "MAKEIT3D_URL": gateway.api_url,
        "COLUMNS": "200",
    }
    return subprocess.run(
        [sys.executable, "-m", "app.cli", "generate", *arguments, "--out", str(out)],
        cwd=gateway.home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_a_local_picture_becomes_a_local_model(gateway: Gateway, tmp_path: Path) -> None:
    done = generate(gateway, tmp_path, "image-to-model", "-i", str(sample("coffee.png")), "-o", "face_limit=4000")
    assert done.returncode == 0, done.stdout + done.stderr
    (model,) = tmp_path.glob("*/model.glb")
    assert model.read_bytes()[:4] == b"glTF"
    assert str(model) in done.stdout


def test_a_refusal_names_the_field(gateway: Gateway, tmp_path: Path) -> None:
    done = generate(gateway, tmp_path, "text-to-image", "-p", "a fox", "-n", "11")
    assert done.returncode == 1
    assert "validation_error" in done.stdout
    assert "n:" in done.stdout


def test_a_file_that_is_no_picture_is_refused(gateway: Gateway, tmp_path: Path) -> None:
    text = tmp_path / "notes.png"
    text.write_text("not a picture", encoding="utf-8")
    done = generate(gateway, tmp_path, "image-to-model", "-i", str(text))
    assert done.returncode == 1
    assert "input_not_image" in done.stdout
