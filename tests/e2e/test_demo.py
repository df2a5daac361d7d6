"""``makeit3d demo --once`` from outside, twice in a row, and two stacks that would share a home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.gateway import QUICK, REPOSITORY, Gateway
from tests.servers import free_port, server_home

pytestmark = pytest.mark.generate


def demo(home: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("BFF_", "SANDBOX_"))},
        **QUICK,
        "MAKEIT3D_HOME": str(home),
        "BFF_API_PORT": str(free_port()),
        "SANDBOX_PORT": str(free_port()),
        "COLUMNS": "200",
        **changes,
    }
    return subprocess.run(
        [sys.executable, "-m", "app.cli", "demo", "--once", *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.timeout(600)  # two demos, each within its own limit
def test_the_demo_ends_with_files_twice_in_a_row() -> None:
    with server_home("demo") as home:
        for number in (1, 2):
            done = demo(home)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "sandbox" in done.stdout
            models = list((home / "results").glob("*/model.glb"))
            assert len(models) == number
            for model in models:
                assert str(model) in done.stdout or number == 2
                assert model.read_bytes()[:4] == b"glTF"
                assert {path.name for path in model.parent.glob("*.png")} == {"0.png", "1.png"}


def test_a_second_stack_of_the_same_home_is_refused(gateway: Gateway) -> None:
    refused = demo(gateway.home)
    assert refused.returncode == 1
    assert str(gateway.process.pid) in refused.stdout
    assert "MAKEIT3D_HOME" in refused.stdout
    assert gateway.process.poll() is None


def test_a_port_in_use_is_named(gateway: Gateway) -> None:
    with server_home("ports") as home:
        refused = demo(home, BFF_API_PORT=gateway.environment["BFF_API_PORT"])
        assert refused.returncode == 1
        assert "BFF_API_PORT" in refused.stdout


def test_a_photo_that_is_none_is_refused(tmp_path: Path) -> None:
    missing = demo(tmp_path / "home", "--photo", str(tmp_path / "no.png"))
    assert missing.returncode != 0


def test_the_stack_is_made_of_real_processes(gateway: Gateway) -> None:
    lines = "\n".join(gateway.children().values())
    for word in (
        "bin/postgres",
        "valkey-server",
        "app.sandbox",
        "cli api",
        "--lane normal",
        "--lane priority",
        "cli beat",
    ):
        assert word in lines


def test_the_doctor_finds_a_running_stack_healthy(gateway: Gateway) -> None:
    environment = {"PATH": os.environ["PATH"], "MAKEIT3D_HOME": str(gateway.home), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "doctor"],
        cwd=gateway.home,
        env={**environment, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "doctor: 0 errors, 0 warnings" in done.stdout
    assert done.stdout.count("✓") == 10  # groups of checks
