"""Disk for uploads under way: taken as their bytes arrive, and shared fairly among users.

Whatever uploads declare, they hold what they sent. Where the disk is full, a user with less than a fair share displaces
the newest upload of the user who holds most. Uploads of users who have their share wait for room; as each may hold
what another waits for, the newest of those that wait is ended when the patience is over.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from uuid import UUID

from app.errors import AppError, ErrorCode
from app.services.workspaces import RESERVED

_RETRY_AFTER_SECONDS = 10.0


class UploadRoom:
    """Of one process. ``max_bytes`` are shared; one upload that is alone may have more."""

    def __init__(self, max_bytes: int, *, patience_seconds: float) -> None:
        self._max = max_bytes
        self._patience_seconds = patience_seconds
        self._holdings: list[Holding] = []  # the oldest first
        self._returned = asyncio.Event()

    @contextmanager
    def holding(self, user_id: UUID) -> Generator[Holding]:
        """What one upload holds; it begins with nothing, and all of it is given back in the end."""
        held = Holding(self, user_id)
        self._holdings.append(held)
        try:
            yield held
        finally:
            self._holdings.remove(held)
            RESERVED.dec(held.size)
            self._returned.set()

    async def take(self, held: Holding, size: int) -> None:
        """Raises AppError(SERVICE_UNAVAILABLE) where there stays no room for it."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._patience_seconds
        held.waiting = True
        try:
            while not self._has_room(held, size):
                self._displace(held, size)
                self._returned.clear()
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._returned.wait()
                except TimeoutError:
                    self._end_newest_waiting(held, size)
                    deadline = clock() + self._patience_seconds
        finally:
            held.waiting = False
        held.size += size
        RESERVED.inc(size)

    def _has_room(self, held: Holding, size: int) -> bool:
        used = sum(other.size for other in self._holdings)
        return used + size <= self._max or used == held.size

    def _is_coming(self, size: int) -> bool:
        """Enough is free once those are gone that were ended."""
        return sum(other.size for other in self._holdings if not other.ended) + size <= self._max

    def _displace(self, held: Holding, size: int) -> None:
        """End uploads of users over their share until there is room within this user's share."""
        used = Counter({held.user_id: 0})
        for other in self._holdings:
            if other.size and not other.ended:  # who holds nothing wants no share yet
                used[other.user_id] += other.size
        share = self._max // len(used)
        if used[held.user_id] + size > share:
            return
        while not self._is_coming(size):
            over = [
                other for other in self._holdings if other.can_be_ended and other.size and used[other.user_id] > share
            ]
            if not over:
                return
            greatest = max(used[other.user_id] for other in over)
            newest = next(other for other in reversed(over) if used[other.user_id] == greatest)
            newest.end()
            used[newest.user_id] -= newest.size

    def _end_newest_waiting(self, held: Holding, size: int) -> None:
        if self._is_coming(size):
            return
        newest = next((other for other in reversed(self._holdings) if other.waiting and not other.ended), held)
        if newest is held or not newest.can_be_ended:
            raise _full()
        newest.end()


class Holding:
    """The room of one upload."""

    def __init__(self, room: UploadRoom, user_id: UUID) -> None:
        self.user_id = user_id
        self.size = 0  # bytes
        self.waiting = False
        self.ended = False
        self._room = room
        self._receiving: asyncio.Timeout | None = None

    async def take(self, size: int) -> None:
        """Room for so many bytes more. Raises AppError(SERVICE_UNAVAILABLE)."""
        await self._room.take(self, size)

    @asynccontextmanager
    async def receiving(self) -> AsyncGenerator[None]:
        """Within this the upload can be ended for the sake of others; then AppError(SERVICE_UNAVAILABLE) is raised."""
        try:
            async with asyncio.timeout(None) as self._receiving:
                yield
        except TimeoutError:
            if not self.ended:
                raise
            raise _full() from None
        finally:
            self._receiving = None

    @property
    def can_be_ended(self) -> bool:
        return self._receiving is not None and not self.ended

    def end(self) -> None:
        """Only while it can be ended."""
        self.ended = True
        if self._receiving is not None:
            self._receiving.reschedule(asyncio.get_running_loop().time())


def _full() -> AppError:
    return AppError(
        ErrorCode.SERVICE_UNAVAILABLE, "Too much is being uploaded just now.", retry_after=_RETRY_AFTER_SECONDS
    )
