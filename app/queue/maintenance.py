"""Rounds of maintenance that end or requeue jobs. Safe to repeat at any moment, by any process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg
import structlog
from prometheus_client import Counter

from app.db import workers
from app.db.pool import UNREACHABLE
from app.db.sql import load
from app.domain.jobs import JobTrail
from app.domain.statuses import JobStatus
from app.queue import waits
from app.queue.contracts import Changed, Committed, Transition, Tx
from app.queue.runs import RunEnd
from app.queue.transitions import Queue

log = structlog.get_logger(__name__)

STUCK = Counter("makeit3d_finish_stuck_total", "Ends of jobs that could not be written; maintenance tries again")

_SQL = load(__file__)
_AT_A_TIME = 500
_BATCHES = 10  # of what may be many, in a round


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What one round found. ``dead_workers`` are names."""

    dead_workers: tuple[str, ...]
    rescued: tuple[JobTrail, ...]
    dead_lettered: tuple[JobTrail, ...]
    overdue: tuple[JobTrail, ...]
    unstarted: tuple[JobTrail, ...]  # jobs whose time to start in was over
    unstuck: int  # jobs whose end could not be written before
    committed: Committed


async def sweep(
    queue: Queue, *, ttl_seconds: float, max_crashes: int, may_expire_leases: Callable[[], bool] = lambda: True
) -> SweepResult | None:
    """One round of housekeeping; None when another process begins one just now. Rounds may overlap: what they end or
    requeue is judged anew under the locks of its tasks.

    ``may_expire_leases`` says whether workers that were not seen for ``ttl_seconds`` are dead.
    """

    async def begin(tx: Tx) -> list[str] | None:
        its_turn = await tx.connection.fetchval(_SQL["begin_round"])
        expire = may_expire_leases()  # not before: the database may have been silent until this very answer
        if not its_turn:
            return None
        dead = await workers.remove_dead(tx.connection, ttl_seconds=ttl_seconds) if expire else []
        tx.committed.tasks |= await waits.promote_due(tx.connection)
        tx.committed.lanes |= await waits.claimable_lanes(tx.connection)
        return dead

    dead, committed = await queue.in_transaction(begin)
    if dead is None:
        return None

    database, statements = queue.database, queue.statements
    lost_jobs = await database.fetch(statements.lost_jobs, most=_AT_A_TIME)
    taken = await _expire(
        queue, committed, lost_jobs, lambda tx, ids: queue.expire_leases(tx, ids, max_crashes=max_crashes)
    )
    # a process that lives may still end its own
    overdue_jobs = await database.fetch(statements.overdue_jobs, patience_seconds=ttl_seconds, most=_AT_A_TIME)
    overdue = await _expire(
        queue, committed, overdue_jobs, lambda tx, ids: queue.expire_deadlines(tx, ids, patience_seconds=ttl_seconds)
    )
    unstarted: list[Changed] = []
    for _ in range(_BATCHES):
        unstarted_jobs = await database.fetch(statements.unstarted_jobs, most=_AT_A_TIME)
        expired = await _expire(queue, committed, unstarted_jobs, queue.expire_unstarted)
        unstarted += expired
        if len(expired) < _AT_A_TIME:
            break
    return SweepResult(
        dead_workers=tuple(dead),
        rescued=tuple(_trail(job) for job in taken if job.new is JobStatus.QUEUED),
        dead_lettered=tuple(_trail(job) for job in taken if job.new is JobStatus.FAILED),
        overdue=tuple(_trail(job) for job in overdue),
        unstarted=tuple(_trail(job) for job in unstarted),
        unstuck=await _end_stuck(queue, committed),
        committed=committed,
    )


async def expire_stranded(queue: Queue, *, max_wait_seconds: float) -> tuple[list[Changed], Committed]:
    """Fail jobs that an open breaker has kept waiting for longer than that; a batch of them."""
    committed = Committed()
    found = await queue.database.fetch(
        queue.statements.stranded_jobs, max_wait_seconds=max_wait_seconds, most=_AT_A_TIME
    )
    return await _expire(queue, committed, found, queue.expire_stranded), committed


async def advance_dependents(queue: Queue, *, limited: bool, task_ids: Collection[str] | None = None) -> Committed:
    """Tell those who wait for requests of these tasks (None: of any) that ended, and then those who wait for them: one
    level a transaction. ``limited``: permits of users are limited.

    It stops after some transactions, so that a long line holds nothing else up: what is left is in ``dependents``.
    """
    committed = Committed()
    wanted = None if task_ids is None else set(task_ids)
    stuck: set[str] = set()
    for _ in range(_BATCHES):
        rows = await queue.database.fetch(
            queue.statements.pending_dependents,
            task_ids=None if wanted is None else sorted(wanted),
            without=sorted(stuck),
            most=_AT_A_TIME,
        )
        if not rows:
            committed.dependents.clear()
            return committed
        pairs = [(row["task_id"], row["dependent"]) for row in rows]
        try:
            told = await _advance(queue, pairs, limited=limited)
        except UNREACHABLE:
            raise
        except Exception:
            log.exception("advance_batch_failed", dependents=len(pairs))
            told = Committed()
            for pair in pairs:
                try:
                    told.add(await _advance(queue, [pair], limited=limited))
                except UNREACHABLE:
                    raise
                except Exception:
                    STUCK.inc()
                    log.exception("advance_failed", task_id=pair[1], depends_on=pair[0])
                    stuck.add(pair[0])
        committed.add(told)
        if wanted is not None:
            wanted = told.dependents if len(rows) < _AT_A_TIME else (wanted | told.dependents) - stuck
    if wanted is not None:
        committed.dependents = wanted
    return committed


async def _advance(queue: Queue, pairs: Sequence[tuple[str, str | None]], *, limited: bool) -> Committed:
    tasks, dependents = {task for task, _ in pairs}, {dependent for _, dependent in pairs if dependent is not None}

    async def write(tx: Tx) -> None:
        await queue.lock_tasks(tx, tasks | dependents)
        await queue.advance_dependents(tx, tasks, dependents, limited=limited)

    _, committed = await queue.in_transaction(write)
    return committed


async def _expire(
    queue: Queue,
    committed: Committed,
    found: Sequence[asyncpg.Record],
    expire: Callable[[Tx, Sequence[UUID]], Awaitable[list[Changed]]],
) -> list[Changed]:
    """Expire what was found, in one transaction. Where something in it can not be written, each job on its own. Only
    what expired is told, not the steps that waited for it and failed with it."""
    if not found:
        return []
    try:
        return await _expire_batch(queue, committed, found, expire)
    except UNREACHABLE:
        raise
    except Exception:
        log.exception("expire_batch_failed", jobs=len(found))
    changed: list[Changed] = []
    for row in found:
        changed += await _expire_alone(queue, committed, row, expire)
    return changed


async def _expire_alone(
    queue: Queue,
    committed: Committed,
    row: asyncpg.Record,
    expire: Callable[[Tx, Sequence[UUID]], Awaitable[list[Changed]]],
) -> list[Changed]:
    try:
        return await _expire_batch(queue, committed, [row], expire)
    except UNREACHABLE:
        raise
    except Exception:
        STUCK.inc()
        log.exception("expire_failed", job_id=str(row["id"]))
        return []


async def _expire_batch(
    queue: Queue,
    committed: Committed,
    found: Sequence[asyncpg.Record],
    expire: Callable[[Tx, Sequence[UUID]], Awaitable[list[Changed]]],
) -> list[Changed]:
    async def write(tx: Tx) -> list[Changed]:
        await queue.lock_tasks(tx, [row["task_id"] for row in found])
        return await expire(tx, [row["id"] for row in found])

    changed, told = await queue.in_transaction(write)
    committed.add(told)
    return [job for job in changed if job.by is Transition.EXPIRE]


async def _end_stuck(queue: Queue, committed: Committed) -> int:
    """Write the ends that are kept, as they were, or else as failures; how many could be."""
    found = await queue.database.fetch(queue.statements.stuck_jobs, most=_AT_A_TIME)
    ended = 0
    for row in found:
        if (status := await _end_one_stuck(queue, committed, row)) is not None:
            ended += 1
            log.warning("stuck_end_written", job_id=str(row["id"]), task_id=row["task_id"], status=status)
    return ended


async def _end_one_stuck(queue: Queue, committed: Committed, row: asyncpg.Record) -> str | None:
    """The status that was written; None where none was."""
    try:
        kept = RunEnd.from_json(row["stuck"])  # an older version may have kept it
        done, told = await queue.in_transaction(lambda tx: queue.finish_within(tx, [kept]))
        committed.add(told)
    except asyncpg.QueryCanceledError:  # it takes the server too long: nothing else has to wait for that
        log.exception("finish_failed_again", job_id=str(row["id"]))
        return None
    except UNREACHABLE:
        raise
    except Exception:
        log.exception("finish_failed_again", job_id=str(row["id"]))
        return JobStatus.FAILED if await _expire_alone(queue, committed, row, queue.expire_stuck) else None
    return kept.columns["status"] if done else None


def _trail(job: Changed) -> JobTrail:
    return JobTrail(job.job_id, job.task_id, job.request_id, job.trace_id)
