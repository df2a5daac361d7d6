"""Bells say that a lane has work. A lost bell costs one sweep; a superfluous one finds nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from app.domain.jobs import Lane


class Bells(Protocol):
    def ring(self, lanes: Iterable[Lane]) -> None:
        """Ring soon, from the running loop; never blocks, never raises. Call it after the commit."""
        ...


class OwnedBells(Bells, Protocol):
    """Bells of a process's own: who is given them closes them."""

    async def aclose(self) -> None: ...
