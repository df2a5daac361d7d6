"""The numbered event log. NOTIFY is only a hint that there is something to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from app.db.pool import Database
from app.db.sql import load
from app.domain.cursors import Cursor

CHANNEL = "makeit3d_events"

_SQL = load(__file__)
AFTER, OF_TASK_AFTER = _SQL["events_after"], _SQL["events_of_task_after"]
HORIZON, NEWS = _SQL["event_horizon"], _SQL["event_news"]


@dataclass(frozen=True, slots=True)
class Event:
    cursor: Cursor
    type: str
    payload: dict[str, Any]
    created_at: datetime


async def after(
    database: Database, user_id: UUID, cursor: Cursor, *, task_id: str | None, limit: int = 500
) -> list[Event]:
    place: dict[str, Any] = {"user_id": user_id, "xid": str(cursor.xid), "id": cursor.id, "limit": limit}
    if task_id is None:
        rows = await database.fetch(AFTER, **place)
    else:
        rows = await database.fetch(OF_TASK_AFTER, **place, task_id=task_id)
    return [Event(Cursor(int(row["xid"]), row["id"]), row["type"], row["payload"], row["created_at"]) for row in rows]


async def now(database: Database) -> Cursor:
    """The place from which nothing that commits later is missed."""
    xmin = await database.fetchval(_SQL["events_now"])
    return Cursor(int(xmin), 0)


@dataclass(frozen=True, slots=True)
class Horizon:
    """How far the log can be read now; ``hidden`` says that the user has committed events beyond it."""

    cursor: Cursor
    hidden: bool


async def horizon(database: Database, user_id: UUID) -> Horizon:
    """Ask before ``after``: whatever lies below this cursor is then in its answer."""
    row = await database.fetchrow(HORIZON, user_id=user_id)
    assert row is not None  # noqa: S101 - a select without from has one row
    return Horizon(Cursor(int(row["xmin"]), 0), row["hidden"])


@dataclass(frozen=True, slots=True)
class News:
    """Who of those asked about has events since a transaction, and the transaction to ask from next time."""

    since: int
    user_ids: list[UUID]
    task_ids: list[str]


async def news(database: Database, since: int, *, user_ids: Sequence[UUID], task_ids: Sequence[str]) -> News:
    """One statement for all waiting readers of a process, for when hints got lost."""
    row = await database.fetchrow(NEWS, since=str(since), user_ids=list(user_ids), task_ids=list(task_ids))
    assert row is not None  # noqa: S101 - a select without from has one row
    return News(int(row["xmin"]), row["user_ids"], row["task_ids"])


async def notify(database: Database, payloads: Sequence[str]) -> None:
    """Send hints, each under 8,000 bytes, in one transaction."""
    await database.execute(_SQL["notify_events"], channel=CHANNEL, payloads=list(payloads))


async def remove_older_than(database: Database, *, days: int, limit: int = 10_000) -> int:
    return await database.execute(_SQL["remove_old_events"], days=days, limit=limit)
