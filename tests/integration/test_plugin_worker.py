"""A worker process with plugins, started from a module of the tests, runs their jobs to the end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncGenerator, Generator
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from app.config import Settings, child_environment
from app.db import pools as pool_rows
from app.db.pool import Database
from app.domain.jobs import JobPlan
from app.embedded.process import Child
from app.embedded.valkey import EmbeddedValkey
from app.queue.plans import RequestPlan
from app.services.audit import audit_rows
from app.services.doctor.examination import examine
from pydantic import SecretStr

from tests import kernel
from tests.e2e.gateway import REPOSITORY
from tests.integration.factories import image_plan, make_user, settings_with
from tests.unit.extension.pebble_checks import PebblesOfUsers
from tests.unit.extension.registry import VIDEOS, build_registry

PATIENCE = 60.0
REGISTRY = build_registry()


@pytest.fixture
def settings(database: str, valkey: EmbeddedValkey, tmp_path: Path) -> Settings:
    return settings_with(
        REGISTRY.providers,
        database,
        tmp_path,
        easel_api_key=SecretStr("easel-test"),
        redis_url=SecretStr(valkey.url()),
        sweep_seconds=0.5,
    )


@pytest.fixture
async def db(settings: Settings) -> AsyncGenerator[Database]:
    opened = await Database.open(settings, REGISTRY.asset_kinds, application_name="makeit3d plugin test")
    await opened.execute(VIDEOS.read_text(encoding="utf-8"))
    await pool_rows.ensure(
        opened, {name: (pool.provider, pool.slots) for name, pool in REGISTRY.providers.pools(settings).items()}
    )
    yield opened
    await opened.close()


@contextlib.contextmanager
def worker_with_plugins(settings: Settings, log: Path, *failpoint: str) -> Generator[Child]:
    """It is killed at the failpoint, where one is named."""
    child = Child(
        name="worker",
        command=[sys.executable, "-m", "tests.unit.extension.worker", *failpoint],
        log=log,
        environment=child_environment(settings),
        cwd=str(REPOSITORY),
    )
    child.launch()
    try:
        yield child
    finally:
        child.stop()


def pebbles(user: UUID, *keys: str) -> RequestPlan:
    plan = image_plan(user, "task-of-pebbles")
    job = JobPlan(uuid4(), 1, "polish_pebbles", None, "local", "normal", 50, {"pebbles": list(keys)}, permit="none")
    return replace(plan, jobs=[job], job_id=job.id, assets=[])


async def until_ended(db: Database) -> None:
    async with asyncio.timeout(PATIENCE):
        while await db.fetchval("select status from makeit3d.jobs") in ("queued", "running"):
            await asyncio.sleep(0.1)


async def item_events(db: Database) -> list[tuple[str, str]]:
    rows = await db.fetch("select payload from makeit3d.events where type = 'item_update' order by id")
    return [(row["payload"]["key"], row["payload"]["status"]) for row in rows]


async def test_a_local_job_runs_in_a_process_of_its_own(db: Database, settings: Settings, tmp_path: Path) -> None:
    user = await make_user(db)
    await kernel.accept(db, pebbles(user, "grey", "dull-1", "red"))
    with worker_with_plugins(settings, tmp_path / "worker.log"):
        await until_ended(db)
    row = await db.fetchrow("select status, progress, items_done, items_total, output, usage from makeit3d.jobs")
    assert row is not None
    assert dict(row) | {"output": row["output"]["polished"]} == {
        "status": "completed",
        "progress": 100,
        "items_done": 3,
        "items_total": 3,
        "output": 2,
        "usage": {"pebbles": 2},
    }
    assert await item_events(db) == [
        ("grey", "done"),
        ("dull-1", "skipped"),
        ("red", "done"),
    ]
    found = await audit_rows(db, settings, more=REGISTRY.audit_checks)
    assert found.differences == []
    assert "pebbles_end" in [invariant.name for invariant in found.checks]


@pytest.mark.parametrize(("point", "recorded"), [("before_record_items", 1), ("after_record_items", 2)])
async def test_after_a_kill_another_process_goes_on_with_the_items_that_are_left(
    db: Database, settings: Settings, tmp_path: Path, point: str, recorded: int
) -> None:
    settings = settings.model_copy(update={"worker_ttl_seconds": 2.0})
    keys = ["grey", "red", "dull-1", "black"]
    await kernel.accept(db, pebbles(await make_user(db), *keys))
    with worker_with_plugins(settings, tmp_path / "killed.log", point, "2") as killed:
        async with asyncio.timeout(PATIENCE):
            while killed.exit_code() is None:
                await asyncio.sleep(0.1)
    assert killed.exit_code() == -signal.SIGKILL
    assert [key for key, _ in await item_events(db)] == keys[:recorded]
    with worker_with_plugins(settings, tmp_path / "worker.log"):
        await until_ended(db)
    row = await db.fetchrow("select status, attempt, crashes, items_done, items_total, output from makeit3d.jobs")
    assert row is not None
    # the last run polished what was left: its own count says so
    left = len([key for key in keys[recorded:] if not key.startswith("dull")])
    assert tuple(row)[:5] == ("completed", 2, 1, 4, 4)
    assert row["output"]["polished"] == left
    assert [key for key, _ in await item_events(db)] == keys
    assert (await audit_rows(db, settings, more=REGISTRY.audit_checks)).differences == []


async def test_the_checks_of_a_plugin_find_what_they_look_for(db: Database, settings: Settings) -> None:
    user = await make_user(db)
    await kernel.accept(db, pebbles(user, "grey"))
    await db.execute("insert into makeit3d.job_items (job_id, key, position) select id, 'grey', 1 from makeit3d.jobs")
    (group,) = REGISTRY.doctor_checks
    seen = [item async for item in examine(REGISTRY.check_context(settings), [group], patience_seconds=PATIENCE)]
    assert [(finding.entry.code, finding.seen) for item in seen for finding in item.findings] == [
        ("pebbles_rough", "1 pebbles")
    ]
    await db.execute("update makeit3d.jobs set status = 'completed', attempt = 1, started_at = now()")
    found = await audit_rows(db, settings, more=REGISTRY.audit_checks)
    assert [item.ids["item"] for item in found.differences if item.invariant.name == "pebbles_end"] == ["grey"]


async def test_personal_data_has_a_seat(db: Database) -> None:
    user, other = await make_user(db), await make_user(db)
    await kernel.accept(db, pebbles(user, "grey"))
    await db.execute("insert into makeit3d.job_items (job_id, key, position) select id, 'grey', 1 from makeit3d.jobs")
    (seat,) = REGISTRY.personal_data
    assert isinstance(seat, PebblesOfUsers)
    async with db.transaction() as connection:
        assert await seat.export(connection, other) == {"pebbles": []}
        assert await seat.export(connection, user) == {"pebbles": ["grey"]}
        await seat.erase(connection, other)
        assert await seat.export(connection, user) == {"pebbles": ["grey"]}
        await seat.erase(connection, user)
        assert await seat.export(connection, user) == {"pebbles": []}
