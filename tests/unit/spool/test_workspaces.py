"""The spool's budget: whatever becomes of who had a share of it, the next one gets it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from app.calls.spool import Spool

HANG = 8.0  # seconds; a wait that is this long has no end
ALL = 100


async def all_of_it(spool: Spool) -> None:
    async with asyncio.timeout(HANG), spool.workspace(expected_bytes=ALL):
        pass


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "spool", max_bytes=ALL)
    made.open()
    return made


async def test_who_waits_goes_on_when_enough_was_given_back(spool: Spool) -> None:
    async with spool.workspace(expected_bytes=60), spool.workspace(expected_bytes=40):
        waiting = asyncio.create_task(all_of_it(spool))
        impatient = asyncio.create_task(all_of_it(spool))
        await asyncio.sleep(0)
        impatient.cancel()
    await waiting
    with pytest.raises(asyncio.CancelledError):
        await impatient
    await all_of_it(spool)


async def test_who_is_cancelled_while_tidying_up_gives_the_share_back(spool: Spool, tmp_path: Path) -> None:
    leaving, busy = asyncio.Event(), threading.Event()

    async def leave() -> None:
        async with spool.workspace(expected_bytes=ALL):
            leaving.set()

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as threads:
        loop.set_default_executor(threads)
        threads.submit(busy.wait)
        task = asyncio.create_task(leave())
        await leaving.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        busy.set()
        await all_of_it(spool)
        while any((tmp_path / "spool").iterdir()):
            await asyncio.sleep(0.01)


async def test_a_directory_that_can_not_be_made_takes_no_share(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "spool").rmdir()
    with pytest.raises(FileNotFoundError):
        await all_of_it(spool)
    spool.open()
    await all_of_it(spool)
