"""The circuit breaker of each provider: one row, shared by all processes.

What waits for a breaker is derived from that row by the claim, so that opening and closing cost the same whatever
waits. Lock order: pools, then providers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from app.db.events import job_columns, job_updates
from app.db.pool import Connection, Database
from app.db.rollup import lock_tasks, roll_up
from app.db.settle import FailedJob, fail_what_hangs_on
from app.domain.breakers import BreakerState
from app.errors import ErrorCode

_OUTAGE_MESSAGE = "The provider took no work for too long. Nothing was sent for this job since, and nothing paid."
_STRANDED_PER_ROUND = 500

# How much of a provider's (v) new work may be claimed: all, one (as the probe) or none.
GATE = """case
    when v.state is null or v.state = 'closed' then 'all'
    when v.state = 'open' and v.probe_at > clock_timestamp() then 'none'
    when v.state = 'half_open' and exists (select from jobs q
      where q.id = v.probe_job and q.status = 'running' and q.attempt = v.probe_attempt) then 'none'
    else 'one' end"""


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
from providers where name in (select provider from pools) and name <> 'local' order by name
"""


async def read_all(database: Database) -> list[Breaker]:
    """Of every provider that is paid."""
    return [_breaker(row) for row in await database.fetch(_READ)]


async def gates(connection: Connection, providers: Sequence[str]) -> dict[str, str]:
    """The gate of each provider as it is now. The row of one that is not all open stays locked until the claim commits:
    one job is the probe."""
    found = dict.fromkeys(providers, "all")
    if not providers:
        return found
    found |= await _gates(connection, providers)
    narrow = [name for name in providers if found[name] != "all"]
    if narrow:
        await connection.execute("select from providers where name = any($1) order by name for no key update", narrow)
        # a statement of its own: its snapshot must be younger than the lock
        found |= await _gates(connection, narrow)
    return found


async def _gates(connection: Connection, providers: Sequence[str]) -> dict[str, str]:
    rows = await connection.fetch(f"select v.name, {GATE} as gate from providers v where v.name = any($1)", providers)  # noqa: S608
    return {row["name"]: row["gate"] for row in rows}


async def begin_probe(connection: Connection, provider: str, *, job_id: UUID, attempt: int) -> None:
    """The claim is the provider's probe; its row is locked by ``gates``."""
    await connection.execute(
        "update providers set state = 'half_open', probe_job = $2, probe_attempt = $3, updated_at = now()"
        " where name = $1 and state <> 'closed'",
        provider,
        job_id,
        attempt,
    )


# In half_open only the probe's own failure counts: others were under way before.
_FAILED = """
with before as (
  select name, case state
      when 'closed' then $3::boolean or failures + 1 >= $4::integer
      when 'half_open' then probe_job is not distinct from $2::uuid
      else false end as opens
  from providers where name = $1 for no key update
)
update providers p set
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
  select name, state from providers where name = $1 and (failures > 0 or state <> 'closed')
    and (state = 'closed' or exists (select from provider_calls c where c.id = $2 and c.created_at >= tripped_at))
  for no key update
)
update providers p set {_CLOSED} from before b where p.name = b.name returning b.state
"""  # noqa: S608 - constants


async def accepted(database: Database, provider: str, call_id: UUID) -> bool:
    """The provider took a call: nothing is written while all is well. Whether this closed the breaker, which a call
    that was sent before it opened does not."""
    state = await database.fetchval(_ACCEPTED, provider, call_id)
    return state is not None and state != BreakerState.CLOSED


async def postpone(database: Database, provider: str, *, job_id: UUID, seconds: float) -> None:
    """The probe was told to come again later: that is no verdict."""
    await database.execute(
        "update providers set state = 'open', probe_at = now() + make_interval(secs => $3), probe_job = null,"
        " updated_at = now() where name = $1 and state = 'half_open' and probe_job = $2",
        provider,
        job_id,
        seconds,
    )


async def close(database: Database, provider: str) -> bool:
    """Close it by hand; False when it was closed already or there is no such provider."""
    return bool(
        await database.execute(
            f"update providers set {_CLOSED} where name = $1 and state <> 'closed'",  # noqa: S608 - constants
            provider,
        )
    )


async def next_probe_seconds(database: Database) -> float | None:
    """Seconds until a breaker may be probed next; None when no such moment is to come."""
    return await database.fetchval(
        "select extract(epoch from min(probe_at) - clock_timestamp())::float8 from providers"
        " where state = 'open' and probe_at > clock_timestamp()"
    )


_STRANDED = """
select j.id, j.task_id, v.error_code
from providers v join pools p on p.provider = v.name
join jobs j on j.pool = p.name and j.status = 'queued' and not j.resume
  and (j.waiting_for is null or j.waiting_for in ('retry', 'breaker'))
where v.state <> 'closed' and v.opened_at < now() - make_interval(secs => $1)
  and j.created_at < now() - make_interval(secs => $1)
limit $2
"""

_FAIL = f"""
with o as (
  select * from unnest($1::uuid[], $2::text[]) as o(id, error_code)
), ended as (
  update jobs j set status = 'failed', waiting_for = null, run_after = null, error_code = o.error_code,
    error_message = $3, finished_at = now()
  from o where j.id = o.id and j.status = 'queued' and not j.resume
  returning {job_columns("j")}
), event as (
  {job_updates("ended")}
)
select id, task_id, request_id, user_id, error_code from ended
"""  # noqa: S608 - constants


async def fail_stranded(database: Database, *, max_wait_seconds: float) -> list[tuple[str, UUID | None]]:
    """Fail jobs that an open breaker has kept waiting for longer than that, with its reason; a batch of them, as
    (task id, user id)."""
    async with database.transaction() as connection:
        stranded = await connection.fetch(_STRANDED, max_wait_seconds, _STRANDED_PER_ROUND)
        if not stranded:
            return []
        task_ids = sorted({row["task_id"] for row in stranded})
        await lock_tasks(connection, task_ids)
        rows = await connection.fetch(
            _FAIL, [row["id"] for row in stranded], [row["error_code"] for row in stranded], _OUTAGE_MESSAGE
        )
        failed = [
            FailedJob(row["id"], row["request_id"], ErrorCode.of(row["error_code"]), _OUTAGE_MESSAGE) for row in rows
        ]
        if failed:
            await fail_what_hangs_on(connection, database, failed)
            await roll_up(connection, request_ids=[job.request_id for job in failed], task_ids=task_ids)
    return [(row["task_id"], row["user_id"]) for row in rows]


def _breaker(row: asyncpg.Record) -> Breaker:
    values = dict(row)
    values["state"] = BreakerState(values["state"])
    return Breaker(**values)
