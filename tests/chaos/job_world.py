"""A database with users, workers that live, died, or do not know that they lost their claim, and every step that they,
a client or the sweep may take. After each the audit finds nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID, uuid4

from app.calls import journal, orphans
from app.calls.journal import Call
from app.config import Settings
from app.db import assets, files, workers
from app.db.pool import Database
from app.db.workers import WorkerIdentity
from app.domain.jobs import (
    AssetSlot,
    ClaimedJob,
    Completed,
    Deferred,
    Failed,
    HandedBack,
    Outcome,
    Retry,
    Settlement,
    StoredFile,
)
from app.domain.statuses import CallState
from app.domain.storage_keys import output_key
from app.errors import ErrorCode
from app.queue.accept import DuplicateRequest, TaskOwnedByAnother
from app.queue.plans import RequestPlan
from app.services.audit import audit_rows

from tests import kernel
from tests.integration.factories import call_intent, image_plan, make_user, model_plan, sketch_plan

T = TypeVar("T")

MAX_CRASHES = 3
TTL_SECONDS = 15.0
_PLANS = {"image": image_plan, "model": model_plan, "sketch": sketch_plan}

_PASS = """
with w as (
  update makeit3d.workers set seen_at = seen_at - make_interval(secs => $1)
), c as (
  update makeit3d.provider_calls set created_at = created_at - make_interval(secs => $1),
    deadline = deadline - make_interval(secs => $1)
)
update makeit3d.jobs set created_at = created_at - make_interval(secs => $1),
  started_at = started_at - make_interval(secs => $1), run_after = run_after - make_interval(secs => $1),
  deadline = deadline - make_interval(secs => $1), finished_at = finished_at - make_interval(secs => $1)
"""

_FINAL = """
select 'job' as what, id, status from makeit3d.jobs where status in ('completed', 'failed', 'canceled')
union all select 'call', id, state from makeit3d.provider_calls where state in ('refused', 'settled')
union all select 'asset', id, status from concept_images where status in ('complete', 'failed', 'canceled')
union all select 'asset', id, status from models where status in ('complete', 'failed', 'canceled')
"""


@dataclass
class Held:
    """A job as the worker that claimed it sees it. The claim may be lost; the worker does not know."""

    job: ClaimedJob
    slots: Sequence[AssetSlot]
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # a run does one thing at a time


@dataclass
class World:
    """A database with users and workers, and what workers remember."""

    db: Database
    settings: Settings
    users: list[UUID]
    alive: list[WorkerIdentity] = field(default_factory=list[WorkerIdentity])
    dead: list[WorkerIdentity] = field(default_factory=list[WorkerIdentity])
    held: list[Held] = field(default_factory=list[Held])
    sent: list[UUID] = field(default_factory=list[UUID])  # calls whose answer somebody may still record
    plans: list[RequestPlan] = field(default_factory=list[RequestPlan])
    final: dict[tuple[str, UUID], str] = field(default_factory=dict[tuple[str, UUID], str])

    # --- clients --------------------------------------------------------------------------------------------

    async def accept(self, kind: str, user: int, task: int) -> None:
        plan = _PLANS[kind](self.users[user], f"task-machine-{task}", key=f"key:{uuid4()}")
        with suppress(TaskOwnedByAnother):
            await kernel.accept(self.db, plan)
            self.plans.append(plan)

    async def accept_again(self, plan: RequestPlan) -> None:
        again = _PLANS["image"](plan.user_id, plan.task_id, key=plan.idempotency_key)
        try:
            await kernel.accept(self.db, again)
        except DuplicateRequest:
            return
        raise AssertionError("a repeat was accepted as a second request")

    async def cancel(self, plan: RequestPlan) -> None:
        await kernel.cancel(self.db, plan.task_id, plan.user_id)

    # --- workers --------------------------------------------------------------------------------------------

    async def start_worker(self) -> None:
        worker = WorkerIdentity(uuid4(), "test", "here", 1, ("priority", "normal"), 50)
        await workers.renew(self.db, worker, stopping=False)
        self.alive.append(worker)

    async def claim(self, worker: WorkerIdentity, limit: int) -> None:
        result = await kernel.claim(self.db, worker_id=worker.id, lanes=worker.lanes, limit=limit)
        slots = await assets.slots_of(self.db, [job.claim.job_id for job in result.jobs])
        self.held += [Held(job, slots[job.claim.job_id]) for job in result.jobs]

    async def forget(self, held: Held) -> None:
        """The claim's answer never reached its worker, which gives the job back when it compares."""
        self.held.remove(held)
        claim = held.job.claim
        if any(worker.id == claim.worker_id for worker in self.alive):
            await kernel.requeue(self.db, claim.worker_id, [(claim.job_id, claim.attempt)])

    async def in_turn(self, held: Held, step: Awaitable[None]) -> None:
        async with held.turn:
            await step

    async def send(self, held: Held) -> None:
        """The one paid POST, where the journal has nothing that stands for it."""
        latest = await self._latest(held)
        if latest is None or latest.state is CallState.REFUSED or _failed(latest):
            job = held.job
            intent = call_intent(job.provider or "", job.pool, _kind(job))
            stale = await self._is_stale(held)
            if await journal.intend(self.db, job.claim, intent):
                assert not stale, "a stale claim began a paid call"
                self.sent.append(intent.id)

    async def work(self, held: Held) -> None:
        """A whole run in which nothing goes wrong, unless the claim is lost."""
        before = len(self.sent)
        await self.send(held)
        for call_id in self.sent[before:]:
            await self.answer(call_id, "succeeded")
        await self.finish(held, "completed")

    async def finish(self, held: Held, outcome: str) -> None:
        """Settle the run as its handler could."""
        ends = await self._outcome(held, outcome)
        if ends is not None:
            stale = await self._is_stale(held)
            settled = await kernel.finish(self.db, [Settlement(held.job, ends)])
            assert not (stale and settled.jobs), "a stale claim settled a job"
            if held in self.held:
                self.held.remove(held)

    async def _outcome(self, held: Held, outcome: str) -> Outcome | None:
        latest = await self._latest(held)
        is_paid = latest is not None and latest.state is CallState.SETTLED and latest.error_code is None
        match outcome:
            case "completed":
                stored = await self._stored(held) if is_paid else None
                return None if stored is None else Completed(stored, provider_task_id="test")
            case "failed":
                return Failed(ErrorCode.PROVIDER_TASK_FAILED, "it failed")
            case "retry":
                start_over = latest is not None and _failed(latest)
                return Retry(ErrorCode.PROVIDER_UNAVAILABLE, "again", 5.0, start_over=start_over)
            case "deferred":
                return Deferred(None, None, 5.0)
            case _:
                return HandedBack()

    async def _stored(self, held: Held) -> tuple[StoredFile, ...] | None:
        stored: list[StoredFile] = []
        for slot in held.slots:
            is_image = held.job.type == "generate_images"
            content_type, extension = ("image/png", "png") if is_image else ("model/gltf-binary", "glb")
            key = output_key(self.db.tables.kinds[slot.kind], held.job.task_id, slot.number, extension)
            announced = await files.announce(
                self.db,
                held.job.claim,
                file_id=uuid4(),
                bucket="test",
                key=key,
                kind=slot.kind,
                content_type=content_type,
                content_key="secret",
            )
            if announced is None:
                return None  # the claim is lost
            url = f"http://127.0.0.1/{key}"
            stored.append(StoredFile(announced[0], slot.id, slot.kind, "test", key, url, content_type, 1, "digest"))
        return tuple(stored)

    async def _is_stale(self, held: Held) -> bool:
        """Whether the claim is lost for good: attempts only grow, and what ended stays so."""
        claim = held.job.claim
        row = await self.db.fetchrow("select attempt, status from makeit3d.jobs where id = $1", claim.job_id)
        return row is None or row["attempt"] != claim.attempt or row["status"] in ("completed", "failed", "canceled")

    async def _latest(self, held: Held) -> Call | None:
        calls = await journal.calls_of(self.db, held.job.claim.job_id)
        return calls[-1] if calls else None

    # --- answers of providers, early, late, or never ----------------------------------------------------------

    async def answer(self, call_id: UUID, word: str) -> None:
        match word:
            case "submitted":
                await journal.submitted(self.db, call_id, last=True, provider_task_id=str(call_id))
            case "refused":
                code = ErrorCode.PROVIDER_BUSY.code
                await journal.refused(self.db, call_id, error_code=code, provider_code=None, http_status=429)
            case "unknown":
                code = ErrorCode.PROVIDER_OUTCOME_UNKNOWN.code
                await journal.unknown(self.db, call_id, error_code=code, http_status=None)
            case "succeeded":
                await journal.settled(self.db, call_id, cost_micros=30_000, result={"files": []})
            case _:
                code = ErrorCode.PROVIDER_TASK_FAILED.code
                await journal.settled(self.db, call_id, cost_micros=0, error_code=code)

    # --- time and housekeeping --------------------------------------------------------------------------------

    async def die(self, worker: WorkerIdentity) -> None:
        self.alive.remove(worker)
        self.dead.append(worker)

    async def wait(self, seconds: float) -> None:
        """Time passes for everything that is stored; who lives says so."""
        await self.db.execute(_PASS, seconds)
        for worker in self.alive:
            await workers.renew(self.db, worker, stopping=False)

    async def sweep(self) -> None:
        await kernel.sweep(self.db, ttl_seconds=TTL_SECONDS, max_crashes=MAX_CRASHES)
        await orphans.settle(self.db, looked_for=[])
        for row in await files.abandoned_uploads(self.db, ended_seconds=60.0, unowned_seconds=3600.0, limit=100):
            await files.mark_removed(self.db, row.id)

    async def rest(self) -> None:
        """Whatever happened before: with one live worker and answering providers, everything ends."""
        for worker in list(self.alive):
            await self.die(worker)
        await self.start_worker()
        for _ in range(30):
            await self.wait(200)
            await self.sweep()
            for call_id in self.sent:
                await self.answer(call_id, "succeeded")
            await self.claim(self.alive[0], 50)
            for held in list(self.held):
                await self.send(held)
                for call_id in self.sent:
                    await self.answer(call_id, "succeeded")
                await self.finish(held, "completed")
                if held in self.held:
                    self.held.remove(held)
            if not await self.db.fetchval("select count(*) from makeit3d.jobs where status in ('queued', 'running')"):
                break
        await self.wait(200)
        await self.sweep()
        left = await self.db.fetch(
            "select id, status, waiting_for, resume from makeit3d.jobs where finished_at is null"
        )
        assert not left, [dict(row) for row in left]
        calls = await self.db.fetch("select state from makeit3d.provider_calls where settled_at is null")
        assert not calls, [dict(row) for row in calls]

    # --- what is always true ----------------------------------------------------------------------------------

    async def check(self, *, at_rest: bool = False) -> None:
        found = (await audit_rows(self.db, self.settings)).differences
        lasting = [item for item in found if at_rest or not item.invariant.passing]
        assert not lasting, "\n".join(f"{d.invariant.name}: {dict(d.ids)} {d.found}" for d in lasting)
        now = {(row["what"], row["id"]): row["status"] for row in await self.db.fetch(_FINAL)}
        changed = {key: (word, now.get(key)) for key, word in self.final.items() if now.get(key) != word}
        assert not changed, f"final states changed: {changed}"
        self.final = now


def _failed(call: Call) -> bool:
    return call.state is CallState.SETTLED and call.error_code is not None


def _kind(job: ClaimedJob) -> str:
    return "text-to-image" if job.type == "generate_images" else "text-to-model"


async def new_world(db: Database, settings: Settings) -> World:
    """An empty world in a database that may have seen others: two users, and one worker."""
    await db.execute(
        "truncate makeit3d.tasks, makeit3d.provider_calls, makeit3d.files, makeit3d.events, makeit3d.workers cascade"
    )
    await db.execute("delete from auth.users")
    await db.execute("update makeit3d.pools set slots = 2")
    world = World(db, settings, [await make_user(db) for _ in range(2)])
    await world.start_worker()
    return world
