"""What queued jobs wait for, other than a permit: a time, a reply, a disk, a slot."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from app.db.pool import Connection, Database
from app.db.sql import load
from app.domain.jobs import Lane

_SQL = load(__file__)
PROMOTE_DUE, CLAIMABLE_LANES = _SQL["promote_due"], _SQL["claimable_lanes"]


async def promote_due(asked: Database | Connection) -> frozenset[tuple[str, UUID | None]]:
    """Make jobs claimable whose waiting time is over; the (task id, user id) whose readers have news."""
    return frozenset((row["task_id"], row["user_id"]) for row in await asked.fetch(PROMOTE_DUE))


async def next_due_seconds(database: Database) -> float | None:
    """Seconds until the next waiting job is due; None when none waits for a time."""
    value = await database.fetchval(_SQL["next_due_seconds"])
    return None if value is None else max(0.0, value)


async def reply_found(database: Database, call_ids: Sequence[UUID]) -> frozenset[Lane]:
    """Jobs that wait for the answer to one of these calls, or for its host, become claimable; their lanes."""
    rows = await database.fetch(_SQL["wake_for_reply"], call_ids=list(call_ids))
    return frozenset(row["lane"] for row in rows)


async def kept_here(database: Database, host: str, call_ids: Sequence[UUID]) -> frozenset[Lane]:
    """The results of these calls lie on the disk of ``host``, whatever its name was when they were kept; the lanes of
    queued jobs that can run there now."""
    rows = await database.fetch(_SQL["move_kept_results"], host=host, call_ids=list(call_ids))
    return frozenset(row["lane"] for row in rows if row["status"] == "queued")


async def claimable_lanes(connection: Connection) -> set[Lane]:
    return {row["lane"] for row in await connection.fetch(CLAIMABLE_LANES)}


async def lanes_with_room(database: Database, pools: Sequence[str]) -> set[Lane]:
    """Lanes that hold work of these pools that could be claimed now."""
    return {row["lane"] for row in await database.fetch(_SQL["lanes_with_room"], pools=list(pools))}
