"""Places of users: what they have under way, and who of their waiting jobs comes next.

Whoever gives out places or budget of a user holds the user's lock, and takes it before any row. A place of a
class (jobs.permit) is held by every job of it that runs or could run, a retry included, and by the open call of a job
that ended without it. Work that nobody pays for (none) takes no place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from app.db.fair_tags import tagging
from app.db.pool import Connection, Database
from app.domain.jobs import Lane
from app.domain.user_limits import UserLimits, UserLoad

_LOCK = "select pg_advisory_xact_lock(1970500978, hashtext($1::uuid::text))"  # "user" in ASCII


def _in_flight(permit: str) -> str:
    """Up to $2 of the permits of a class, by an SQL expression of its name. Only paid work makes calls."""
    return f"""(makeit3d.jobs_with_permit($1, {permit}, $2::bigint) + (
    select count(*) from makeit3d.provider_calls c where c.user_id = $1 and c.is_open and {permit} = 'paid'
      and not exists (select from makeit3d.jobs j where j.id = c.job_id and j.status in ('queued', 'running'))
  ))"""  # noqa: S608 - constants


# Only what some limit asks for is counted, and only up to that limit. A job reserves its estimate until its calls cost
# more.
LOAD = f"""
select
  case when $2::bigint is null then '{{}}' else jsonb_build_object(
    'paid', {_in_flight("'paid'")}, 'gpu', {_in_flight("'gpu'")}) end as in_flight,
  case when $3::bigint is null then 0 else makeit3d.unfinished_jobs($1, $3) end as unfinished,
  case when not $4::boolean then 0 else (
    select coalesce(sum(coalesce(c.cost_micros, c.estimate_micros)), 0) from makeit3d.provider_calls c
    where c.user_id = $1 and c.created_at >= date_trunc('day', now(), 'UTC')
  )::bigint + (
    select coalesce(sum(case when j.attempt = 0 then j.estimate_micros else greatest(0, j.estimate_micros - coalesce((
      select sum(coalesce(c.cost_micros, c.estimate_micros)) from makeit3d.provider_calls c
        where c.job_id = j.id), 0)) end), 0)
    from makeit3d.jobs j where j.user_id = $1 and j.status in ('queued', 'running')
  )::bigint end as spent_micros,
  extract(epoch from date_trunc('day', now(), 'UTC') + interval '1 day' - now())::float8 as day_left_seconds
"""  # noqa: S608 - constants

_WAKE_READY = f"""{tagging("ready")}, woken as (
  update makeit3d.jobs j set waiting_for = null, fair_tag = tagged.fair_tag from tagged where j.id = tagged.id
  returning j.lane, j.task_id, j.user_id
)
select lane, task_id, user_id from woken"""  # noqa: S608 - constants

RELEASE = f"""
with ready as (
  select j.id, j.user_id, j.lane, j.pool, j.priority, row_number() over () as position
  from (values ('paid'), ('gpu')) as class(permit) cross join lateral (
    select * from makeit3d.jobs w
    where w.user_id = $1 and w.permit = class.permit and w.status = 'queued' and w.waiting_for = 'user_limit'
    order by w.priority desc, w.created_at, w.id
    limit greatest(0, $2::bigint - {_in_flight("class.permit")})
    for no key update skip locked
  ) as j
), {_WAKE_READY}
"""  # noqa: S608 - constants

# hops from user to user: one who has thousands waiting costs one look
WAITING_USERS = """
with recursive waiting as (
  (select user_id from makeit3d.jobs where status = 'queued' and waiting_for = 'user_limit' and user_id is not null
   order by user_id limit 1)
  union all
  select (select j.user_id from makeit3d.jobs j where j.status = 'queued' and j.waiting_for = 'user_limit'
    and j.user_id > waiting.user_id order by j.user_id limit 1)
  from waiting where waiting.user_id is not null
)
select user_id from waiting where user_id is not null
"""

# the user was deleted: nobody's limit holds these back
_RELEASE_OWNERLESS = f"""
with ready as (
  select j.id, j.user_id, j.lane, j.pool, j.priority, 1 as position from makeit3d.jobs j
  where j.user_id is null and j.status = 'queued' and j.waiting_for = 'user_limit'
  for no key update skip locked
), {_WAKE_READY}
"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class Released:
    """Lanes to ring, and the (task id, user id) whose readers have news."""

    lanes: frozenset[Lane] = frozenset()
    tasks: frozenset[tuple[str, UUID | None]] = frozenset()


_NO_LIMIT = 2**31  # places; more than there are jobs


async def lock(connection: Connection, user_id: UUID) -> None:
    """From here to the end of the transaction nobody else gives out places or budget of this user."""
    await connection.execute(_LOCK, user_id)


async def load(connection: Connection, user_id: UUID, limits: UserLimits) -> UserLoad:
    """What the user has under way, as far as the limits ask; exact while the user's lock is held."""
    budget = limits.daily_budget_micros is not None
    row = await connection.fetchrow(LOAD, user_id, limits.in_flight, limits.unfinished, budget)
    assert row is not None  # noqa: S101 - a select without from has one row
    return UserLoad(**dict(row))


async def release(database: Database, user_id: UUID, *, in_flight: int | None) -> Released:
    """Give the user's free places to waiting jobs, the most urgent and then the oldest first."""
    async with database.transaction() as connection:
        await lock(connection, user_id)
        rows = await connection.fetch(RELEASE, user_id, _NO_LIMIT if in_flight is None else in_flight)
    return _released(rows)


async def waiting(database: Database, among: Sequence[UUID]) -> list[UUID]:
    """Those of the users that have jobs waiting for a place."""
    rows = await database.fetch(
        "select u.id from unnest($1::uuid[]) as u(id) cross join lateral (select from makeit3d.jobs j"
        " where j.user_id = u.id and j.status = 'queued' and j.waiting_for = 'user_limit'"
        " order by j.permit, j.priority desc, j.created_at, j.id limit 1) as head",
        list(among),
    )
    return [row["id"] for row in rows]


async def all_waiting(database: Database) -> list[UUID]:
    """Every user that has jobs waiting for a place."""
    return [row["user_id"] for row in await database.fetch(WAITING_USERS)]


async def release_ownerless(database: Database) -> Released:
    return _released(await database.fetch(_RELEASE_OWNERLESS))


def _released(rows: Sequence[asyncpg.Record]) -> Released:
    return Released(frozenset(row["lane"] for row in rows), frozenset((row["task_id"], row["user_id"]) for row in rows))
