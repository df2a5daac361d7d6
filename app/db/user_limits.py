"""Places of users: what they have under way, and who of their waiting jobs comes next.

Whoever gives out places or budget of a user holds the user's lock, and takes it before any row. A place is held by
every job that runs or could run, a retry included, and by the open call of a job that ended without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from app.db.fair_tags import tagging
from app.db.pool import Connection, Database
from app.domain.jobs import Lane
from app.domain.user_limits import UserLoad

_LOCK = "select pg_advisory_xact_lock(1970500978, hashtext($1::uuid::text))"  # "user" in ASCII

_IN_FLIGHT = """((
    select count(*) from jobs j where j.user_id = $1 and j.status in ('queued', 'running')
      and (j.waiting_for is null or j.waiting_for in ('retry', 'breaker'))
  ) + (
    select count(*) from provider_calls c where c.user_id = $1 and c.state in ('intent', 'submitted', 'unknown')
      and not exists (select from jobs j where j.id = c.job_id and j.status in ('queued', 'running'))
  ))"""

# a job reserves its estimate until its calls cost more
_LOAD = f"""
select {_IN_FLIGHT} as in_flight,
  (select count(*) from jobs j where j.user_id = $1 and j.status in ('queued', 'running')) as unfinished,
  (
    select coalesce(sum(coalesce(c.cost_micros, c.estimate_micros)), 0) from provider_calls c
    where c.user_id = $1 and c.created_at >= date_trunc('day', now(), 'UTC')
  )::bigint + (
    select coalesce(sum(greatest(0, j.estimate_micros - coalesce((
      select sum(coalesce(c.cost_micros, c.estimate_micros)) from provider_calls c where c.job_id = j.id), 0))), 0)
    from jobs j where j.user_id = $1 and j.status in ('queued', 'running')
  )::bigint as spent_micros,
  extract(epoch from date_trunc('day', now(), 'UTC') + interval '1 day' - now())::float8 as day_left_seconds
"""  # noqa: S608 - constants

_RELEASE = f"""
with ready as (
  select j.id, j.user_id, j.lane, j.pool, j.priority, row_number() over () as position
  from (
    select * from jobs where user_id = $1 and status = 'queued' and waiting_for = 'user_limit'
    order by priority desc, created_at, id
    limit greatest(0, $2::bigint - {_IN_FLIGHT})
    for no key update skip locked
  ) as j
), {tagging("ready")}
update jobs j set waiting_for = null, fair_tag = tagged.fair_tag from tagged where j.id = tagged.id
returning j.lane
"""  # noqa: S608 - constants

# hops from user to user: one who has thousands waiting costs one look
_WAITING_USERS = """
with recursive waiting as (
  (select user_id from jobs where status = 'queued' and waiting_for = 'user_limit' and user_id is not null
   order by user_id limit 1)
  union all
  select (select j.user_id from jobs j where j.status = 'queued' and j.waiting_for = 'user_limit'
    and j.user_id > waiting.user_id order by j.user_id limit 1)
  from waiting where waiting.user_id is not null
)
select user_id from waiting where user_id is not null
"""

# the user was deleted: nobody's limit holds these back
_RELEASE_OWNERLESS = f"""
with ready as (
  select j.id, j.user_id, j.lane, j.pool, j.priority, 1 as position from jobs j
  where j.user_id is null and j.status = 'queued' and j.waiting_for = 'user_limit'
  for no key update skip locked
), {tagging("ready")}
update jobs j set waiting_for = null, fair_tag = tagged.fair_tag from tagged where j.id = tagged.id
returning j.lane
"""  # noqa: S608 - constants

_NO_LIMIT = 2**31  # places; more than there are jobs


async def lock(connection: Connection, user_id: UUID) -> None:
    """From here to the end of the transaction nobody else gives out places or budget of this user."""
    await connection.execute(_LOCK, user_id)


async def load(connection: Connection, user_id: UUID) -> UserLoad:
    """What the user has under way; exact while the user's lock is held."""
    row = await connection.fetchrow(_LOAD, user_id)
    assert row is not None  # noqa: S101 - a select without from has one row
    return UserLoad(**dict(row))


async def release(database: Database, user_id: UUID, *, in_flight: int | None) -> frozenset[Lane]:
    """Give the user's free places to waiting jobs, the most urgent and then the oldest first; lanes to ring."""
    async with database.transaction() as connection:
        await lock(connection, user_id)
        rows = await connection.fetch(_RELEASE, user_id, _NO_LIMIT if in_flight is None else in_flight)
    return frozenset(row["lane"] for row in rows)


async def waiting(database: Database, among: Sequence[UUID]) -> list[UUID]:
    """Those of the users that have jobs waiting for a place."""
    rows = await database.fetch(
        "select u.id from unnest($1::uuid[]) as u(id) where exists (select from jobs j"
        " where j.user_id = u.id and j.status = 'queued' and j.waiting_for = 'user_limit')",
        list(among),
    )
    return [row["id"] for row in rows]


async def all_waiting(database: Database) -> list[UUID]:
    """Every user that has jobs waiting for a place."""
    return [row["user_id"] for row in await database.fetch(_WAITING_USERS)]


async def release_ownerless(database: Database) -> frozenset[Lane]:
    return frozenset(row["lane"] for row in await database.fetch(_RELEASE_OWNERLESS))
