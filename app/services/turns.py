"""Turns of users at what all share: one who asks for much waits for themselves, not the others for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from uuid import UUID

from app.errors import AppError, ErrorCode

_RETRY_AFTER_SECONDS = 5.0


@dataclass(slots=True)
class _Queue:
    gate: asyncio.Semaphore
    people: int = 0  # inside and waiting


class Turns:
    """Of this process. ``at_once`` of a user are inside; with those who wait there are ``most``."""

    def __init__(self, *, at_once: int, most: int) -> None:
        self._at_once = at_once
        self._most = most
        self._queues: dict[UUID | None, _Queue] = {}

    @asynccontextmanager
    async def turn(self, user_id: UUID | None) -> AsyncGenerator[None]:
        """Wait for one of the user's turns, in the order of coming. Raises AppError(TOO_MANY_INPUTS)."""
        with self.place(user_id) as gate:
            async with gate:
                yield

    @contextmanager
    def place(self, user_id: UUID | None) -> Generator[asyncio.Semaphore]:
        """Counted from now on; who has to do something first waits at the gate afterwards. Raises as ``turn``."""
        queue = self._queues.setdefault(user_id, _Queue(asyncio.Semaphore(self._at_once)))
        if queue.people >= self._most:
            raise AppError(
                ErrorCode.TOO_MANY_INPUTS,
                f"At most {self._most} requests with inputs at a time.",
                retry_after=_RETRY_AFTER_SECONDS,
            )
        queue.people += 1
        try:
            yield queue.gate
        finally:
            queue.people -= 1
            if not queue.people:
                del self._queues[user_id]
