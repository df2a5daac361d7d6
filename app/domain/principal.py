"""Who calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Principal:
    """A user (JWT), or the service acting for the user it names. Everything belongs to ``user_id``."""

    kind: Literal["user", "service"]
    user_id: UUID
