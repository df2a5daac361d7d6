"""The journal of paid calls, written ahead of every one. A row is fenced by its own id once it exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from app.db.pool import Database
from app.domain.jobs import Claim, Lane
from app.domain.statuses import CallState


@dataclass(frozen=True, slots=True)
class CallIntent:
    """A paid call about to be made."""

    id: UUID
    provider: str
    pool: str
    kind: str
    request_hash: str
    fingerprint: Mapping[str, Any]
    estimate_micros: int
    price_version: str
    deadline_seconds: float


@dataclass(frozen=True, slots=True)
class Call:
    id: UUID
    job_id: UUID | None
    task_id: str | None
    user_id: UUID | None
    worker_id: UUID
    attempt: int
    provider: str
    pool: str
    kind: str
    state: CallState
    fingerprint: Mapping[str, Any]
    estimate_micros: int
    provider_task_id: str | None
    provider_request_id: str | None
    error_code: str | None
    result: Mapping[str, Any] | None
    progress: int | None
    created_at: datetime
    deadline: datetime
    expired: bool  # the deadline has passed: anybody may say that the outcome is unknown
    age_seconds: float


COLUMNS = """id, job_id, task_id, user_id, worker_id, attempt, provider, pool, kind, state, fingerprint,
  estimate_micros, provider_task_id, provider_request_id, error_code, result, progress, created_at, deadline,
  deadline < now() as expired, extract(epoch from now() - created_at)::float8 as age_seconds"""

# needs a live claim, a running job and (by a unique index) no open call of that job
_INTEND = """
insert into makeit3d.provider_calls (id, job_id, task_id, user_id, attempt, worker_id, provider, pool, kind, state,
  request_hash,
  fingerprint, estimate_micros, price_version, deadline)
select $4, j.id, j.task_id, j.user_id, j.attempt, j.worker_id, $5, $6, $7, 'intent', $8, $9, $10, $11,
  now() + make_interval(secs => $12)
from makeit3d.jobs j
where j.id = $1 and j.worker_id = $2 and j.attempt = $3 and j.status = 'running'
for no key update of j
"""

# a row even where there was none: an intent that is still on its way finds its id taken
_WITHDRAW = """
insert into makeit3d.provider_calls (id, job_id, task_id, user_id, attempt, worker_id, provider, pool, kind, state,
  request_hash,
  fingerprint, estimate_micros, price_version, deadline, error_code, cost_micros, settled_at)
select $4, j.id, j.task_id, j.user_id, $3, $2, $5, $6, $7, 'refused', $8, $9, $10, $11, now(), $12, 0, now()
from makeit3d.jobs j where j.id = $1
on conflict (id) do update set state = 'refused', error_code = excluded.error_code, cost_micros = 0, settled_at = now()
  where provider_calls.state = 'intent'
"""


ON_DISK: Mapping[str, Any] = {"reply": "on disk"}  # where the result of an accepted synchronous call is


async def intend(database: Database, claim: Claim, intent: CallIntent) -> bool:
    """Commit the intent before the first byte is sent. False when the claim is lost or a call is still open."""
    try:
        return await database.execute(_INTEND, *_values(claim, intent), intent.deadline_seconds) == 1
    except asyncpg.UniqueViolationError:
        return False


async def withdraw(database: Database, claim: Claim, intent: CallIntent, *, error_code: str) -> None:
    """Close an intent of which nobody knows whether it was committed, and whose request was never sent."""
    await database.execute(_WITHDRAW, *_values(claim, intent), error_code)


def _values(claim: Claim, intent: CallIntent) -> tuple[Any, ...]:
    return (
        claim.job_id,
        claim.worker_id,
        claim.attempt,
        intent.id,
        intent.provider,
        intent.pool,
        intent.kind,
        intent.request_hash,
        dict(intent.fingerprint),
        intent.estimate_micros,
        intent.price_version,
    )


async def calls_of(database: Database, job_id: UUID) -> list[Call]:
    """All calls of a job, oldest first."""
    rows = await database.fetch(
        f"select {COLUMNS} from makeit3d.provider_calls where job_id = $1 order by created_at",  # noqa: S608 - constants
        job_id,
    )
    return [call_of(row) for row in rows]


async def by_id(database: Database, call_id: UUID) -> Call | None:
    row = await database.fetchrow(f"select {COLUMNS} from makeit3d.provider_calls where id = $1", call_id)  # noqa: S608
    return None if row is None else call_of(row)


async def kept_here(database: Database, host: str, call_ids: Sequence[UUID]) -> frozenset[Lane]:
    """The results of these calls lie on the disk of ``host``, whatever its name was when they were kept; the lanes of
    queued jobs that can run there now."""
    rows = await database.fetch(
        "update makeit3d.jobs set kept_host = $1 where kept_call = any($2) and kept_host <> $1 returning lane, status",
        host,
        list(call_ids),
    )
    return frozenset(row["lane"] for row in rows if row["status"] == "queued")


async def inherited(database: Database, job_id: UUID, kind: str) -> Call | None:
    """The call of this kind whose paid work a retried job goes on with: the newest one of the jobs whose place it
    takes, where the provider has its result or works on it."""
    row = await database.fetchrow(
        "with recursive line (id, retry_of) as (select id, retry_of from makeit3d.jobs where id = $1"  # noqa: S608
        "   union all select j.id, j.retry_of from makeit3d.jobs j join line on j.id = line.retry_of)"
        f" select * from (select {COLUMNS} from makeit3d.provider_calls"
        "   where job_id in (select id from line where id <> $1) and kind = $2 order by created_at desc limit 1) as c"
        " where provider_task_id is not null and (state = 'submitted' or (state = 'settled' and error_code is null))",
        job_id,
        kind,
    )
    return None if row is None else call_of(row)


# a job that was parked until the deadline of its intent, because its worker seemed dead, goes on with the answer
_PARKED = "jobs.status = 'queued' and jobs.waiting_for = 'retry' and jobs.error_code is null"
_UNPARK = f"""
  waiting_for = case when {_PARKED} then null else waiting_for end,
  run_after = case when {_PARKED} then null else run_after end
"""


_SUBMITTED = f"""
with c as (
  update makeit3d.provider_calls set state = 'submitted', submitted_at = now(), provider_task_id = $2,
    provider_request_id = $3, result = $4, error_code = null
  where id = $1 and state in ('intent', 'unknown') returning job_id
)
update makeit3d.jobs set calls_done = calls_done or $5, {_UNPARK} from c where jobs.id = c.job_id
"""  # noqa: S608 - constants

_REFUSED = f"""
with c as (
  update makeit3d.provider_calls set state = 'refused', error_code = $2, provider_code = $3, http_status = $4,
    cost_micros = 0, settled_at = now()
  where id = $1 and state in ('intent', 'unknown') returning job_id
)
update makeit3d.jobs set {_UNPARK} from c where jobs.id = c.job_id and {_PARKED}
"""  # noqa: S608 - constants

_UNKNOWN = f"""
with c as (
  update makeit3d.provider_calls set state = 'unknown', error_code = $2, http_status = $3
  where id = $1 and state = 'intent' returning job_id
)
update makeit3d.jobs set {_UNPARK} from c where jobs.id = c.job_id and {_PARKED}
"""  # noqa: S608 - constants


async def submitted(
    database: Database,
    call_id: UUID,
    *,
    last: bool,
    provider_task_id: str | None = None,
    provider_request_id: str | None = None,
    result: Mapping[str, Any] | None = None,
) -> bool:
    """The provider accepted: its id is in hand, or its whole reply (``result`` says where). ``last`` says that the
    job makes no further paid call. False when the call has another final word already."""
    return bool(
        await database.execute(
            _SUBMITTED,
            call_id,
            provider_task_id,
            provider_request_id,
            None if result is None else dict(result),
            last,
        )
    )


async def refused(
    database: Database, call_id: UUID, *, error_code: str, provider_code: str | None, http_status: int | None
) -> None:
    """Nothing was paid; the slot is free."""
    await database.execute(_REFUSED, call_id, error_code, provider_code, http_status)


async def abandoned_intents(database: Database, call_ids: Sequence[UUID]) -> list[UUID]:
    """Those of the calls that are mere intents of jobs that nobody runs."""
    if not call_ids:
        return []
    rows = await database.fetch(
        "select c.id from makeit3d.provider_calls c where c.id = any($1) and c.state = 'intent'"
        " and not exists (select from makeit3d.jobs j where j.id = c.job_id and j.status = 'running')",
        list(call_ids),
    )
    return [row["id"] for row in rows]


async def never_left(database: Database, call_id: UUID, *, error_code: str) -> frozenset[Lane]:
    """No byte of the call was sent: it is refused, and its job, parked because of it, waits for a slot like any other.

    Returns the lane of the job that became claimable.
    """
    rows = await database.fetch(
        "with c as (update makeit3d.provider_calls set"
        " state = 'refused', error_code = $2, cost_micros = 0, settled_at = now()"
        "   where id = $1 and state in ('intent', 'unknown') returning job_id)"
        " update makeit3d.jobs j set waiting_for = null, run_after = null, resume = j.calls_done,"
        "   seconds_left = case when j.calls_done then j.seconds_left end from c"
        " where j.id = c.job_id and j.status = 'queued' and j.resume returning j.lane",
        call_id,
        error_code,
    )
    return frozenset(row["lane"] for row in rows)


async def reply_found(database: Database, call_ids: Sequence[UUID]) -> frozenset[Lane]:
    """Jobs that wait for the answer to one of these calls, or for its host, become claimable; their lanes."""
    rows = await database.fetch(
        "update makeit3d.jobs j set waiting_for = null, run_after = null from makeit3d.provider_calls c"
        " where c.id = any($1) and c.state in ('intent', 'submitted') and j.id = c.job_id and j.status = 'queued'"
        " and j.waiting_for = 'retry' and j.error_code is null returning j.lane",
        list(call_ids),
    )
    return frozenset(row["lane"] for row in rows)


async def unknown(database: Database, call_id: UUID, *, error_code: str, http_status: int | None) -> None:
    """The request left and nobody knows what became of it; the slot stays taken."""
    await database.execute(_UNKNOWN, call_id, error_code, http_status)


async def job_is_over(database: Database, call_id: UUID) -> bool:
    """Whether nobody will ever ask for the result of the call."""
    return not await database.fetchval(
        "select exists (select from makeit3d.provider_calls c join makeit3d.jobs j on j.id = c.job_id"
        " where c.id = $1 and j.status in ('queued', 'running'))",
        call_id,
    )


async def settled(
    database: Database,
    call_id: UUID,
    *,
    cost_micros: int,
    is_estimate: bool = False,
    error_code: str | None = None,
    result: Mapping[str, Any] | None = None,
) -> bool:
    """The provider is done with the call: the cost is booked and the slot is free.

    A call that succeeded (no ``error_code``) marks its job's paid work as done when it carries a result.
    """
    return bool(
        await database.execute(
            "with c as (update makeit3d.provider_calls set state = 'settled', cost_micros = $2, cost_is_estimate = $3,"
            " error_code = $4, result = coalesce($5, result), settled_at = now(),"
            " progress = case when $4::text is null then 100 else progress end"
            " where id = $1 and is_open returning job_id, id)"
            " update makeit3d.jobs set calls_done = calls_done or ($4::text is null and $5::jsonb is not null),"
            # added here and nowhere else: a sum made by whoever ends the job may miss what is booked meanwhile
            "   cost_micros = jobs.cost_micros + $2"
            " from c where jobs.id = c.job_id",
            call_id,
            cost_micros,
            is_estimate,
            error_code,
            None if result is None else dict(result),
        )
    )


_PROGRESS = """
with p as (
  select * from unnest($1::uuid[], $2::smallint[]) as p(id, progress)
), c as (
  update makeit3d.provider_calls set progress = p.progress from p
  where provider_calls.id = p.id and coalesce(provider_calls.progress, -1) < p.progress
  returning provider_calls.job_id, p.progress
)
update makeit3d.jobs set progress = c.progress from c
where jobs.id = c.job_id and jobs.status = 'running' and jobs.progress < c.progress
"""


async def record_progress(database: Database, progress: Sequence[tuple[UUID, int]]) -> None:
    """Progress of polled calls, for their jobs and readers; one statement for all. Never backwards."""
    await database.execute(_PROGRESS, [call for call, _ in progress], [value for _, value in progress])


async def known_task_ids(database: Database, provider: str, since: datetime) -> frozenset[str]:
    rows = await database.fetch(
        "select provider_task_id from makeit3d.provider_calls"
        " where provider = $1 and provider_task_id is not null and created_at >= $2::timestamptz - interval '1 day'",
        provider,
        since,
    )
    return frozenset(row["provider_task_id"] for row in rows)


def call_of(row: asyncpg.Record) -> Call:
    values = dict(row)
    values["state"] = CallState(values["state"])
    return Call(**values)
