"""Two pieces of work at once: both end, or neither goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from app.services.beside import beside


async def told(what: list[str], until: asyncio.Event) -> str:
    try:
        await until.wait()
    finally:
        what.append("ended")
    return "done"


async def fail() -> None:
    raise ValueError("other")


async def fails_inside(other: Coroutine[Any, Any, Any]) -> None:
    async with beside(other):
        await asyncio.sleep(0)
        raise KeyError


async def test_both_go_on_at_once_and_both_are_waited_for() -> None:
    what, go = list[str](), asyncio.Event()
    async with beside(told(what, go)) as other:
        await asyncio.sleep(0)
        assert what == []
        asyncio.get_running_loop().call_soon(go.set)
    assert other.result() == "done"


async def test_an_error_of_the_inside_ends_the_other_first() -> None:
    what = list[str]()
    with pytest.raises(KeyError):
        await fails_inside(told(what, asyncio.Event()))
    assert what == ["ended"]


async def test_an_error_of_the_other_is_raised_when_the_inside_is_done() -> None:
    inside = list[str]()

    async def both() -> None:
        async with beside(fail()):
            await asyncio.sleep(0)
            inside.append("done")

    with pytest.raises(ValueError, match="other"):
        await both()
    assert inside == ["done"]


async def test_of_two_errors_the_inside_has_the_word() -> None:
    with pytest.raises(KeyError):
        await fails_inside(fail())


async def test_who_is_cancelled_while_it_waits_for_the_other_ends_it() -> None:
    what = list[str]()

    async def both() -> None:
        async with beside(told(what, asyncio.Event())):
            pass

    task = asyncio.create_task(both())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert what == ["ended"]
