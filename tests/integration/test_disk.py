"""A worker whose disk is full or gone: nothing is paid that could not be kept, and the log says where to look."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from app.db.tasks import StatusRows
from app.domain.operations import Operation
from structlog.testing import capture_logs

from tests.integration.workshop import PATIENCE, Workshop, workshop

__all__ = ["workshop"]


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def waits(status: StatusRows) -> bool:
    (job,) = status.jobs
    return job["status"] == "queued" and job["error_code"] == "service_unavailable"


async def seen_waiting(workshop: Workshop, task: str) -> list[str]:
    """What the log says of a job that waits for this machine."""
    with capture_logs() as logs:
        await workshop.ask(Operation.TEXT_TO_IMAGE, task)
        await workshop.until(task, waits)
        async with asyncio.timeout(PATIENCE):  # the line follows the end
            while not any(line["event"] == "run_ended" for line in logs):
                await asyncio.sleep(0.01)
    (ended,) = {line["code"] for line in logs if line["event"] == "run_ended"}
    assert ended == "service_unavailable"
    return [line["reason"] for line in logs if line["event"] == "spool_unusable"]


async def test_on_a_full_disk_no_picture_is_paid(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    usage: Callable[[Path], Usage] = lambda _: Usage(1 << 40, 1 << 40, 1 << 20)  # noqa: E731 - a stand-in of one line
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", usage)
        assert "No space left on device" in await seen_waiting(workshop, "task-disk-full")
        assert workshop.images.ledger.posts == 0
    status = await workshop.finished("task-disk-full")
    assert status.jobs[0]["status"] == "completed"
    assert workshop.images.ledger.paid_calls == 1


async def test_a_spool_that_is_gone_is_named_in_the_log(workshop: Workshop) -> None:
    spool = workshop.settings.spool_directory
    away = spool.rename(spool.with_name("away"))
    assert "No such file or directory" in await seen_waiting(workshop, "task-disk-gone")
    assert workshop.images.ledger.posts == 0
    away.rename(spool)
    status = await workshop.finished("task-disk-gone")
    assert status.jobs[0]["status"] == "completed"
