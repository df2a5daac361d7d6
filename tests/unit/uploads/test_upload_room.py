"""The room of uploads: held by what arrived, shared fairly, given back whatever happens, and never waited for in a
circle."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from app.errors import AppError, ErrorCode
from app.services.upload_room import Holding, UploadRoom

HANG = 8.0  # seconds; a wait that is this long has no end
ALL = 120
A, B, C = (UUID(int=number) for number in range(3))


class Upload:
    """A task that takes room when it is told to, and keeps it until it is let go."""

    def __init__(self, room: UploadRoom, user: UUID, *, receiving: bool = True) -> None:
        self.held: Holding | None = None
        self._orders: asyncio.Queue[int | None] = asyncio.Queue()
        self._done = asyncio.Event()
        self.task = asyncio.create_task(self._run(room, user, receiving=receiving))

    async def _run(self, room: UploadRoom, user: UUID, *, receiving: bool) -> None:
        with room.holding(user) as self.held:
            if receiving:
                async with self.held.receiving():
                    await self._obey()
            else:
                await self._obey()

    async def _obey(self) -> None:
        assert self.held is not None
        while (size := await self._orders.get()) is not None:
            await self.held.take(size)
            self._done.set()

    def begin(self, size: int) -> None:
        self._done.clear()
        self._orders.put_nowait(size)

    async def take(self, size: int) -> None:
        self.begin(size)
        async with asyncio.timeout(HANG):
            await self._done.wait()

    async def end(self) -> None:
        self._orders.put_nowait(None)
        await self.task

    async def refused(self) -> None:
        async with asyncio.timeout(HANG):
            with pytest.raises(AppError) as refused:
                await self.task
        assert refused.value.error is ErrorCode.SERVICE_UNAVAILABLE
        assert refused.value.retry_after


def room_of(patience: float = HANG * 10) -> UploadRoom:
    return UploadRoom(ALL, patience_seconds=patience)


async def test_who_has_sent_nothing_holds_nothing() -> None:
    room = room_of()
    idle = [Upload(room, A) for _ in range(50)]
    other = Upload(room, B)
    await other.take(ALL)
    await other.end()
    for upload in idle:
        await upload.end()


async def test_a_user_has_the_whole_room_while_nobody_else_wants_it() -> None:
    room = room_of()
    uploads = [Upload(room, A) for _ in range(3)]
    for upload in uploads:
        await upload.take(40)
    for upload in uploads:
        await upload.end()


async def test_a_user_below_the_share_displaces_the_newest_of_who_holds_most() -> None:
    room = room_of()
    greedy = [Upload(room, A) for _ in range(3)]
    for upload in greedy:
        await upload.take(30)
    modest = Upload(room, B)
    await modest.take(30)
    third = Upload(room, C)
    await third.take(20)  # the room was full: 90 of A, 30 of B
    await greedy[2].refused()
    await greedy[1].take(5)  # the others go on
    await modest.take(5)
    for upload in (*greedy[:2], modest, third):
        await upload.end()


async def test_users_who_hold_nothing_take_no_share_from_others() -> None:
    room = room_of()
    idle = [Upload(room, UUID(int=number)) for number in range(10, 100)]
    greedy, modest = Upload(room, A), Upload(room, B)
    await greedy.take(ALL)
    await modest.take(ALL // 2)
    await greedy.refused()
    for upload in (*idle, modest):
        await upload.end()


async def test_what_is_received_already_is_not_ended() -> None:
    room = room_of()
    storing, receiving = Upload(room, A, receiving=False), Upload(room, A)
    await receiving.take(40)
    await storing.take(80)
    other = Upload(room, B)
    await other.take(40)
    await receiving.refused()
    other.begin(20)  # still within B's share, and nothing of A's can be ended
    await asyncio.sleep(0)
    await storing.end()
    await other.take(1)
    await other.end()


async def test_uploads_that_wait_for_each_other_end_with_the_newest() -> None:
    room = room_of(patience=0.05)
    old, new = Upload(room, A), Upload(room, A)
    await old.take(60)
    await new.take(60)
    old.begin(30)
    new.begin(30)
    await new.refused()
    await old.take(30)
    await old.end()


async def test_the_last_two_of_three_in_a_circle_do_not_both_end() -> None:
    room = room_of(patience=0.05)
    uploads = [Upload(room, user) for user in (A, B, C)]
    for upload in uploads:
        await upload.take(40)
    for upload in uploads:
        upload.begin(20)
    await uploads[2].refused()
    for upload in uploads[:2]:
        await upload.take(0)
        await upload.end()


async def test_one_that_needs_more_than_all_goes_on_alone() -> None:
    room = room_of()
    large = Upload(room, A)
    for _ in range(3):
        await large.take(ALL)
    await large.end()
    other = Upload(room, B)
    await other.take(ALL)
    await other.end()


async def test_what_a_broken_upload_held_is_free_again() -> None:
    room = room_of()
    broken, waiting = Upload(room, A), Upload(room, A)
    await broken.take(ALL)
    waiting.begin(ALL)
    await asyncio.sleep(0)
    broken.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await broken.task
    await waiting.take(0)
    waiting.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting.task
    last = Upload(room, B)
    await last.take(ALL)
    await last.end()
