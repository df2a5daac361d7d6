"""How slowly a body may arrive: what it holds here is not for those who only trickle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Self

from app.config import Settings
from app.errors import AppError, ErrorCode


@dataclass(frozen=True, slots=True)
class Pace:
    """A body may pause for ``idle_seconds``, on average must come at ``bytes_per_second`` but for one such pause, and
    may take ``seconds`` in all."""

    idle_seconds: float
    bytes_per_second: int
    seconds: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(settings.upload_idle_seconds, settings.upload_bytes_per_second, settings.upload_seconds)

    def patience(self, received: int, waited: float) -> float:
        """Seconds that the next bytes may take, after so many bytes and so many seconds of waiting for them."""
        allowed = min(self.seconds, self.idle_seconds + received / self.bytes_per_second)
        return min(self.idle_seconds, allowed - waited)


async def keep_pace(
    body: AsyncIterator[bytes], pace: Pace, *, clock: Callable[[], float] = time.monotonic
) -> AsyncGenerator[bytes]:
    """The chunks of the body. Raises AppError(UPLOAD_TOO_SLOW). Only waiting for the sender counts, not what is done
    with the bytes meanwhile. ``clock`` counts seconds from anywhere."""
    received, waited = 0, 0.0
    while True:
        begun = clock()
        try:
            async with asyncio.timeout(pace.patience(received, waited)):
                chunk = await anext(body, None)
        except TimeoutError:
            raise AppError(
                ErrorCode.UPLOAD_TOO_SLOW,
                f"It may pause for {pace.idle_seconds:g} seconds, needs {pace.bytes_per_second} bytes per second on"
                f" average, and {pace.seconds:g} seconds at most.",
                retry_after=1,
            ) from None
        if chunk is None:
            return
        waited += clock() - begun
        received += len(chunk)
        yield chunk
