"""Between the intent of a paid call and its first byte: a send marker in the spool proves that nothing was sent."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from app.ai_clients.base import BeforeFirstByte, ImageRequest, Reply, Request
from app.calls import journal
from app.calls.journal import CallIntent
from app.calls.spool import Spool
from app.domain.operations import Operation
from app.errors import ErrorCode

from tests import kernel
from tests.fake_providers import FakeImages, unwatched
from tests.integration.workshop import PATIENCE, Workshop, workshop

__all__ = ["workshop"]


class Hesitant(FakeImages):
    """Stands at the door before its first POST until it is told to go."""

    def __init__(self) -> None:
        super().__init__()
        self.at_the_door = asyncio.Event()
        self.go = asyncio.Event()

    async def send(self, request: Request, *, reply: Path, before_first_byte: BeforeFirstByte) -> Reply:
        if not self.go.is_set():
            self.at_the_door.set()
            await self.go.wait()
        return await super().send(request, reply=reply, before_first_byte=before_first_byte)


class Clumsy(FakeImages):
    """Breaks once before anything has left."""

    stumbled = False

    async def send(self, request: Request, *, reply: Path, before_first_byte: BeforeFirstByte) -> Reply:
        if not self.stumbled:
            self.stumbled = True
            raise RuntimeError("a defect before the first byte")
        return await super().send(request, reply=reply, before_first_byte=before_first_byte)


def spool_of(workshop: Workshop) -> Spool:
    return Spool(workshop.settings.spool_directory, max_bytes=1)


async def intend_and_die(workshop: Workshop, task: str, *, deadline_seconds: float) -> UUID:
    """What is left of a worker that dies between the intent and the first byte of its call."""
    await workshop.workers.pop().aclose()
    await workshop.ask(Operation.TEXT_TO_IMAGE, task)
    claimed = (await kernel.claim(workshop.db, worker_id=uuid4(), lanes=("priority", "normal"), limit=1)).jobs[0]
    call = CallIntent(
        id=uuid4(),
        provider="openai",
        pool="openai",
        kind="text-to-image",
        request_hash="hash",
        fingerprint={},
        estimate_micros=40_000,
        price_version="fake",
        deadline_seconds=deadline_seconds,
    )
    spool_of(workshop).markers.place(call.id)
    assert await journal.intend(workshop.db, claimed.claim, call)
    return call.id


async def test_a_call_that_never_left_is_made_again_at_once(workshop: Workshop) -> None:
    await intend_and_die(workshop, "task-departure-1", deadline_seconds=3600)
    await workshop.start()
    status = await workshop.finished("task-departure-1")
    assert status.jobs[0]["status"] == "completed"
    assert await workshop.calls() == [("refused", "call_not_sent", 0), ("settled", None, 40_000)]
    assert workshop.images.ledger.posts == 1
    assert spool_of(workshop).markers.unsent() == []


async def test_the_proof_outlives_who_found_it(workshop: Workshop) -> None:
    call_id = await intend_and_die(workshop, "task-departure-5", deadline_seconds=3600)
    assert spool_of(workshop).markers.revoke(call_id)  # and died before the journal had it
    await workshop.start()
    status = await workshop.finished("task-departure-5")
    assert status.jobs[0]["status"] == "completed"
    assert workshop.images.ledger.posts == 1


async def test_a_reply_on_this_host_is_not_waited_for(workshop: Workshop) -> None:
    call_id = await intend_and_die(workshop, "task-departure-6", deadline_seconds=3600)
    await spool_of(workshop).markers.sent(call_id)
    await FakeImages().send(
        ImageRequest(prompt="a fox", n=1), reply=spool_of(workshop).reply(call_id), before_first_byte=unwatched
    )
    await workshop.start()
    status = await workshop.finished("task-departure-6")
    assert status.jobs[0]["status"] == "completed"
    assert workshop.images.ledger.posts == 0, "what was paid once is used"
    assert [state for state, _, _ in await workshop.calls()] == ["settled"]


async def test_a_reply_on_another_host_is_used_when_its_worker_is_back(workshop: Workshop) -> None:
    call_id = await intend_and_die(workshop, "task-departure-8", deadline_seconds=3600)
    await spool_of(workshop).markers.sent(call_id)
    await FakeImages().send(
        ImageRequest(prompt="a fox", n=1), reply=spool_of(workshop).reply(call_id), before_first_byte=unwatched
    )
    await workshop.start(home=workshop.settings.home / "another-host")
    status = await workshop.until("task-departure-8", lambda s: s.jobs[0]["waiting_for"] == "retry")
    assert status.jobs[0]["status"] == "queued"
    assert workshop.images.ledger.posts == 0
    await workshop.start()
    status = await workshop.finished("task-departure-8")
    assert status.jobs[0]["status"] == "completed"
    assert workshop.images.ledger.posts == 0, "what was paid once is used"
    assert [state for state, _, _ in await workshop.calls()] == ["settled"]
    assert spool_of(workshop).replied() == []


async def test_a_call_that_may_have_left_is_not(workshop: Workshop) -> None:
    call_id = await intend_and_die(workshop, "task-departure-2", deadline_seconds=1.5)
    await spool_of(workshop).markers.sent(call_id)
    await workshop.start()
    status = await workshop.finished("task-departure-2")
    assert status.jobs[0]["error_code"] == "provider_outcome_unknown"
    assert workshop.images.ledger.posts == 0


async def test_a_call_given_up_before_a_crash_is_not_paid_again(workshop: Workshop) -> None:
    call_id = await intend_and_die(workshop, "task-departure-7", deadline_seconds=3600)
    await spool_of(workshop).markers.sent(call_id)
    unknown = ErrorCode.PROVIDER_OUTCOME_UNKNOWN.code
    await journal.settled(workshop.db, call_id, cost_micros=40_000, is_estimate=True, error_code=unknown)
    await workshop.start()  # and the job was not ended yet
    status = await workshop.finished("task-departure-7")
    assert (status.jobs[0]["status"], status.jobs[0]["error_code"]) == ("failed", unknown)
    assert workshop.images.ledger.posts == 0
    assert await workshop.calls() == [("settled", unknown, 40_000)]


async def test_of_a_late_sender_and_its_successor_only_one_sends(workshop: Workshop) -> None:
    hesitant = workshop.images = Hesitant()
    await workshop.workers.pop().aclose()
    await workshop.start()
    task = await workshop.ask(Operation.TEXT_TO_IMAGE, "task-departure-3")
    async with asyncio.timeout(PATIENCE):
        await hesitant.at_the_door.wait()
    [call_id] = spool_of(workshop).markers.unsent()
    assert spool_of(workshop).markers.revoke(call_id)  # the successor's proof
    hesitant.go.set()
    status = await workshop.finished(task)
    assert status.jobs[0]["status"] == "completed"
    assert hesitant.ledger.posts == 1
    assert [state for state, _, _ in await workshop.calls()] == ["refused", "settled"]


async def test_a_defect_before_the_first_byte_is_no_doubt(workshop: Workshop) -> None:
    clumsy = workshop.images = Clumsy()
    await workshop.workers.pop().aclose()
    await workshop.start()
    status = await workshop.finished(await workshop.ask(Operation.TEXT_TO_IMAGE, "task-departure-4"))
    assert status.jobs[0]["status"] == "completed"
    assert clumsy.ledger.posts == 1
    assert (await workshop.calls())[0] == ("refused", "call_not_sent", 0)


async def test_a_slip_is_moved_or_taken_by_one_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=1)
    held, gone = uuid4(), uuid4()
    for call_id in (held, gone):
        spool.markers.place(call_id)
    assert sorted(spool.markers.unsent()) == sorted((held, gone))
    assert spool.markers.revoke(held)
    with pytest.raises(FileNotFoundError):
        await spool.markers.sent(held)
    await spool.markers.sent(gone)
    assert not spool.markers.revoke(gone)
    assert not spool.markers.revoke(uuid4()), "no marker proves nothing"
    assert spool.markers.revoke(held), "who held it back may have died before the journal had it"
    assert spool.markers.unsent() == [held]
    for call_id in (held, gone):
        spool.markers.remove(call_id)
    assert list(tmp_path.iterdir()) == []


def test_files_may_vanish_while_the_spool_is_opened(tmp_path: Path) -> None:
    (tmp_path / "work-of-another-process").symlink_to(tmp_path / "gone")  # listed, and not there when looked at
    old = tmp_path / "left-long-ago.reply"
    old.touch()
    os.utime(old, (0, 0))
    Spool(tmp_path, max_bytes=1).open()
    assert not old.exists()
