"""The README's walk-through works as written."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.gateway import REPOSITORY, Gateway

pytestmark = pytest.mark.generate


def walk_through() -> str:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    match = re.search(r"<!-- walk-through -->\n```sh\n(.*?)```", readme, re.DOTALL)
    assert match is not None
    return match[1]


def test_the_curl_walk_through_of_all_six_operations(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(REPOSITORY / ".venv")
    environment = {**gateway.environment, "API": gateway.api_url}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", walk_through()],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("model.glb") >= 1
    assert "refined_model.glb" in done.stdout
    assert "concepts/" in done.stdout
