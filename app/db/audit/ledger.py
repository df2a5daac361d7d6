"""The journal of paid calls, as an audit compares it with the provider's own record."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from app.db.pool import Database
from app.db.sql import load
from app.domain.statuses import CallState

_SQL = load(__file__)


@dataclass(frozen=True, slots=True)
class JournalRow:
    id: UUID
    job_id: UUID | None
    kind: str
    state: CallState
    error_code: str | None
    provider_task_id: str | None
    provider_request_id: str | None
    cost_micros: int | None
    cost_is_estimate: bool
    created_at: datetime
    deadline: datetime


async def journal(database: Database, provider: str, *, since: datetime) -> list[JournalRow]:
    """The provider's calls from a moment on, oldest first."""
    async with database.snapshot() as connection:
        rows = connection.rows(_SQL["journal_of"], provider=provider, since=since, prefetch=1000)
        return [_row(row) async for row in rows]


def _row(row: asyncpg.Record) -> JournalRow:
    values = dict(row)
    values["state"] = CallState(values["state"])
    return JournalRow(**values)
