"""Progress as it is told, at chosen moments of a task's work."""

from __future__ import annotations

import time
from decimal import Decimal
from pathlib import Path

import pytest
from app.sandbox.providers.knobs import Knobs
from app.sandbox.providers.links import Links, told_task
from app.sandbox.providers.tripo_tasks import Task


def progress(tmp_path: Path, share: float, fault: str | None = None, **knobs: str) -> object:
    now = time.time()
    task = Task(
        id="t",
        account="a",
        kind="text-to-model",
        pool="h",
        body={},
        fetched={},
        status="running",
        created_at=now,
        started_at=now - share * 1000,
        finished_at=None,
        work_seconds=1000,
        price=Decimal(10),
        consumed=Decimal(0),
        error_code=None,
        error_message=None,
        output={},
        fault=fault,
        fault_seconds=0,
    )
    links = Links(tmp_path / "key", "http://127.0.0.1")
    return told_task(task, Knobs.model_validate(knobs), links)["progress"]


@pytest.mark.parametrize(
    ("curve", "told"),
    [
        ("linear", [0, 24, 49, 74, 99, 99]),
        ("eased", [0, 43, 74, 92, 99, 99]),
        ("steps", [0, 20, 40, 60, 99, 99]),
    ],
)
def test_curves(tmp_path: Path, curve: str, told: list[int]) -> None:
    shares = (0, 0.25, 0.501, 0.7501, 1.0, 3.0)
    assert [progress(tmp_path, share, progress_curve=curve) for share in shares] == told


def test_progress_that_goes_back(tmp_path: Path) -> None:
    told = [progress(tmp_path, share, "progress_back") for share in (0.0, 0.45, 0.55, 0.85, 0.95)]
    assert told == [0, 40, 6, 42, 95]
