"""A process that can not work says why in one line, and ends where only that helps."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from app.config import child_environment

from tests.e2e.gateway import REPOSITORY, wait_for
from tests.integration.factories import settings_for
from tests.servers import PostgresServer, free_port

pytestmark = pytest.mark.chaos


def environment(home: Path, changes: Mapping[str, str]) -> dict[str, str]:
    """Settings with which nobody answers anywhere."""
    settings = settings_for(f"postgresql://app@127.0.0.1:{free_port()}/postgres", home)
    return {**child_environment(settings), "PYTHONPATH": str(REPOSITORY), **changes}


def start(home: Path, command: str, changes: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", command],
        env=environment(home, changes),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "changes", "says"),
    [
        ("worker", {}, ("database_unreachable", "Refused", "DATABASE_URL")),
        ("api", {}, ("database_unreachable", "Refused", "DATABASE_URL")),
        ("migrate", {}, ("database_unreachable", "DATABASE_URL")),
        ("beat", {"REDIS_URL": "localhost:6379/hunter2"}, ("REDIS_URL", "redis://")),
        ("worker", {"MAKEIT3D_HOME": "/dev/null"}, ("spool_not_writable", "/dev/null", "MAKEIT3D_HOME")),
        ("beat", {"MAKEIT3D_HOME": "/dev/null"}, ("spool_not_writable", "/dev/null", "MAKEIT3D_HOME")),
        ("token", {"MAKEIT3D_ENVIRONMENT": "sandbox"}, ("ConnectError", "make run")),
    ],
)
def test_who_can_not_work_ends_with_one_line(
    tmp_path: Path, command: str, changes: dict[str, str], says: tuple[str, ...]
) -> None:
    done = start(tmp_path, command, changes)
    said = done.stderr + done.stdout
    assert done.returncode == 1, said
    assert said.count("\n") == 1, said
    assert [word for word in says if word not in said] == []
    assert "hunter2" not in said


def test_a_worker_of_an_empty_database_says_what_to_run(tmp_path: Path, postgres18: PostgresServer) -> None:
    with postgres18.fresh_database(template="template1") as dsn:
        done = start(tmp_path, "worker", {"DATABASE_URL": dsn})
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "not_migrated" in said
    assert "makeit3d migrate" in said
    assert "Traceback" not in said


def test_beat_says_at_once_that_its_broker_is_away(tmp_path: Path) -> None:
    """It goes on: the broker may come back."""
    log = tmp_path / "log"
    with log.open("wb") as sink:
        beat = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "beat"],
            env=environment(tmp_path, {}),
            cwd=tmp_path,
            stdout=sink,
            stderr=sink,
        )
    try:
        first = wait_for(lambda: next((line for line in log.read_text().splitlines(keepends=True)), None))
        assert "broker_unreachable" in first
        assert "REDIS_URL" in first
        assert beat.poll() is None
    finally:
        beat.kill()
        beat.wait()
