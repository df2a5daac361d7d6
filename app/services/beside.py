"""Two pieces of work of one run at once, as one: neither goes on when the other fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, T]) -> AsyncGenerator[asyncio.Task[T]]:
    """``work`` goes on beside what is inside, and both are done at the end. It is cancelled, and has ended, before
    an error of the inside gets out. Raises what either raises, the inside first."""
    task = asyncio.create_task(work)
    try:
        yield task
        await task
    finally:
        if not task.done():
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
