"""A run that is stopped or lost before its first step still ends by itself: nobody else would settle its job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import uuid4

import pytest
from app.domain.jobs import Claim, ClaimedJob
from app.services.job_run import ClaimLost, HandBack, JobRun


def claimed() -> JobRun:
    job = ClaimedJob(
        claim=Claim(uuid4(), uuid4(), 1),
        task_id="task-1",
        request_id=uuid4(),
        user_id=None,
        step=0,
        type="generate_images",
        provider="openai",
        pool="openai-images",
        lane="normal",
        params={},
        failures=0,
        deferrals=0,
        crashes=0,
        alone=False,
        age_seconds=0.0,
        time_left_seconds=None,
    )
    return JobRun(job, [])


@pytest.mark.parametrize(("interrupt", "told"), [(JobRun.stop, HandBack), (JobRun.lose, ClaimLost)])
async def test_before_the_first_step(interrupt: Callable[[JobRun], None], told: type[Exception]) -> None:
    run = claimed()

    async def handler() -> None:
        run.begin()
        await asyncio.Event().wait()

    run.task = asyncio.create_task(handler())
    interrupt(run)
    with pytest.raises(told):
        await run.task


@pytest.mark.parametrize("interrupt", [JobRun.stop, JobRun.lose])
async def test_afterwards_it_is_interrupted(interrupt: Callable[[JobRun], None]) -> None:
    run = claimed()
    begun = asyncio.Event()

    async def handler() -> None:
        run.begin()
        begun.set()
        await asyncio.Event().wait()

    run.task = asyncio.create_task(handler())
    await begun.wait()
    interrupt(run)
    with pytest.raises(asyncio.CancelledError):
        await run.task


async def test_it_is_interrupted_once_and_may_tidy_up() -> None:
    """A worker that leaves says so to its runs twice, and a deadline or a lost claim may come on top."""
    run = claimed()
    begun, tidying, go = asyncio.Event(), asyncio.Event(), asyncio.Event()
    tidy = False

    async def handler() -> None:
        nonlocal tidy
        run.begin()
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            tidying.set()
            await go.wait()
            tidy = True

    run.task = asyncio.create_task(handler())
    await begun.wait()
    run.stop()
    await tidying.wait()
    run.stop()
    run.lose()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await run.task
    assert tidy
