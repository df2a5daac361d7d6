"""Lets a few in at a time, and the users by turns: however much one of them asks for, another's first is next."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import UUID


class FairGate:
    """Of this process. Of the ``size`` that are inside at a time, at most ``per_user`` are one user's."""

    def __init__(self, *, size: int, per_user: int) -> None:
        self._free = size
        self._per_user = per_user
        self._inside: Counter[UUID | None] = Counter()
        self._waiting: dict[UUID | None, deque[asyncio.Future[None]]] = {}
        self._admitted = 0
        self._last_turn: dict[UUID | None, int] = {}  # of those who are inside or wait; a newcomer had none

    @asynccontextmanager
    async def turn(self, user_id: UUID | None) -> AsyncGenerator[None]:
        await self.enter(user_id)
        try:
            yield
        finally:
            self.leave(user_id)

    async def enter(self, user_id: UUID | None) -> None:
        """Wait for one's turn; whoever was let in has to ``leave``."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(user_id, deque()).append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._forget(user_id, turn)
            else:  # let in and canceled in the same moment
                self.leave(user_id)
            raise

    def leave(self, user_id: UUID | None) -> None:
        self._free += 1
        self._inside[user_id] -= 1
        if not self._inside[user_id]:
            del self._inside[user_id]
        self._admit()
        self._tidy(user_id)

    def _admit(self) -> None:
        while self._free and (ready := [user for user in self._waiting if self._inside[user] < self._per_user]):
            # whose last turn is the longest ago; among newcomers, who came first
            user_id = min(ready, key=lambda user: self._last_turn.get(user, 0))
            turn = self._waiting[user_id].popleft()
            if not self._waiting[user_id]:
                del self._waiting[user_id]
            if turn.cancelled():
                continue
            self._free -= 1
            self._inside[user_id] += 1
            self._admitted += 1
            self._last_turn[user_id] = self._admitted
            turn.set_result(None)

    def _tidy(self, user_id: UUID | None) -> None:
        if user_id not in self._waiting and user_id not in self._inside:
            self._last_turn.pop(user_id, None)

    def _forget(self, user_id: UUID | None, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(user_id)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._waiting[user_id]
        self._tidy(user_id)
