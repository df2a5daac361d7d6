"""Whoever waits for a task hears that its work began, not only that it ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
from app.db.events import CHANNEL
from app.db.pool import Database
from app.domain.operations import Operation

from tests.integration.workshop import open_workshop

TASK = "task-told-01"


async def test_a_claim_is_told_while_its_job_runs(db: Database, database: str, tmp_path: Path) -> None:
    heard = asyncio.Event()

    def hear(*args: object) -> None:
        if TASK in str(args[3]):
            heard.set()

    listener = await asyncpg.connect(database)
    try:
        await listener.add_listener(CHANNEL, hear)
        async with open_workshop(db, database, tmp_path, workers=1) as shop:
            shop.models.polls = 1_000_000  # nothing but the claim can be told
            await shop.ask(Operation.TEXT_TO_MODEL, TASK)
            async with asyncio.timeout(30):
                await heard.wait()
            assert await db.fetchval("select status from makeit3d.jobs where task_id = $1", TASK) == "running"
    finally:
        await listener.close()
