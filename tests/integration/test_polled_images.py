"""Pictures of a provider that answers with an id: one call, one file per row, and nothing paid twice."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from app.ai_clients.base import Capability, DownloadedFile
from app.ai_clients.limits import Limits
from app.calls import journal
from app.db.pool import Database
from app.domain.operations import Operation

from tests.fake_providers import FakeModels
from tests.integration.workshop import Workshop, open_workshop

PICTURES: Mapping[Capability, Limits] = {Capability.TEXT_TO_IMAGE: Limits(), Capability.IMAGE_TO_IMAGE: Limits()}


@dataclass(slots=True)
class Painter(FakeModels):
    """Makes pictures; the one of this number is none."""

    broken: int | None = None

    async def download(self, url: str, target: Path, *, max_bytes: int) -> DownloadedFile:
        file = await FakeModels.download(self, url, target, max_bytes=max_bytes)
        if self.broken is not None and url.endswith(f"-{self.broken}.png"):
            target.write_bytes(target.read_bytes()[:64])
            return replace(file, size=64)
        return file


@pytest.fixture
async def workshop(db: Database, database: str, tmp_path: Path) -> AsyncGenerator[Workshop]:
    painter = Painter(capabilities=PICTURES)
    async with open_workshop(db, database, tmp_path, models=painter) as shop:
        yield shop


async def ask(workshop: Workshop, task: str) -> str:
    return await workshop.ask(Operation.TEXT_TO_IMAGE, task, n=3, provider="tripo")


async def kinds(workshop: Workshop) -> list[str]:
    [job_id] = [row["id"] for row in await workshop.db.fetch("select id from makeit3d.jobs")]
    return [call.kind for call in await journal.calls_of(workshop.db, job_id)]


async def test_each_row_gets_a_picture_of_one_call(workshop: Workshop) -> None:
    task = await ask(workshop, "task-painter-1")
    status = await workshop.finished(task)
    assert status.jobs[0]["status"] == "completed"
    assert await workshop.keys() == [f"concepts/{task}/{number}.png" for number in range(3)]
    assert await workshop.calls() == [("settled", None, 200_000)]
    assert await kinds(workshop) == ["text-to-image"]
    assert workshop.models.ledger.posts == 1
    assert workshop.images.ledger.posts == 0


async def test_another_worker_goes_on_with_what_was_submitted(workshop: Workshop) -> None:
    workshop.models.polls = 10**9
    task = await ask(workshop, "task-painter-2")
    await workshop.until(task, lambda status: status.jobs[0]["progress"] is not None and bool(workshop.models.tasks))
    await workshop.workers.pop().aclose()
    workshop.models.tasks = {id_: replace(work, polls_left=0) for id_, work in workshop.models.tasks.items()}
    await workshop.start()
    status = await workshop.finished(task)
    assert status.jobs[0]["status"] == "completed"
    assert workshop.models.ledger.posts == 1
    assert len(await workshop.keys()) == 3


async def test_a_broken_picture_costs_only_its_row(workshop: Workshop) -> None:
    painter = workshop.models
    assert isinstance(painter, Painter)
    painter.broken = 1
    task = await ask(workshop, "task-painter-3")
    status = await workshop.finished(task)
    assert status.jobs[0]["status"] == "completed"
    assert await workshop.keys() == [f"concepts/{task}/{number}.png" for number in (0, 2)]


async def test_a_lost_answer_is_found_and_not_paid_again(workshop: Workshop) -> None:
    workshop.models.ledger.lose_next_reply()
    status = await workshop.finished(await ask(workshop, "task-painter-4"))
    assert status.jobs[0]["status"] == "completed"
    assert workshop.models.ledger.posts == workshop.models.ledger.paid_calls == 1
    assert [state for state, _, _ in await workshop.calls()] == ["settled"]
