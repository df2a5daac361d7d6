"""Permits of users: what they have under way, and who of their waiting jobs comes next.

Whoever gives out permits or budget of a user holds the user's lock, and takes it before any row. A permit of a class
(jobs.permit) is held by every job of it that runs or could run, a retry included, and by the open call of a job that
ended without it. Work that nobody pays for (none) takes no permit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from app.db.pool import Connection, Database
from app.db.sql import load
from app.domain.jobs import Lane
from app.domain.user_limits import UserLimits, UserLoad
from app.queue.fair_tags import TAGGED

_SQL = load(__file__, tagged=TAGGED)
LOAD, RELEASE, WAITING_USERS = _SQL["load_of_user"], _SQL["release_permits"], _SQL["users_waiting"]


@dataclass(frozen=True, slots=True)
class Released:
    """Lanes to wake, and the (task id, user id) whose readers have news."""

    lanes: frozenset[Lane] = frozenset()
    tasks: frozenset[tuple[str, UUID | None]] = frozenset()


_NO_LIMIT = 2**31  # permits; more than there are jobs


async def lock(connection: Connection, user_id: UUID) -> None:
    """From here to the end of the transaction nobody else gives out permits or budget of this user."""
    await connection.execute(_SQL["lock_user"], user_id=user_id)


async def load_of(connection: Connection, user_id: UUID, limits: UserLimits) -> UserLoad:
    """What the user has under way, as far as the limits ask; exact while the user's lock is held."""
    row = await connection.fetchrow(
        LOAD,
        user_id=user_id,
        in_flight=limits.in_flight,
        unfinished=limits.unfinished,
        with_spent=limits.daily_budget_micros is not None,
    )
    assert row is not None  # noqa: S101 - a select without from has one row
    return UserLoad(**dict(row))


async def release(database: Database, user_id: UUID, *, in_flight: int | None) -> Released:
    """Give the user's free permits to waiting jobs, the most urgent and then the oldest first."""
    async with database.transaction() as connection:
        await lock(connection, user_id)
        permits = _NO_LIMIT if in_flight is None else in_flight
        rows = await connection.fetch(RELEASE, user_id=user_id, permits=permits)
    return _released(rows)


async def waiting(database: Database, among: Sequence[UUID]) -> list[UUID]:
    """Those of the users that have jobs waiting for a permit."""
    return [row["id"] for row in await database.fetch(_SQL["waiting_among"], user_ids=list(among))]


async def all_waiting(database: Database) -> list[UUID]:
    """Every user that has jobs waiting for a permit."""
    return [row["user_id"] for row in await database.fetch(WAITING_USERS)]


async def release_ownerless(database: Database) -> Released:
    return _released(await database.fetch(_SQL["release_ownerless"]))


def _released(rows: Sequence[asyncpg.Record]) -> Released:
    return Released(frozenset(row["lane"] for row in rows), frozenset((row["task_id"], row["user_id"]) for row in rows))
