"""Liveness of worker processes and the sweep that takes back what dead ones held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from app.db.breakers import GATE
from app.db.deadlines import fail_overdue
from app.db.events import job_columns, job_updates
from app.db.pool import Connection, Database
from app.db.rollup import lock_tasks, roll_up
from app.db.settle import FailedJob, fail_what_hangs_on
from app.domain.jobs import JobTrail, JobType, Lane
from app.errors import ErrorCode

_SWEEP_LOCK = 0x73776565  # one sweep at a time in the whole installation


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    id: UUID
    name: str
    host: str
    pid: int
    lanes: tuple[Lane, ...]
    slots: int
    version: str = ""  # of the code
    job_types: tuple[JobType, ...] = ()  # the only ones that it claims


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What one sweep found. ``lanes`` have claimable work and want a bell. ``dead_workers`` are names."""

    dead_workers: tuple[str, ...]
    taken_back: tuple[JobTrail, ...]
    crashed_out: tuple[JobTrail, ...]
    overdue: tuple[JobTrail, ...]
    lanes: tuple[Lane, ...]
    tasks: frozenset[tuple[str, UUID | None]]  # (task id, user id) that readers may be waiting for


async def renew(database: Database, worker: WorkerIdentity, *, stopping: bool) -> None:
    """Say that the process lives; also registers it, so that a row lost to a sweep comes back."""
    await database.execute(
        "insert into workers (id, name, host, pid, lanes, slots, stopping, version, job_types)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
        " on conflict (id) do update set seen_at = now(), stopping = excluded.stopping",
        worker.id,
        worker.name,
        worker.host,
        worker.pid,
        list(worker.lanes),
        worker.slots,
        stopping,
        worker.version,
        list(worker.job_types),
    )


async def remove(database: Database, worker_id: UUID) -> None:
    await database.execute("delete from workers where id = $1", worker_id)


async def running_claims(database: Database, worker_id: UUID) -> set[tuple[UUID, int]]:
    """(job id, attempt) of every job whose claim is the worker's."""
    rows = await database.fetch("select id, attempt from jobs where worker_id = $1 and status = 'running'", worker_id)
    return {(row["id"], row["attempt"]) for row in rows}


_RELEASE = f"""
with released as (
  update jobs j set status = 'queued', worker_id = null, resume = j.calls_done or exists (
    select from provider_calls c where c.job_id = j.id and c.state in ('intent', 'submitted', 'unknown'))
  from unnest($2::uuid[], $3::integer[]) as c(id, attempt)
  where j.id = c.id and j.attempt = c.attempt and j.worker_id = $1 and j.status = 'running'
  returning {job_columns("j")}
), event as (
  {job_updates("released", error_code="null")}
)
select task_id, request_id from released
"""  # noqa: S608 - constants


async def release(database: Database, worker_id: UUID, claims: Sequence[tuple[UUID, int]]) -> int:
    """Queue jobs again that the worker holds without knowing: the claim's answer never reached it. How many."""
    jobs, attempts = [job for job, _ in claims], [attempt for _, attempt in claims]
    async with database.transaction() as connection:
        held = await connection.fetch("select task_id from jobs where id = any($1::uuid[])", jobs)
        await lock_tasks(connection, [row["task_id"] for row in held])
        rows = await connection.fetch(_RELEASE, worker_id, jobs, attempts)
        await roll_up(
            connection,
            request_ids=[row["request_id"] for row in rows],
            task_ids=[row["task_id"] for row in rows],
        )
    return len(rows)


_DEAD = "delete from workers where seen_at < now() - make_interval(secs => $1) returning name"

# jobs of workers that are gone, one way or another
_LOST = """
select j.id, j.task_id from jobs j
where j.status = 'running' and not exists (select from workers w where w.id = j.worker_id)
  and j.started_at < now() - interval '1 second'
order by j.task_id, j.id limit 500
"""

# An intent that another process may still answer parks the job until the call's deadline. Of the runs that crashes
# leave to a job, the last two are alone, not more: whoever is alone keeps a whole process busy.
_TAKE_BACK = f"""
with taken as (
  update jobs j set
    status = case when j.crashes + 1 >= $2 then 'failed' else 'queued' end,
    worker_id = null,
    crashes = j.crashes + 1,
    alone = j.crashes + 1 >= greatest(2, $2 - 2),
    resume = j.crashes + 1 < $2 and (j.calls_done or c.id is not null),
    waiting_for = case when j.crashes + 1 < $2 and c.state = 'intent' and c.deadline > now() then 'retry' end,
    run_after = case when j.crashes + 1 < $2 and c.state = 'intent' and c.deadline > now() then c.deadline end,
    error_code = case when j.crashes + 1 >= $2 then $3::text else j.error_code end,
    error_message = case when j.crashes + 1 >= $2 then $4::text else j.error_message end,
    finished_at = case when j.crashes + 1 >= $2 then now() end
  from jobs k left join provider_calls c on c.job_id = k.id and c.state in ('intent', 'submitted', 'unknown')
  where k.id = j.id and j.id = any($1::uuid[]) and j.status = 'running'
    and not exists (select from workers w where w.id = j.worker_id)
  returning {job_columns("j")}, j.trace_id
), event as (
  {job_updates("taken")}
)
select * from taken
"""  # noqa: S608 - constants

_PROMOTE_DUE = f"""
with due as (
  select id from jobs where status = 'queued' and run_after <= now()
  order by run_after limit 5000 for no key update skip locked
), woken as (
  update jobs j set waiting_for = null, run_after = null from due where j.id = due.id returning {job_columns("j")}
), told as (
  {job_updates("woken")}
)
select distinct task_id, user_id from woken
"""  # noqa: S608 - constants

CLAIMABLE_LANES = f"""
select l.name as lane from unnest(array['priority', 'normal']) as l(name)
where exists (
  select from pools p left join providers v on v.name = p.provider cross join lateral (
    select from jobs j where j.status = 'queued' and j.waiting_for is null and not j.resume
      and j.lane = l.name and j.pool = p.name
    order by j.priority desc, j.fair_tag, j.id limit 1) as head
  where {GATE} <> 'none')
  or exists (select from jobs j where j.status = 'queued' and j.waiting_for is null and j.resume and j.lane = l.name)
"""  # noqa: S608 - constants


async def promote_due(database: Database) -> frozenset[tuple[str, UUID | None]]:
    """Make jobs claimable whose waiting time is over; the (task id, user id) whose readers have news."""
    return frozenset((row["task_id"], row["user_id"]) for row in await database.fetch(_PROMOTE_DUE))


async def next_due_seconds(database: Database) -> float | None:
    """Seconds until the next waiting job is due; None when none waits for a time."""
    value = await database.fetchval(
        "select extract(epoch from min(run_after) - clock_timestamp())::float8 from jobs"
        " where status = 'queued' and run_after is not null"
    )
    return None if value is None else max(0.0, value)


async def sweep(
    database: Database, *, ttl_seconds: float, max_crashes: int, may_bury: Callable[[], bool] = lambda: True
) -> SweepResult | None:
    """One round of housekeeping; None when another process is at it. Safe to repeat at any moment.

    ``may_bury`` says whether workers that were not seen for ``ttl_seconds`` are dead.
    """
    async with database.transaction() as connection:
        its_turn = await connection.fetchval("select pg_try_advisory_xact_lock($1)", _SWEEP_LOCK)
        bury = may_bury()  # not before: the database may have been silent until this very answer
        if not its_turn:
            return None
        dead = await connection.fetch(_DEAD, ttl_seconds) if bury else []
        taken = await _take_back(connection, database, max_crashes)
        # a process that lives may still end its own
        overdue = await fail_overdue(connection, database, patience_seconds=ttl_seconds)
        due = await connection.fetch(_PROMOTE_DUE)
        lanes = await connection.fetch(CLAIMABLE_LANES)
    return SweepResult(
        dead_workers=tuple(row["name"] for row in dead),
        taken_back=tuple(_trail(row) for row in taken if row["status"] == "queued"),
        crashed_out=tuple(_trail(row) for row in taken if row["status"] == "failed"),
        overdue=tuple(_trail(row) for row in overdue),
        lanes=tuple(row["lane"] for row in lanes),
        tasks=frozenset((row["task_id"], row["user_id"]) for row in (*overdue, *taken, *due)),
    )


def _trail(row: asyncpg.Record) -> JobTrail:
    return JobTrail(row["id"], row["task_id"], row["request_id"], row["trace_id"])


async def _take_back(connection: Connection, database: Database, max_crashes: int) -> list[asyncpg.Record]:
    lost = await connection.fetch(_LOST)
    if not lost:
        return []
    await lock_tasks(connection, [row["task_id"] for row in lost])
    error, message = ErrorCode.WORKER_CRASHED, "Worker processes died repeatedly while they ran this job."
    rows = await connection.fetch(_TAKE_BACK, [row["id"] for row in lost], max_crashes, error.code, message)
    failed = [FailedJob(row["id"], row["request_id"], error, message) for row in rows if row["status"] == "failed"]
    if failed:
        await fail_what_hangs_on(connection, database, failed)
    await roll_up(
        connection,
        request_ids=[row["request_id"] for row in rows],
        task_ids=[row["task_id"] for row in rows],
    )
    return rows
