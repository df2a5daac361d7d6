"""A worker that only seemed dead goes on after its job was taken from it: what it paid for is neither lost nor waited
for."""

from __future__ import annotations

import asyncio
from pathlib import Path

from app.ai_clients.base import BeforeFirstByte, PreparedCall, Request, Result
from app.domain.operations import Operation

from tests.fake_providers import FakeImages, FakeModels
from tests.integration.workshop import PATIENCE, Workshop, workshop

__all__ = ["workshop"]

_TAKE_AWAY = (
    "update makeit3d.jobs set status = 'queued', worker_id = null, resume = true, crashes = 1, waiting_for = 'retry',"
)


class SlowDecoder(FakeImages):
    """The first reply is decoded when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.decoding, self.go = asyncio.Event(), asyncio.Event()

    async def decode(self, reply: Path, request: Request, *, directory: Path) -> Result:
        self.decoding.set()
        await self.go.wait()
        return await super().decode(reply, request, directory=directory)


class TwoDecoders(FakeImages):
    """Each decodes its copy of the reply when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.decoding: list[asyncio.Event] = []

    async def decode(self, reply: Path, request: Request, *, directory: Path) -> Result:
        go = asyncio.Event()
        self.decoding.append(go)
        await go.wait()
        return await super().decode(reply, request, directory=directory)


class SlowAnswer(FakeModels):
    """Takes a task and answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.accepted, self.go = asyncio.Event(), asyncio.Event()

    async def send(self, call: PreparedCall, *, before_first_byte: BeforeFirstByte) -> str:
        task_id = await super().send(call, before_first_byte=before_first_byte)
        self.accepted.set()
        await self.go.wait()
        return task_id


async def test_a_reply_is_kept_for_who_has_the_job_now(workshop: Workshop) -> None:
    slow = workshop.images = SlowDecoder()
    await workshop.workers.pop().aclose()
    worker = await workshop.start()
    task = await workshop.ask(Operation.TEXT_TO_IMAGE, "task-seeming-1")
    async with asyncio.timeout(PATIENCE):
        await slow.decoding.wait()
        # an error's wait, which nothing shortens
        await workshop.db.execute(f"{_TAKE_AWAY} error_code = 'x', run_after = now() + interval '1 hour'")
        slow.go.set()
        while worker.engine.running:
            await asyncio.sleep(0.02)
    assert await workshop.db.fetchval("select state from makeit3d.provider_calls") == "submitted"
    await workshop.db.execute("update makeit3d.jobs set run_after = now()")
    status = await workshop.finished(task)
    assert status.jobs[0]["status"] == "completed"
    assert slow.ledger.posts == 1


async def test_a_parked_job_goes_on_with_the_answer(workshop: Workshop) -> None:
    slow = workshop.models = SlowAnswer()
    await workshop.workers.pop().aclose()
    await workshop.start()
    task = await workshop.ask(Operation.TEXT_TO_MODEL, "task-seeming-2")
    async with asyncio.timeout(PATIENCE):
        await slow.accepted.wait()
    await workshop.db.execute(f"{_TAKE_AWAY} run_after = now() + interval '1 hour'")
    slow.go.set()
    status = await workshop.finished(task)
    assert status.jobs[0]["status"] == "completed"
    assert slow.ledger.posts == 1


async def test_the_same_worker_may_have_the_job_again_before_its_earlier_run_is_over(workshop: Workshop) -> None:
    slow = workshop.images = TwoDecoders()
    await workshop.workers.pop().aclose()
    workshop.settings = workshop.settings.model_copy(update={"worker_ttl_seconds": 1.0})
    worker = await workshop.start()
    task = await workshop.ask(Operation.TEXT_TO_IMAGE, "task-seeming-3")
    async with asyncio.timeout(PATIENCE):
        while len(slow.decoding) < 1:
            await asyncio.sleep(0.02)
        await workshop.db.execute(f"{_TAKE_AWAY} run_after = now()")
        while len(slow.decoding) < 2:
            await asyncio.sleep(0.02)
        slow.decoding[0].set()
        while worker.engine.running > 1:
            await asyncio.sleep(0.02)
        seen = "select seen_at from makeit3d.workers"
        for _ in range(3):  # claims are compared each time: what is not known to run here would be given away
            before = await workshop.db.fetchval(seen)
            while await workshop.db.fetchval(seen) == before:
                await asyncio.sleep(0.02)
        assert worker.engine.running == 1
        slow.decoding[1].set()
    status = await workshop.finished(task)
    assert status.jobs[0]["status"] == "completed"
    assert await workshop.db.fetchval("select attempt from makeit3d.jobs") == 2
    assert slow.ledger.posts == 1
