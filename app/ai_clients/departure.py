"""The moment at which a paid request leaves us, so that a crash before it is no doubt afterwards.

Whoever sends a paid call is inside ``watched``; the transport calls ``leave`` right before the request's first byte.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

import httpx


class HeldBack(httpx.ConnectError):
    """The call may not leave any more; no byte of it did."""


class _Watch:
    def __init__(self, leaving: Callable[[], Awaitable[None]]) -> None:
        self._leaving = leaving
        self._left = False

    async def leave(self) -> None:
        if not self._left:
            await self._leaving()
            self._left = True


_watch: ContextVar[_Watch | None] = ContextVar("departure", default=None)


@contextmanager
def watched(leaving: Callable[[], Awaitable[None]]) -> Generator[None]:
    """Await ``leaving`` once, before the first byte of the paid request that is sent inside. It raises HeldBack to keep
    the request from leaving."""
    token = _watch.set(_Watch(leaving))
    try:
        yield
    finally:
        _watch.reset(token)


async def leave() -> None:
    """The first byte of a paid request comes next. Raises HeldBack when it must not."""
    watch = _watch.get()
    if watch is not None:
        await watch.leave()
