"""A body that pauses or trickles is refused; one that keeps the pace is not, whatever is done with it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator

import pytest
from app.errors import AppError, ErrorCode
from app.routers.pace import Pace, keep_pace

GENEROUS = Pace(idle_seconds=3600, bytes_per_second=1, seconds=7200)


async def body(*chunks: bytes, then: asyncio.Event | None = None) -> AsyncGenerator[bytes]:
    for chunk in chunks:
        yield chunk
    if then is not None:
        await then.wait()


async def read(source: AsyncGenerator[bytes], pace: Pace) -> list[bytes]:
    return [chunk async for chunk in keep_pace(source, pace)]


@pytest.mark.parametrize(
    ("received", "waited", "patience"),
    [
        (0, 0, 20),
        (0, 19, 1),
        (100_000, 0, 20),
        (100_000, 100, 20),
        (100_000, 115, 5),
        (100_000, 121, -1),
        (10**9, 590, 10),
        (10**9, 601, -1),
    ],
)
def test_patience_is_earned_with_bytes(received: int, waited: float, patience: float) -> None:
    assert Pace(20, 1000, 600).patience(received, waited) == pytest.approx(patience)  # pyright: ignore[reportUnknownMemberType]


async def test_a_body_in_time_passes_whole() -> None:
    assert await read(body(b"a", b"", b"bc"), GENEROUS) == [b"a", b"", b"bc"]


async def test_a_pause_is_refused() -> None:
    with pytest.raises(AppError) as refused:
        await read(body(b"a", then=asyncio.Event()), Pace(0.02, 1, 3600))
    assert refused.value.error is ErrorCode.UPLOAD_TOO_SLOW


async def test_a_trickle_is_refused_though_it_never_pauses_long() -> None:
    async def trickle() -> AsyncGenerator[bytes]:
        while True:
            await asyncio.sleep(0.005)
            yield b"x"

    with pytest.raises(AppError) as refused:
        await read(trickle(), Pace(0.1, 10**6, 3600))
    assert refused.value.error is ErrorCode.UPLOAD_TOO_SLOW


async def test_the_time_that_we_take_is_not_the_senders() -> None:
    ticks = itertools.count()  # each look at the clock comes an hour later, but for what the sender takes
    clock = (3600.0 * (tick // 2) for tick in ticks)
    source = keep_pace(body(*[b"x"] * 4), Pace(60, 10**9, 60), clock=lambda: next(clock))
    assert len([chunk async for chunk in source]) == 4
