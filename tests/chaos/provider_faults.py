"""Workers with the real clients against the sandbox's providers, and tables of what goes wrong there."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from app.ai_clients.registry import build_registry
from app.config import Settings
from app.container import WorkerContainer, user_limits
from app.db import pools as pool_rows
from app.db import tasks
from app.db.pool import Database
from app.db.tasks import StatusRows
from app.db.workers import WorkerIdentity
from app.domain.operations import Operation
from app.domain.params import ObjectRef
from app.storage.memory import MemoryStorage
from app.task_types.planner import Planner

from tests import kernel
from tests.e2e.gateway import ADMIN
from tests.integration.factories import make_user, planned, settings_for
from tests.integration.workshop import BUCKET, INPUTS, RoomBells
from tests.sandbox_process import SandboxProcess

BARE = {"texture": False, "pbr": False, "face_limit": 500}
PATIENCE = 270.0  # seconds for a table of faults; a limit for a hung test, not a measure

_UNFINISHED = """
select j.status, j.waiting_for, j.run_after - now() as due, j.error_code, j.attempt, j.params ->> 'prompt' as prompt,
  (select jsonb_agg(c.state) from makeit3d.provider_calls c where c.job_id = j.id) as calls,
  (select v.state from makeit3d.providers v where v.name = j.provider) as breaker
from makeit3d.jobs j where j.task_id = any($1) and j.status in ('queued', 'running')
"""


@dataclass(frozen=True, slots=True)
class Case:
    """One fault, and what becomes of the one task that it strikes."""

    where: str
    kind: str
    code: str | None = None  # of the failed job; None: completed
    paid: int = 1  # creates that the provider accepted for the task
    images: tuple[str, ...] = ("complete",)  # what becomes of each row that was asked for
    once_more: str | None = None  # what strikes the work that is accepted then
    details: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def words(self) -> str:
        """Names the case in its prompt, so that the fault strikes nobody else."""
        marks = "".join(f" {name} {value}" for name, value in sorted(self.details.items()) if name != "body")
        return f"a boat for {self.where} {self.kind}{marks}."

    @property
    def operation(self) -> Operation:
        return Operation.TEXT_TO_IMAGE if self.where == "openai" else Operation.TEXT_TO_MODEL


@dataclass
class Bench:
    """Two workers, the sandbox behind them, and one user."""

    db: Database
    settings: Settings
    sandbox: SandboxProcess
    storage: MemoryStorage
    workers: list[WorkerContainer]
    user: Any

    async def arm(self, where: str, kind: str, **details: object) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            body = {"where": where, "kind": kind, **details}
            (await http.post(f"{self.sandbox.url}/admin/faults", json=body, headers=ADMIN)).raise_for_status()

    async def accepted(self) -> Counter[str]:
        """Creates that each provider accepted, by its own ledger."""
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            rows = (await http.get(f"{self.sandbox.url}/admin/ledger", headers=ADMIN)).json()
        return Counter(row["provider"] for row in rows)

    async def ask(self, operation: Operation, prompt: str, *, n: int = 1, picture: ObjectRef | None = None) -> str:
        """Accept what a client would ask for; the task id. Models are bare, which is the least work."""
        task_id = str(uuid4())
        planner = Planner(build_registry().build(self.settings), self.settings, kernel.REGISTRY.job_types.permits)
        fields: dict[str, Any] = {"n": n} if operation is Operation.TEXT_TO_IMAGE else BARE
        pictures = () if picture is None else (picture,)
        request = planned(planner, self.settings, operation, task_id, self.user, pictures, prompt=prompt, **fields)
        await kernel.accept(self.db, request, user_limits(self.settings))
        for worker in self.workers:
            worker.engine.wake()
        return task_id

    async def status(self, task_id: str) -> StatusRows:
        status = await tasks.status(self.db, task_id, self.user)
        assert status is not None
        return status

    async def finished(self, task_ids: Sequence[str]) -> list[StatusRows]:
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while unfinished := await self.db.fetch(_UNFINISHED, list(task_ids)):
            assert asyncio.get_running_loop().time() < deadline, [dict(row) for row in unfinished]
            await asyncio.sleep(0.05)
        return [await self.status(task_id) for task_id in task_ids]

    async def run(self, cases: Sequence[Case]) -> dict[str, tuple[str | None, tuple[str, ...]]]:
        """All at the same time; by case, the code of its job and what became of its rows."""
        assert len({case.words for case in cases}) == len(cases)
        for case in cases:
            await self.arm(case.where, case.kind, words=case.words, **case.details)
            if case.once_more is not None:
                where = "openai" if case.where == "openai" else "tripo.task"
                await self.arm(where, case.once_more, words=case.words)
        ids = [await self.ask(case.operation, case.words, n=len(case.images)) for case in cases]
        return {
            case.words: (
                status.jobs[-1]["error_code"] if status.jobs[-1]["status"] == "failed" else None,
                tuple(asset["status"] for asset in status.assets),
            )
            for case, status in zip(cases, await self.finished(ids), strict=True)
        }

    async def struck_by(
        self, where: str, kind: str, *, picture: ObjectRef | None = None, count: int = 1, **details: object
    ) -> tuple[str | None, int]:
        """One task alone, struck: its code (None: completed), and how many creates were accepted for it."""
        before = (await self.accepted()).total()
        await self.arm(where, kind, count=count, **details)
        operation = Operation.TEXT_TO_MODEL if picture is None else Operation.IMAGE_TO_MODEL
        [status] = await self.finished([await self.ask(operation, f"a boat for {where} {kind}", picture=picture)])
        await self.settles()
        await self.disarm()
        job, asset = status.jobs[-1], status.assets[-1]
        assert (job["status"], asset["status"]) in (("completed", "complete"), ("failed", "failed"))
        assert job["error_code"] == asset["error_code"]
        return (job["error_code"] if job["status"] == "failed" else None, (await self.accepted()).total() - before)

    async def disarm(self) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            (await http.delete(f"{self.sandbox.url}/admin/faults", headers=ADMIN)).raise_for_status()

    async def settles(self) -> None:
        """Every call is closed, so that no slot is held; files and rows are the same."""
        async with asyncio.timeout(PATIENCE):
            while await self.db.fetchval("select exists (select from makeit3d.provider_calls where is_open)"):
                await asyncio.sleep(0.05)
        stored = {row["key"] for row in await self.db.fetch("select key from makeit3d.files where state = 'stored'")}
        async with asyncio.timeout(PATIENCE):
            while {item.key async for item in self.storage.list(BUCKET, prefix="")} != stored:
                await asyncio.sleep(0.05)


def expected(cases: Sequence[Case]) -> dict[str, tuple[str | None, tuple[str, ...]]]:
    """What ``Bench.run`` should find."""
    return {
        case.words: (case.code, case.images if case.code is None else ("failed",) * len(case.images)) for case in cases
    }


@asynccontextmanager
async def open_bench(
    db: Database,
    dsn: str,
    home: Path,
    sandbox: SandboxProcess,
    **changes: Any,  # noqa: ANN401 - settings by field name
) -> AsyncGenerator[Bench]:
    quick: dict[str, Any] = {
        "openai_api_key": sandbox.settings.openai_api_key,
        "openai_base_url": f"{sandbox.url}/openai/v1",
        "openai_timeout_seconds": 90.0,
        "tripo_api_key": sandbox.settings.tripo_api_key,
        "tripo_base_url": f"{sandbox.url}/tripo/v3",
        "tripo_download_hosts": ("127.0.0.1",),
        "tripo_timeout_seconds": 30.0,
        "tripo_poll_seconds": 0.2,
        "tripo_h_slots": 100,
        "openai_slots": 100,
        "sweep_seconds": 0.2,
        "worker_ttl_seconds": 30.0,
        "retry_base_seconds": 0.05,
        "retry_cap_seconds": 0.2,
        "reconcile_first_seconds": 0.3,
        "reconcile_window_seconds": 6.0,
        "breaker_failures": 1000,
        "breaker_cool_down_seconds": 0.1,
        "breaker_longest_cool_down_seconds": 0.2,
        "shutdown_grace_seconds": 20,
    }
    settings = settings_for(dsn, home, **(quick | changes))
    await pool_rows.ensure(
        db, {name: (pool.provider, pool.slots) for name, pool in build_registry().pools(settings).items()}
    )
    objects = home / "objects"
    objects.mkdir()
    storage = MemoryStorage(objects, {BUCKET: True, INPUTS: False})
    bench = Bench(db, settings, sandbox, storage, [], await make_user(db))
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        knobs = {"work_seconds": 0.2, "pools": {"h": 200}}
        (await http.post(f"{sandbox.url}/admin/knobs", json=knobs, headers=ADMIN)).raise_for_status()
    try:
        for _ in range(2):
            identity = WorkerIdentity(uuid4(), "test", "localhost", 1, ("priority", "normal"), 100)
            worker = await WorkerContainer.open(settings, identity, RoomBells(bench.workers), storage=storage)
            await worker.start()
            bench.workers.append(worker)
        yield bench
    finally:
        for worker in bench.workers:
            await worker.aclose()
