"""Every run of a job can be found in the logs by the job's ids, also one whose process died or was stuck."""

from __future__ import annotations

import asyncio
from pathlib import Path

from app.db.pool import Database
from app.domain.operations import Operation
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from tests import kernel
from tests.integration.factories import make_worker
from tests.integration.workshop import PATIENCE, Workshop, open_workshop

TASK = "task-followed"
LAST = ("run_ended", "job_dead_lettered", "job_overdue")


async def lines(shop: Workshop) -> list[str]:
    """What the log says of the task until it is over."""
    with capture_logs([merge_contextvars]) as logs:
        await shop.start()
        status = await shop.finished(TASK)
        async with asyncio.timeout(PATIENCE):  # the line follows the end
            while not any(line["event"] in LAST for line in logs):
                await asyncio.sleep(0.01)
        await shop.workers[0].aclose()
        shop.workers.clear()
    ours = [line for line in logs if line.get("task_id") == TASK]
    assert {line["job_id"] for line in ours} == {str(status.job_id)}
    assert {line["request_id"] for line in ours} == {str(status.request_id)}
    assert all("trace_id" in line for line in ours)
    return [line["event"] for line in ours]


async def left_running(shop: Workshop) -> None:
    """A run that a process began which does nothing more."""
    await shop.ask(Operation.TEXT_TO_IMAGE, TASK)
    worker = await make_worker(shop.db)
    assert (await kernel.claim(shop.db, worker_id=worker.id, lanes=worker.lanes, limit=1)).jobs


async def test_a_run_whose_process_died(db: Database, database: str, tmp_path: Path) -> None:
    async with open_workshop(db, database, tmp_path, workers=0) as shop:
        await left_running(shop)
        await db.execute("delete from makeit3d.workers")
        await db.execute("update makeit3d.jobs set started_at = started_at - interval '1 minute'")
        events = await lines(shop)
    assert [event for event in events if event != "provider_call"] == ["job_rescued", "run_began", "run_ended"]


async def test_the_last_run_of_a_job_that_crashes(db: Database, database: str, tmp_path: Path) -> None:
    async with open_workshop(db, database, tmp_path, workers=0, max_crashes=1) as shop:
        await left_running(shop)
        await db.execute("delete from makeit3d.workers")
        await db.execute("update makeit3d.jobs set started_at = started_at - interval '1 minute'")
        assert await lines(shop) == ["job_dead_lettered"]


async def test_a_run_whose_process_is_stuck(db: Database, database: str, tmp_path: Path) -> None:
    async with open_workshop(db, database, tmp_path, workers=0) as shop:
        await left_running(shop)
        await db.execute("update makeit3d.jobs set deadline = now() - interval '1 hour'")
        assert await lines(shop) == ["job_overdue"]
