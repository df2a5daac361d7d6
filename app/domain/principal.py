"""Who calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Literal
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Principal:
    """A user (JWT), or the service acting for the user it names. Everything belongs to ``user_id``. ``expires_at`` is
    the end of the user's token in seconds since 1970; the service's key has none."""

    kind: Literal["user", "service"]
    user_id: UUID
    expires_at: float = field(default=inf, compare=False)

    def seconds_left(self, now: float) -> float:
        """How long what stays open may stay open; below zero in the moments for which an ended token still serves,
        because clocks differ."""
        return self.expires_at - now
