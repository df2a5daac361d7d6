"""A participant that keeps books, and a queue that has it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID

import pytest
from app.ai_clients.registry import Providers
from app.config import Settings
from app.db.pool import Database
from app.domain.jobs import ClaimedJob, Outcome, Settlement
from app.domain.statuses import JobStatus
from app.domain.user_limits import NO_LIMITS, UserLimits
from app.errors import ErrorCode
from app.queue.contracts import AcceptedJob, AcceptedRequest, Changed, Participants, Refused, Tx
from app.queue.plans import RequestPlan
from app.queue.states import Transition
from app.queue.transitions import Queue
from app.services.notifier import Notifier
from app.services.publisher import Publisher
from app.services.retries import Retries
from app.task_types.follow_ups import FollowUpPlans
from app.task_types.planner import Planner
from app.task_types.registry import TaskTypes

from tests.fake_providers import FakeImages, FakeModels
from tests.integration.factories import make_user, make_worker
from tests.integration.http_gateway import DeafBells
from tests.unit.extension.registry import build_registry

REGISTRY = build_registry()

TYPES = ("generate_images", "generate_model", "polish_pebbles")

LEDGER = """
create table ledger (job_id uuid primary key, accepted_at timestamptz, ended_at timestamptz, by text, old text,
  new text, times integer not null default 0)
"""


class Ledger:
    """Writes down what it is told, each time."""

    name = "ledger"
    wants = frozenset(Transition)

    def __init__(self) -> None:
        self.refuses = False
        self.fails_on: set[UUID] = set()

    async def accepted(self, tx: Tx, request: AcceptedRequest, jobs: Sequence[AcceptedJob]) -> None:  # noqa: ARG002
        if self.refuses:
            raise Refused(ErrorCode.USER_BUDGET_EXCEEDED, "Not enough.", extra={"missing": 5})
        await tx.connection.execute(
            "insert into ledger (job_id, accepted_at) select id, now() from unnest($1::uuid[]) as id",
            [job.job_id for job in jobs],
        )

    async def ended(self, tx: Tx, jobs: Sequence[Changed]) -> None:
        if any(job.job_id in self.fails_on and job.new is JobStatus.COMPLETED for job in jobs):
            raise ValueError("the ledger cannot")
        await tx.connection.execute(
            "update ledger l set ended_at = now(), by = e.by, old = e.old, new = e.new, times = times + 1"
            " from unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) as e(id, by, old, new) where l.job_id = e.id",
            [job.job_id for job in jobs],
            [job.by.value for job in jobs],
            [None if job.old is None else job.old.value for job in jobs],
            [job.new.value for job in jobs],
        )


class Harness:
    def __init__(self, db: Database, ledger: Ledger, queue: Queue, user: UUID) -> None:
        self.db = db
        self.ledger = ledger
        self.queue = queue
        self.user = user

    async def accept(self, plan: RequestPlan) -> RequestPlan:
        plan = replace(plan, jobs=[replace(job, participants=("ledger",)) for job in plan.jobs])
        await self.queue.accept(plan)
        return plan

    async def claim(self, *, limit: int = 100) -> tuple[ClaimedJob, ...]:
        worker = await make_worker(self.db)
        return (await self.queue.claim(worker_id=worker.id, lanes=worker.lanes, limit=limit, types=TYPES)).jobs

    async def accept_and_claim(self, plan: RequestPlan) -> ClaimedJob:
        await self.accept(plan)
        (job,) = await self.claim()
        return job

    async def finish(self, job: ClaimedJob, outcome: Outcome) -> bool:
        return job.claim.job_id in (await self.queue.finish([Settlement(job, outcome)])).jobs

    async def lose_workers(self) -> None:
        await self.db.execute("delete from makeit3d.workers")
        await self.db.execute("update makeit3d.jobs set started_at = started_at - interval '1 hour'")

    async def assert_books_agree(self) -> None:
        """Jobs that ended are in the ledger once, with how they ended; no other job is."""
        wrong = await self.db.fetch(
            "select j.id, j.status, l.new, l.times from makeit3d.jobs j left join ledger l on l.job_id = j.id"
            " where (l.times, l.new) is distinct from (case when j.status in ('completed', 'failed', 'canceled')"
            "   then (1, j.status) else (0, null::text) end)"
        )
        assert [dict(row) for row in wrong] == []

    async def changes(self) -> set[tuple[str, str, str]]:
        rows = await self.db.fetch("select old, new, by from ledger where ended_at is not null")
        return {(row["old"], row["new"], row["by"]) for row in rows}

    async def status(self, job_id: UUID) -> str:
        return await self.db.fetchval("select status from makeit3d.jobs where id = $1", job_id)


@pytest.fixture
async def harness(db: Database, settings: Settings) -> Harness:
    await db.execute(LEDGER)
    ledger = Ledger()
    return Harness(db, ledger, open_queue(db, ledger, settings), await make_user(db))


def open_queue(
    db: Database,
    ledger: Ledger,
    settings: Settings,
    *,
    limits: UserLimits = NO_LIMITS,
    task_types: TaskTypes | None = None,
) -> Queue:
    planner = Planner(Providers([FakeImages(), FakeModels()]), settings, REGISTRY.job_types.permits)
    follow_ups = FollowUpPlans(task_types or REGISTRY.task_types, planner)
    return Queue(db, Participants([ledger]), limits=limits, follow_ups=follow_ups)


@asynccontextmanager
async def retries(h: Harness) -> AsyncGenerator[Retries]:
    """What an operator has to repeat failed requests."""
    notifier = Notifier(h.db)
    publisher = Publisher(h.queue, DeafBells(), notifier, NO_LIMITS)
    yield Retries(h.queue, publisher)
    await publisher.aclose()
    await notifier.aclose()
