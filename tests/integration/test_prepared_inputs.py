"""Workers prepare a job's inputs: of exactly what was accepted, without the provider's slot, each user's apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from app.ai_clients.base import BeforeFirstByte, ImageRequest, Reply, Request
from app.ai_clients.errors import Advice, Refused
from app.db.pool import Database
from app.db.workers import WorkerIdentity
from app.domain.jobs import ClaimedJob, Failed, Settlement
from app.domain.operations import Operation
from app.domain.params import ObjectRef
from app.errors import ErrorCode
from app.queue import slots
from app.services.preparation import MOST_PREPARING, come_back_seconds
from app.storage.base import ObjectInfo
from app.storage.memory import MemoryStorage

from tests import kernel
from tests.fake_providers import FakeImages
from tests.integration.factories import accept, image_plan, make_user, make_worker
from tests.integration.workshop import PATIENCE, Workshop, open_workshop, workshop

__all__ = ["workshop"]


@dataclass
class Gated(MemoryStorage):
    """Pictures with such a name are on their way until they are let go."""

    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    under_way: int = 0
    most: int = 0

    async def download(self, bucket: str, key: str, target: Path, *, max_bytes: int) -> ObjectInfo:
        if not key.startswith("gated"):
            return await super().download(bucket, key, target, max_bytes=max_bytes)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.let_go.wait()
            return await super().download(bucket, key, target, max_bytes=max_bytes)
        finally:
            self.under_way -= 1


class CountedImages(FakeImages):
    """Knows how many calls were open at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._open = 0

    async def send(self, request: Request, *, reply: Path, before_first_byte: BeforeFirstByte) -> Reply:
        self._open += 1
        self.most = max(self.most, self._open)
        try:
            await asyncio.sleep(0)
            return await super().send(request, reply=reply, before_first_byte=before_first_byte)
        finally:
            self._open -= 1


@pytest.fixture
async def narrow(db: Database, database: str, tmp_path: Path) -> AsyncGenerator[Workshop]:
    """A provider with one slot, and a storage with a gate."""
    async with open_workshop(db, database, tmp_path, images=CountedImages(), storage=Gated, openai_slots=1) as shop:
        yield shop


def gate(shop: Workshop) -> Gated:
    return cast("Gated", shop.storage)


def prompts(shop: Workshop) -> list[str]:
    return [request.prompt for request in shop.images.ledger.paid if isinstance(request, ImageRequest)]


async def until_under_way(shop: Workshop, number: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while gate(shop).under_way < number:
            await asyncio.sleep(0.01)


# --- what was checked is what is used ----------------------------------------------------------------------------


@pytest.mark.parametrize("operation", [Operation.IMAGE_TO_IMAGE, Operation.IMAGE_TO_MODEL, Operation.SKETCH_TO_MODEL])
async def test_a_picture_exchanged_after_accept_fails_the_job_unpaid(workshop: Workshop, operation: Operation) -> None:
    checked = await workshop.put_picture()
    await workshop.put_picture(colour="red")
    await workshop.ask(operation, "task-exchanged-1", pictures=[checked])
    status = await workshop.finished("task-exchanged-1")
    assert status.jobs[0]["error_code"] == ErrorCode.INPUT_CHANGED.code
    assert workshop.images.ledger.posts == workshop.models.ledger.posts == 0
    assert await workshop.calls() == []


async def test_the_picture_that_was_checked_is_used(workshop: Workshop) -> None:
    await workshop.ask(Operation.IMAGE_TO_IMAGE, "task-the-same-1", pictures=[await workshop.put_picture()])
    status = await workshop.finished("task-the-same-1")
    assert status.jobs[0]["status"] == "completed"


@pytest.mark.parametrize(
    ("checked", "found", "same"),
    [
        (('"a"', 5), ('"a"', 5), True),
        (('"a"', 5), ('W/"a"', 5), True),
        (('"a"', 5), ('"b"', 5), False),
        (('"a"', 5), ('"a"', 6), False),
        (('"a"', 5), (None, 5), True),
        ((None, 5), ('"a"', 6), False),
        ((None, None), ('"a"', 6), True),
    ],
)
def test_which_objects_are_the_same(
    checked: tuple[str | None, int | None], found: tuple[str | None, int], *, same: bool
) -> None:
    assert ObjectRef("bucket", "key", *checked).is_version(*found) is same


# --- no slot is held meanwhile -----------------------------------------------------------------------------------


async def test_the_only_slot_is_anothers_while_a_picture_is_prepared(narrow: Workshop) -> None:
    await narrow.ask(
        Operation.IMAGE_TO_IMAGE, "task-slow-picture", prompt="slow", pictures=[await narrow.put_picture("gated.png")]
    )
    await until_under_way(narrow, 1)
    owner, narrow.user = narrow.user, await make_user(narrow.db)
    await narrow.ask(Operation.TEXT_TO_IMAGE, "task-other-user-1", prompt="other")
    await narrow.finished("task-other-user-1")
    gate(narrow).let_go.set()
    narrow.user = owner
    assert (await narrow.finished("task-slow-picture")).jobs[0]["status"] == "completed"
    assert [prompt.split()[0].strip(".,") for prompt in prompts(narrow)] == ["other", "slow"]


async def test_slots_are_never_exceeded_by_jobs_that_gave_theirs_back(narrow: Workshop) -> None:
    picture = await narrow.put_picture("gated.png")
    for number in range(MOST_PREPARING):
        await narrow.ask(Operation.IMAGE_TO_IMAGE, f"task-many-{number:04}", pictures=[picture])
    await until_under_way(narrow, 2)
    gate(narrow).let_go.set()
    for number in range(MOST_PREPARING):
        assert (await narrow.finished(f"task-many-{number:04}")).jobs[0]["status"] == "completed"
    assert cast("CountedImages", narrow.images).most == 1
    assert len(prompts(narrow)) == MOST_PREPARING


async def test_a_flood_of_pictures_is_prepared_a_few_at_a_time_and_delays_nobody(narrow: Workshop) -> None:
    picture = await narrow.put_picture("gated.png")
    for number in range(40):
        await narrow.ask(Operation.IMAGE_TO_IMAGE, f"task-flood-{number:04}", pictures=[picture])
    await until_under_way(narrow, 2)
    narrow.user = await make_user(narrow.db)
    theirs = await narrow.put_picture("free.png")
    for number in range(3):
        await narrow.ask(Operation.IMAGE_TO_IMAGE, f"task-newcomer-{number}", pictures=[theirs])
        assert (await narrow.finished(f"task-newcomer-{number}")).jobs[0]["status"] == "completed"
    assert gate(narrow).most == 2
    assert await narrow.db.fetchval("select count(*) from makeit3d.jobs where status = 'running'") <= MOST_PREPARING + 1
    assert await narrow.db.fetchval("select max(failures) from makeit3d.jobs") == 0
    assert len(prompts(narrow)) == 3


def test_who_is_sent_away_again_stays_away_longer() -> None:
    assert 1 <= come_back_seconds(0) <= 3
    assert 3 <= come_back_seconds(2) <= 9
    assert 5 <= come_back_seconds(1000) <= 15


async def test_a_canceled_job_gives_up_its_place_in_the_line(narrow: Workshop) -> None:
    await narrow.ask(Operation.IMAGE_TO_IMAGE, "task-stopped-1", pictures=[await narrow.put_picture("gated.png")])
    await until_under_way(narrow, 1)
    async with asyncio.timeout(PATIENCE):
        await narrow.workers[0].engine.stop()  # within the grace: it is handed back, not waited for
    assert await narrow.db.fetchval("select status from makeit3d.jobs") == "queued"
    assert gate(narrow).under_way == 0


async def test_a_breaker_that_opens_meanwhile_keeps_who_is_prepared_and_who_is_in_line(narrow: Workshop) -> None:
    picture = await narrow.put_picture("gated.png")
    for number in range(3):
        await narrow.ask(Operation.IMAGE_TO_IMAGE, f"task-breaker-{number}", pictures=[picture])
    await until_under_way(narrow, 2)
    narrow.images.ledger.refuse_next(Refused(ErrorCode.PROVIDER_KEY_REJECTED, "no", advice=Advice.CONFIGURATION))
    gate(narrow).let_go.set()
    async with asyncio.timeout(PATIENCE):
        while await narrow.db.fetchval("select count(*) from makeit3d.jobs where status = 'running' or attempt = 0"):
            await asyncio.sleep(0.02)
    assert narrow.images.ledger.posts == 1, "a provider that takes nothing is asked once"
    assert await narrow.db.fetchval("select count(*) from makeit3d.jobs where status = 'queued' and failures = 0") == 3


# --- the line, step by step --------------------------------------------------------------------------------------


async def claimed(db: Database, worker: WorkerIdentity) -> list[ClaimedJob]:
    return list((await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=10)).jobs)


async def test_who_wants_a_slot_again_goes_before_all_that_are_queued(db: Database) -> None:
    worker = await make_worker(db)
    await db.execute("update makeit3d.pools set slots = 1 where name = 'openai'")
    ann, bob, cat = [await make_user(db) for _ in range(3)]
    await accept(db, image_plan(ann, "task-line-ann"))
    (anns,) = await claimed(db, worker)
    assert await slots.lend(db, anns.claim)
    await accept(db, image_plan(bob, "task-line-bob"))
    (bobs,) = await claimed(db, worker)
    assert await slots.take(db, anns.claim, "openai") is False
    await accept(db, image_plan(cat, "task-line-cat"))
    await kernel.finish(db, [Settlement(bobs, Failed(ErrorCode.PROVIDER_CONTENT_REFUSED, "no"))])
    assert await claimed(db, worker) == []
    assert await slots.take(db, anns.claim, "openai") is True
    assert await slots.take(db, anns.claim, "openai") is True, "who has it keeps it"
    assert await claimed(db, worker) == []
    await kernel.finish(db, [Settlement(anns, Failed(ErrorCode.PROVIDER_CONTENT_REFUSED, "no"))])
    assert [job.user_id for job in await claimed(db, worker)] == [cat]


async def test_the_line_has_the_order_of_claims(db: Database) -> None:
    worker = await make_worker(db)
    await db.execute("update makeit3d.pools set slots = 2 where name = 'openai'")
    ann, bob = await make_user(db), await make_user(db)
    for number in range(2):
        await accept(db, image_plan(ann, f"task-line-ann-{number}"))
    first, second = await claimed(db, worker)
    for job in (first, second):
        await slots.lend(db, job.claim)
    for number in range(2):
        await accept(db, image_plan(bob, f"task-line-bob-{number}"))
    other, last = await claimed(db, worker)
    assert await slots.take(db, second.claim, "openai") is False
    assert await slots.take(db, first.claim, "openai") is False
    await kernel.finish(db, [Settlement(other, Failed(ErrorCode.PROVIDER_CONTENT_REFUSED, "no"))])
    assert await slots.take(db, second.claim, "openai") is False, "the first of the line is next"
    assert await slots.take(db, first.claim, "openai") is True
    await kernel.finish(db, [Settlement(last, Failed(ErrorCode.PROVIDER_CONTENT_REFUSED, "no"))])
    assert await slots.take(db, second.claim, "openai") is True


async def test_only_the_probe_takes_a_slot_while_the_breaker_is_not_closed(db: Database) -> None:
    worker = await make_worker(db)
    for number in range(2):
        await accept(db, image_plan(await make_user(db), f"task-probing-{number}"))
    (early, probe) = await claimed(db, worker)
    await db.execute(
        "update makeit3d.providers set state = 'open', probe_at = now(), opened_at = now(), tripped_at = now(),"
        " error_code = 'provider_unavailable' where name = 'openai'"
    )
    for job in (early, probe):
        await slots.lend(db, job.claim)
    await db.execute(
        "update makeit3d.providers set state = 'half_open', probe_job = $1, probe_attempt = $2 where name = 'openai'",
        probe.claim.job_id,
        probe.claim.attempt,
    )
    with pytest.raises(slots.BreakerOpen):
        await slots.take(db, early.claim, "openai")
    assert await slots.take(db, probe.claim, "openai") is True


async def test_a_lost_claim_takes_no_slot(db: Database) -> None:
    worker = await make_worker(db)
    await accept(db, image_plan(await make_user(db), "task-lost-claim"))
    (job,) = await claimed(db, worker)
    await slots.lend(db, job.claim)
    await db.execute("update makeit3d.jobs set attempt = attempt + 1")
    assert await slots.take(db, job.claim, "openai") is None
    assert not await slots.lend(db, job.claim)
    assert await db.fetchval("select slot from makeit3d.jobs") == "lent"
