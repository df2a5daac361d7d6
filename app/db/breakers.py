"""The circuit breaker of each provider: one row, shared by all processes.

What waits for a breaker is derived from that row by the claim, so that opening and closing cost the same whatever
waits. Lock order: pools, then providers.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import asyncpg

from app.db.pool import Database
from app.domain.breakers import BreakerState


@dataclass(frozen=True, slots=True)
class Breaker:
    """``probe_seconds`` is the time until a job may be the probe, negative when that moment is past."""

    provider: str
    state: BreakerState
    failures: int
    trips: int
    error_code: str | None
    open_seconds: float | None
    probe_seconds: float | None


_READ = """
select name as provider, state, failures, trips, error_code,
  extract(epoch from now() - opened_at)::float8 as open_seconds,
  case when state = 'open' then extract(epoch from probe_at - now())::float8 end as probe_seconds
from makeit3d.providers where name in (select provider from makeit3d.pools) and name <> 'local' order by name
"""


async def read_all(database: Database) -> list[Breaker]:
    """Of every provider that is paid."""
    return [_breaker(row) for row in await database.fetch(_READ)]


# In half_open only the probe's own failure counts: others were under way before.
_FAILED = """
with before as (
  select name, case state
      when 'closed' then $3::boolean or failures + 1 >= $4::integer
      when 'half_open' then probe_job is not distinct from $2::uuid
      else false end as opens
  from makeit3d.providers where name = $1 for no key update
)
update makeit3d.providers p set
  failures = p.failures + 1,
  state = case when b.opens then 'open' else p.state end,
  trips = p.trips + b.opens::integer,
  error_code = case when b.opens then $5::text else p.error_code end,
  opened_at = case when b.opens then coalesce(p.opened_at, now()) else p.opened_at end,
  tripped_at = case when b.opens then now() else p.tripped_at end,
  probe_at = case when b.opens
    then now() + make_interval(secs => least($7::float8, $6::float8 * 2 ^ least(p.trips, 30))) else p.probe_at end,
  probe_job = case when b.opens then null else p.probe_job end,
  updated_at = now()
from before b where p.name = b.name
returning p.state, b.opens
"""


async def failed(
    database: Database,
    provider: str,
    *,
    job_id: UUID | None,
    error_code: str,
    at_once: bool,
    threshold: int,
    cool_down_seconds: float,
    longest_seconds: float,
) -> tuple[BreakerState, bool]:
    """Count a failure of the provider: the state it leaves, and whether it opened the breaker.

    ``at_once`` opens a closed one whatever was before, else the ``threshold`` of failures in a row does.
    """
    row = await database.fetchrow(
        _FAILED, provider, job_id, at_once, threshold, error_code, cool_down_seconds, longest_seconds
    )
    return (BreakerState.CLOSED, False) if row is None else (BreakerState(row["state"]), row["opens"])


_CLOSED = """state = 'closed', failures = 0, trips = 0, error_code = null, opened_at = null, tripped_at = null,
  probe_at = null, probe_job = null, probe_attempt = null, updated_at = now()"""

_ACCEPTED = f"""
with before as (
  select name, state from makeit3d.providers where name = $1 and (failures > 0 or state <> 'closed')
    and (state = 'closed' or exists (select from makeit3d.provider_calls c where c.id = $2
      and c.created_at >= tripped_at))
  for no key update
)
update makeit3d.providers p set {_CLOSED} from before b where p.name = b.name returning b.state
"""  # noqa: S608 - constants


async def accepted(database: Database, provider: str, call_id: UUID) -> bool:
    """The provider took a call: nothing is written while all is well. Whether this closed the breaker, which a call
    that was sent before it opened does not."""
    state = await database.fetchval(_ACCEPTED, provider, call_id)
    return state is not None and state != BreakerState.CLOSED


async def postpone(database: Database, provider: str, *, job_id: UUID, seconds: float) -> None:
    """The probe was told to come again later: that is no verdict."""
    await database.execute(
        "update makeit3d.providers set state = 'open', probe_at = now() + make_interval(secs => $3), probe_job = null,"
        " updated_at = now() where name = $1 and state = 'half_open' and probe_job = $2",
        provider,
        job_id,
        seconds,
    )


async def close(database: Database, provider: str) -> bool:
    """Close it by hand; False when it was closed already or there is no such provider."""
    return bool(
        await database.execute(
            f"update makeit3d.providers set {_CLOSED} where name = $1 and state <> 'closed'",  # noqa: S608 - constants
            provider,
        )
    )


async def next_probe_seconds(database: Database) -> float | None:
    """Seconds until a breaker may be probed next; None when no such moment is to come."""
    return await database.fetchval(
        "select extract(epoch from min(probe_at) - clock_timestamp())::float8 from makeit3d.providers"
        " where state = 'open' and probe_at > clock_timestamp()"
    )


def _breaker(row: asyncpg.Record) -> Breaker:
    values = dict(row)
    values["state"] = BreakerState(values["state"])
    return Breaker(**values)
