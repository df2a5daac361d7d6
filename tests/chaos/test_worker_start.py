"""A worker that can not work does not start: whoever watches it starts it again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from app.config import child_environment

from tests.e2e.gateway import REPOSITORY
from tests.integration.factories import settings_for
from tests.servers import free_port

pytestmark = pytest.mark.chaos


def test_a_worker_without_a_database_ends(tmp_path: Path) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    settings = settings_for(f"postgresql://app@{nobody}/postgres", tmp_path)
    worker = subprocess.run(
        [sys.executable, "-m", "app.cli", "worker"],
        env={**child_environment(settings), "PYTHONPATH": str(REPOSITORY)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert worker.returncode == 1
    assert "Refused" in worker.stderr + worker.stdout
