"""A task as its owner reads it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class TaskRow:
    id: str
    type: str
    label: str | None
    status: str
    user_relevant: bool
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
