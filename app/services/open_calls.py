"""What the queue knows of paid calls: that some are open, and that they want upkeep."""

from __future__ import annotations

from typing import Protocol

from app.domain.jobs import Lane


class OpenCalls(Protocol):
    async def drain(self) -> None:
        """Wait for every open POST and for its record."""
        ...


class Upkeep(Protocol):
    """Each of these is safe to repeat."""

    async def recover(self) -> frozenset[Lane]:
        """Go on with the calls of processes of this host that died; the lanes whose jobs became claimable."""
        ...

    async def adopt(self) -> int:
        """Follow submitted calls that no job waits for; how many."""
        ...

    async def settle(self) -> int:
        """Settle calls that nobody can answer any more; how many."""
        ...
