"""The numbered event log. NOTIFY is only a hint that there is something to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from app.db.pool import Database
from app.domain.cursors import Cursor

CHANNEL = "makeit3d_events"

_JOB_COLUMNS = (
    "id", "task_id", "request_id", "user_id", "type", "step", "status", "progress", "waiting_for", "error_code"
)  # fmt: skip


def job_columns(table: str) -> str:
    """What ``job_updates`` tells of a job, to be returned by the statement that changes it."""
    return ", ".join(f"{table}.{column}" for column in _JOB_COLUMNS)


def job_updates(rows: str, *, error_code: str = "error_code") -> str:
    """A statement that tells of changed jobs, one event for each of ``rows``, which has the columns of a job. Where an
    error of an earlier attempt no longer counts, ``error_code`` is ``null``."""
    return f"insert into events (type, user_id, task_id, payload)\n  {select_job_updates(rows, error_code=error_code)}"


def select_job_updates(rows: str, *, error_code: str = "error_code") -> str:
    """Its select alone, for a statement that tells of other things too."""
    return f"""select 'job_update', user_id, task_id, jsonb_build_object('task_id', task_id, 'job_id', id,
    'request_id', request_id, 'type', type, 'step', step, 'status', status, 'progress', progress,
    'waiting_for', waiting_for, 'error_code', {error_code})
  from {rows}"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class Event:
    cursor: Cursor
    type: str
    payload: dict[str, Any]
    created_at: datetime


# The order names the table: a bare xid would be the text of the answer, and "10" comes before "9".
# Only transactions that ended before every one still running: a commit can not appear behind the reader.
AFTER = """
select xid::text as xid, id, type, payload, created_at from events
where user_id = $1 and (xid, id) > ($2::text::xid8, $3)
  and xid < pg_snapshot_xmin(pg_current_snapshot())
  and ($4::text is null or task_id = $4)
order by events.xid, events.id limit $5
"""


async def after(
    database: Database, user_id: UUID, cursor: Cursor, *, task_id: str | None, limit: int = 500
) -> list[Event]:
    rows = await database.fetch(AFTER, user_id, str(cursor.xid), cursor.id, task_id, limit)
    return [Event(Cursor(int(row["xid"]), row["id"]), row["type"], row["payload"], row["created_at"]) for row in rows]


async def now(database: Database) -> Cursor:
    """The place from which nothing that commits later is missed."""
    xmin = await database.fetchval("select pg_snapshot_xmin(pg_current_snapshot())::text")
    return Cursor(int(xmin), 0)


@dataclass(frozen=True, slots=True)
class Horizon:
    """How far the log can be read now; ``hidden`` says that the user has committed events beyond it."""

    cursor: Cursor
    hidden: bool


HORIZON = """
select pg_snapshot_xmin(pg_current_snapshot())::text as xmin, exists (
  select from events where user_id = $1 and xid >= pg_snapshot_xmin(pg_current_snapshot())) as hidden
"""


async def horizon(database: Database, user_id: UUID) -> Horizon:
    """Ask before ``after``: whatever lies below this cursor is then in its answer."""
    row = await database.fetchrow(HORIZON, user_id)
    assert row is not None  # noqa: S101 - a select without from has one row
    return Horizon(Cursor(int(row["xmin"]), 0), row["hidden"])


@dataclass(frozen=True, slots=True)
class News:
    """Who of those asked about has events since a transaction, and the transaction to ask from next time."""

    since: int
    user_ids: list[UUID]
    task_ids: list[str]


NEWS = """
select pg_snapshot_xmin(pg_current_snapshot())::text as xmin,
  array(select u from unnest($2::uuid[]) as u
    where exists (select from events e where e.user_id = u and e.xid >= $1::text::xid8)) as user_ids,
  array(select t from unnest($3::text[]) as t
    where exists (select from events e where e.task_id = t collate "C" and e.xid >= $1::text::xid8)) as task_ids
"""


async def news(database: Database, since: int, *, user_ids: Sequence[UUID], task_ids: Sequence[str]) -> News:
    """One statement for all waiting readers of a process, for when hints got lost."""
    row = await database.fetchrow(NEWS, str(since), list(user_ids), list(task_ids))
    assert row is not None  # noqa: S101 - a select without from has one row
    return News(int(row["xmin"]), row["user_ids"], row["task_ids"])


async def notify(database: Database, payloads: Sequence[str]) -> None:
    """Send hints, each under 8,000 bytes, in one transaction."""
    await database.execute("select pg_notify($1, p) from unnest($2::text[]) as p", CHANNEL, list(payloads))


async def remove_older_than(database: Database, *, days: int, limit: int = 10_000) -> int:
    return await database.execute(
        "delete from events where id in (select id from events where created_at < now() - make_interval(days => $1)"
        " order by id limit $2)",
        days,
        limit,
    )
