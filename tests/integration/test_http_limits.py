"""Limits per user over HTTP: racing requests, repeats, and what the client is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest
from app.ai_clients.base import ImageRequest

from tests.fake_providers import FakeImages
from tests.integration.factories import settings_for
from tests.integration.http_gateway import Gateway, gateway

Opener = Callable[..., AbstractAsyncContextManager[Gateway]]

PICTURE = FakeImages().estimate(ImageRequest("a fox")).micros  # USD micros


@pytest.fixture
def limited(database: str, tmp_path: Path) -> Opener:
    @asynccontextmanager
    async def open_(**limits: object) -> AsyncGenerator[Gateway]:
        async with gateway(settings_for(database, tmp_path, **limits)) as gate:
            yield gate

    return open_


def body(number: int) -> dict[str, object]:
    return {"task_id": f"task-limits-{number:02}", "prompt": "a fox"}


async def test_racing_requests_do_not_slip_past_the_budget(limited: Opener) -> None:
    budget = Decimal(3 * PICTURE) / 1_000_000
    async with limited(user_daily_budget_usd=budget) as gate:
        answers = await asyncio.gather(
            *(gate.post("/generate/text-to-image", json=body(number)) for number in range(12))
        )
        accepted = [number for number, answer in enumerate(answers) if answer.status_code == 202]
        assert len(accepted) == 3
        refused = next(answer for answer in answers if answer.status_code != 202)
        assert (refused.status_code, refused.json()["code"]) == (429, "user_budget_exceeded")
        assert refused.json()["retryable"] is True
        assert 0 < int(refused.headers["retry-after"]) <= 86_400
        assert f"{budget:.2f} USD" in refused.json()["detail"]
        assert await gate.db.fetchval("select count(*) from makeit3d.tasks") == 3

        # a repeat costs nothing, and another user has a budget of their own
        repeat = await gate.post("/generate/text-to-image", json=body(accepted[0]))
        assert (repeat.status_code, repeat.json()["deduplicated"]) == (202, True)
        other = gate.headers(await gate.another_user())
        assert (await gate.post("/generate/text-to-image", json=body(50), headers=other)).status_code == 202


async def test_twins_are_one_request_also_when_it_takes_the_last_of_the_budget(limited: Opener) -> None:
    async with limited(user_daily_budget_usd=Decimal(PICTURE) / 1_000_000, user_max_unfinished=1) as gate:
        answers = await asyncio.gather(*(gate.post("/generate/text-to-image", json=body(1)) for _ in range(10)))
        assert [answer.status_code for answer in answers] == [202] * 10
        assert sum(not answer.json()["deduplicated"] for answer in answers) == 1
        assert len({answer.json()["request_id"] for answer in answers}) == 1


async def test_jobs_beyond_the_places_wait_and_say_so_and_beyond_the_queue_are_refused(limited: Opener) -> None:
    async with limited(user_max_in_flight=2, user_max_unfinished=5) as gate:
        answers = await asyncio.gather(
            *(gate.post("/generate/text-to-image", json=body(number)) for number in range(9))
        )
        codes = sorted(answer.status_code for answer in answers)
        assert codes == [202] * 5 + [429] * 4
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.json()["code"] == "user_limit"
        assert int(refused.headers["retry-after"]) > 0
        tasks = [answer.json()["task_id"] for answer in answers if answer.status_code == 202]
        said = {task: (await gate.get(f"/tasks/{task}/status")).json()["waiting_for"] for task in tasks}
        assert sorted(said.values()) == ["user_limit", "user_limit", "user_limit", "worker", "worker"]
        started = next(task for task, word in said.items() if word == "worker")
        assert (await gate.post(f"/tasks/{started}/cancel")).is_success
        async with asyncio.timeout(60):  # the place is given on after the answer
            while await gate.db.fetchval("select count(*) from makeit3d.jobs where waiting_for = 'user_limit'") != 2:
                await asyncio.sleep(0.02)
