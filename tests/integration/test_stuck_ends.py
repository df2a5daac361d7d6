"""The end of a run that cannot be written is written later, once: nothing runs again, and nothing is paid again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from app.container import open_queue
from app.db import jobs
from app.db.pool import Database
from app.domain.jobs import Completed, Settlement
from app.domain.operations import Operation
from app.domain.statuses import JobStatus
from app.domain.user_limits import NO_LIMITS
from app.errors import ErrorCode
from app.queue.contracts import AcceptedJob, AcceptedRequest, Changed, Participants, Tx
from app.queue.maintenance import sweep
from app.queue.states import Transition
from app.queue.transitions import Queue
from app.services.audit import audit_rows
from app.services.notifier import Notifier
from app.services.publisher import Publisher
from app.services.settler import Settler, Written
from structlog.testing import capture_logs

from tests import kernel
from tests.integration.factories import image_plan, make_user, make_worker, settings_for
from tests.integration.http_gateway import DeafBells
from tests.integration.workshop import PATIENCE, Workshop, open_workshop

_BEATS = 5  # a claim that is strange at two of them is given back


class Books:
    """Cannot write any end that is among ``broken_for``, until it is mended."""

    name = "books"
    wants = frozenset(Transition)

    def __init__(self) -> None:
        self.broken_for = frozenset(JobStatus)
        self.refused_last: JobStatus | None = None
        self.refused = 0
        self.written: list[tuple[UUID, JobStatus, str | None]] = []

    async def accepted(self, tx: Tx, request: AcceptedRequest, jobs: Sequence[AcceptedJob]) -> None: ...

    async def ended(self, tx: Tx, jobs: Sequence[Changed]) -> None:  # noqa: ARG002
        if any(job.new in self.broken_for for job in jobs):
            self.refused += 1
            self.refused_last = jobs[-1].new
            raise ValueError("the books are closed")
        self.written += [(job.job_id, job.new, job.error_code) for job in jobs]


@pytest.fixture
def books() -> Books:
    return Books()


@pytest.fixture
async def shop(db: Database, database: str, tmp_path: Path, books: Books) -> AsyncGenerator[Workshop]:
    registry = replace(kernel.REGISTRY, participants=Participants([books]))
    async with open_workshop(db, database, tmp_path, registry=registry, worker_ttl_seconds=2.0) as opened:
        yield opened


async def until_stuck(shop: Workshop, books: Books, task_id: str) -> None:
    """A picture is paid and stored, and how its job ended cannot be written."""
    plan = shop.plan(Operation.TEXT_TO_IMAGE, task_id)
    await kernel.accept(shop.db, replace(plan, jobs=[replace(job, participants=("books",)) for job in plan.jobs]))
    for worker in shop.workers:
        worker.engine.wake()
    async with asyncio.timeout(PATIENCE):
        while books.refused < 3:  # with others, alone, and as a failure
            await asyncio.sleep(0.02)


async def some_beats(shop: Workshop) -> None:
    """So many times the worker compares what it runs with what the database says."""
    seen: set[object] = set()
    async with asyncio.timeout(PATIENCE):
        while len(seen) < _BEATS:
            seen.add(await shop.db.fetchval("select max(seen_at) from makeit3d.workers"))
            await asyncio.sleep(0.02)


async def until_told(logs: Sequence[Mapping[str, Any]], event: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while event not in {line["event"] for line in logs}:
            await asyncio.sleep(0.02)


async def until_refused_again(books: Books, times: int) -> None:
    reached = books.refused + times
    async with asyncio.timeout(PATIENCE):
        while books.refused < reached:
            await asyncio.sleep(0.02)


async def until_the_end_is_next(books: Books) -> None:
    """Not the failure in its place: that one was refused last."""
    async with asyncio.timeout(PATIENCE):
        while books.refused_last is not JobStatus.FAILED:
            await asyncio.sleep(0)


async def test_a_job_whose_end_cannot_be_written_keeps_its_lease_until_it_can(shop: Workshop, books: Books) -> None:
    await until_stuck(shop, books, "task-stuck-001")
    await some_beats(shop)
    await until_refused_again(books, 4)  # maintenance tries on
    job = await shop.db.fetchrow("select id, status, attempt, worker_id from makeit3d.jobs")
    assert job is not None
    assert (job["status"], job["attempt"]) == ("running", 1)
    assert job["worker_id"] == shop.workers[0].engine.identity.id
    assert books.written == []
    shown = await jobs.record(shop.db, job["id"], events=1)
    assert shown is not None
    assert shown.job["end_not_written"] == "completed"
    await until_the_end_is_next(books)
    with capture_logs() as logs:
        books.broken_for = frozenset()
        status = await shop.finished("task-stuck-001")
        await until_told(logs, "stuck_end_written")
    told = [line for line in logs if line["event"] == "stuck_end_written"]
    assert [(line["job_id"], line["status"]) for line in told] == [(str(job["id"]), "completed")]
    assert [(job["status"], job["error_code"]) for job in status.jobs] == [("completed", None)]
    # what was paid once is the user's
    assert [asset["status"] for asset in status.assets] == ["complete"]
    assert await shop.keys() == ["concepts/task-stuck-001/0.png"]
    assert books.written == [(job["id"], JobStatus.COMPLETED, None)]
    assert (shop.images.ledger.posts, shop.images.ledger.paid_calls) == (1, 1)
    assert await shop.db.fetchval("select attempt from makeit3d.jobs") == 1
    assert await shop.calls() == [("settled", None, 40_000)]


async def test_a_result_that_can_never_be_written_ends_as_a_failure(shop: Workshop, books: Books) -> None:
    await until_stuck(shop, books, "task-stuck-002")
    books.broken_for = frozenset({JobStatus.COMPLETED})
    status = await shop.finished("task-stuck-002")
    assert [(job["status"], job["error_code"]) for job in status.jobs] == [("failed", "internal_error")]
    assert [(job_id, new, code) for job_id, new, code in books.written] == [
        (status.job_id, JobStatus.FAILED, ErrorCode.INTERNAL_ERROR.code)
    ]
    assert shop.images.ledger.posts == 1


async def test_another_worker_ends_what_the_one_that_left_could_not(shop: Workshop, books: Books) -> None:
    await until_stuck(shop, books, "task-stuck-003")
    (first,) = shop.workers
    shop.workers.clear()
    await first.aclose()
    await shop.start()
    await some_beats(shop)
    assert [job["status"] for job in (await shop.status("task-stuck-003")).jobs] == ["running"]
    found = await audit_rows(shop.db, shop.settings)
    assert [(one.invariant.name, one.found) for one in found.differences] == [
        ("end_is_written", "it ended as completed, and nothing can be written")
    ]
    await until_the_end_is_next(books)
    books.broken_for = frozenset()
    status = await shop.finished("task-stuck-003")
    assert [job["status"] for job in status.jobs] == ["completed"]
    assert len(books.written) == 1
    assert shop.images.ledger.posts == 1


async def test_a_job_that_is_stuck_can_be_canceled(shop: Workshop, books: Books) -> None:
    await until_stuck(shop, books, "task-stuck-004")
    books.broken_for = frozenset({JobStatus.COMPLETED, JobStatus.FAILED})
    assert await open_queue(shop.db, shop.registry).cancel("task-stuck-004", shop.user) is not None
    await some_beats(shop)
    status = await shop.status("task-stuck-004")
    assert [job["status"] for job in status.jobs] == ["canceled"]
    assert books.written == [(status.job_id, JobStatus.CANCELED, "canceled")]


class Slow:
    """Takes the server longer than a statement may, for some jobs."""

    name = "slow"
    wants = frozenset(Transition)

    def __init__(self) -> None:
        self.jobs: set[UUID] = set()

    async def accepted(self, tx: Tx, request: AcceptedRequest, jobs: Sequence[AcceptedJob]) -> None: ...

    async def ended(self, tx: Tx, jobs: Sequence[Changed]) -> None:
        if any(job.job_id in self.jobs for job in jobs):
            await tx.connection.execute("select pg_sleep(60)")


async def test_an_end_that_takes_the_server_too_long_holds_up_no_other(
    db: Database, database: str, tmp_path: Path
) -> None:
    user, worker = await make_user(db), await make_worker(db)
    for task_id in ("task-slow-0001", "task-quick-001"):
        plan = image_plan(user, task_id)
        await kernel.accept(db, replace(plan, jobs=[replace(job, participants=("slow",)) for job in plan.jobs]))
    claimed = (await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=9)).jobs
    slow, quick = sorted(claimed, key=lambda job: job.task_id, reverse=True)
    impatient = await Database.open(
        settings_for(database, tmp_path, database_timeout_seconds=1.0),
        kernel.ASSET_KINDS,
        application_name="makeit3d test",
    )
    participant, notifier = Slow(), Notifier(db)
    participant.jobs = {slow.claim.job_id}
    queue = Queue(impatient, Participants([participant]))
    publisher = Publisher(queue, DeafBells(), notifier, NO_LIMITS)
    settler = Settler(queue, publisher, window_seconds=0.01)
    async with asyncio.timeout(2 * PATIENCE):
        ends = await asyncio.gather(*(settler.settle(Settlement(job, Completed())) for job in (slow, quick)))
    assert ends == [Written.STUCK, Written.DONE]
    statuses = "select status from makeit3d.jobs order by task_id desc"
    assert [row["status"] for row in await db.fetch(statuses)] == ["running", "completed"]
    # a round of maintenance does the rest of its work
    assert (swept := await sweep(queue, ttl_seconds=60, max_crashes=3)) is not None
    assert swept.unstuck == 0
    participant.jobs = set()
    await sweep(queue, ttl_seconds=60, max_crashes=3)
    assert [row["status"] for row in await db.fetch(statuses)] == ["completed", "completed"]
    await publisher.aclose()
    await notifier.aclose()
    await impatient.close()
