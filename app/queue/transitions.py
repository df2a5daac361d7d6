"""The only place where the status of a job changes.

Lock order, for everybody: a user's advisory lock, pools by name, providers by name, tasks by id, jobs, outputs and
files, then what participants lock. A claim skips locked tasks and jobs and never waits for them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

import asyncpg

from app.db.assets import UnknownUser
from app.db.pool import Connection, Database
from app.db.sql import Statement
from app.domain.jobs import Claim, Item, ItemEnd, Lane, Settlement
from app.domain.statuses import JobStatus
from app.domain.user_limits import NO_LIMITS, UserLimits
from app.errors import AppError, ErrorCode
from app.queue import permits
from app.queue.accept import Accepted, Acceptor, DuplicateRequest, StoredRequest, accepted_row
from app.queue.apply import Follower
from app.queue.claims import ClaimResult, claim_result
from app.queue.contracts import Changed, Committed, Participants, Refused, Transition, Tx
from app.queue.follow_ups import FollowUpPlanner, FollowUps
from app.queue.plans import RequestPlan
from app.queue.runs import RunEnd, item_rows
from app.queue.statements import Statements

OVERDUE_MESSAGE = "The job took longer than it may. What it paid for is followed to its end."
NOT_RECORDED_MESSAGE = "The result could not be recorded."
_CRASHED_MESSAGE = "Worker processes died repeatedly while they ran this job."
_OUTAGE_MESSAGE = "The provider took no work for too long. Nothing was sent for this job since, and nothing paid."
_AT_A_TIME = 500

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LookUp:
    """What is known before a request is accepted."""

    task_is_foreign: bool
    existing: StoredRequest | None


@dataclass(frozen=True, slots=True)
class Canceled:
    """``pools`` of the jobs that ended."""

    pools: tuple[str, ...]
    committed: Committed


@dataclass(frozen=True, slots=True)
class Finished:
    """What a batch of finished runs changed. A job that is not in ``jobs`` had lost its lease: nothing was written
    for it."""

    jobs: frozenset[UUID]
    committed: Committed


class Queue:
    """Every way in which a job changes. What follows a change is the same for all of them."""

    def __init__(
        self,
        database: Database,
        participants: Participants,
        *,
        limits: UserLimits = NO_LIMITS,
        follow_ups: FollowUpPlanner | None = None,
    ) -> None:
        """``limits`` are those of every user; who accepts says by which of them. Only a process that completes jobs
        needs ``follow_ups``."""
        limited = limits.in_flight is not None
        self.database = database
        self.participants = participants
        self.statements = Statements(database.tables)
        self._acceptor = Acceptor(self.statements, participants)
        follow = FollowUps(self._acceptor, follow_ups, limited=limited)
        self._follower = Follower(self.statements, participants, self._acceptor, follow, limited=limited)

    # --- accept ---------------------------------------------------------------------------------------------

    async def accept(self, plan: RequestPlan, limits: UserLimits = NO_LIMITS) -> Accepted:
        """Write the request, or nothing; in one round trip where neither limits, participants nor other tasks have a
        say.

        Raises TaskOwnedByAnother, DuplicateRequest, UnknownUser, and AppError: USER_LIMIT, USER_BUDGET_EXCEEDED,
        DEPENDENCY_NOT_FOUND, DEPENDENCY_FAILED and what participants refuse with. Raises ValueError for an asset of a
        kind that is not registered.
        """
        if unknown := {asset.kind for asset in plan.assets if asset.kind not in self.database.tables.kinds}:
            raise ValueError(f"there is no kind of assets {', '.join(sorted(unknown))}")
        try:
            if limits.any or plan.participants or plan.depends_on:
                accepted, _ = await self.in_transaction(lambda tx: self._accept_within(tx, plan, limits))
                return accepted
            row = await self.database.fetchrow(self.statements.accept, **plan.arguments(None))
            return accepted_row(row, plan, Committed())
        except Refused as refused:
            raise AppError(refused.code, refused.detail, refused.retry_after, refused.extra) from refused
        except asyncpg.UniqueViolationError as error:
            if _constraint(error) in ("requests_idempotency", "requests_retry"):
                raise DuplicateRequest from None
            raise
        except asyncpg.ForeignKeyViolationError as error:
            if _constraint(error).endswith("user_id_fkey"):
                raise UnknownUser from None
            raise

    async def _accept_within(self, tx: Tx, plan: RequestPlan, limits: UserLimits) -> Accepted:
        free = None
        if limits.any:
            # one after the other for each user: what the last one took is seen by the next
            await permits.lock(tx.connection, plan.user_id)
            load = await permits.load_of(tx.connection, plan.user_id, limits)
            free = load.admit(limits, jobs=len(plan.jobs), estimate_micros=plan.estimate_micros)
        return await self._acceptor.accept(tx, plan, free)

    async def look_up(self, *, task_id: str, user_id: UUID, scope: str, idempotency_key: str) -> LookUp:
        """Whether the task belongs to somebody else, and the live request under the key, if there is one."""
        row = await self.database.fetchrow(
            self.statements.look_up, task_id=task_id, user_id=user_id, scope=scope, idempotency_key=idempotency_key
        )
        assert row is not None  # noqa: S101 - the statement has one row
        existing = None
        if row["id"] is not None:
            existing = StoredRequest(row["id"], row["task_id"], row["job_id"], row["body_hash"], row["status"])
        return LookUp(row["task_is_foreign"], existing)

    # --- claim ----------------------------------------------------------------------------------------------

    async def claim(
        self,
        *,
        worker_id: UUID,
        lanes: Sequence[Lane],
        limit: int,
        types: Collection[str],
        host: str = "",
        time_limits: Mapping[str, float] | None = None,
    ) -> ClaimResult:
        """Claim up to ``limit`` jobs of the lanes, in order of the lanes, for a worker that handles ``types``; one that
        runs alone is claimed alone. ``host`` is the worker's: what is kept on its disk runs there. ``time_limits`` are
        in seconds, by job type; a type without one has none. One round trip."""
        rows = await self.database.fetch(
            self.statements.claim,
            worker_id=worker_id,
            lanes=list(lanes),
            types=list(types),
            most=limit,
            host=host,
            time_limits=dict(time_limits or {}),
        )
        return claim_result(rows)

    # --- finish and requeue -----------------------------------------------------------------------------------

    async def finish(self, runs: Sequence[Settlement]) -> Finished:
        """Write how the runs ended, all in one transaction. Stale leases change nothing."""
        ends = [RunEnd.of(run) for run in runs]
        return Finished(*await self.in_transaction(lambda tx: self.finish_within(tx, ends)))

    async def finish_within(self, tx: Tx, ends: Sequence[RunEnd]) -> frozenset[UUID]:
        """The jobs that were finished or requeued."""
        await self.lock_tasks(tx, {task_id for end in ends for task_id in end.task_ids})
        by_job = {end.job_id: end for end in ends}
        rows = await tx.connection.fetch(self.statements.finish_jobs, runs=[end.columns for end in by_job.values()])
        changed = [_finished(row) for row in rows]
        live = [by_job[job.job_id] for job in changed]
        await self._follower.apply(
            tx,
            changed,
            files=[file for end in live for file in end.files],
            missing=[missing for end in live for missing in end.missing],
            items=[item for end in live for item in end.items],
            follow_ups={end.job_id: end.follow_ups for end in live},
        )
        # the next attempt waits, and its slot does not
        tx.committed.capacity |= {row["changed"]["pool"] for row in rows if row["freed"]}
        return frozenset(job.job_id for job in changed)

    async def keep_end(self, run: Settlement) -> None:
        """Keep how a run ended that cannot be written: the lease stays, and maintenance tries again."""
        lease = run.job.claim
        await self.database.execute(
            self.statements.keep_end,
            job_id=lease.job_id,
            worker_id=lease.worker_id,
            attempt=lease.attempt,
            stuck=RunEnd.of(run).as_json(),
        )

    # --- progress and items ---------------------------------------------------------------------------------

    async def record_progress(self, lease: Claim, *, percent: int, done: int, total: int) -> Committed | None:
        """What the handler says of its progress; None when the lease is lost."""
        statement = self.statements.record_progress
        return await self._by_lease(statement, lease, percent=percent, done=done, total=total)

    async def add_items(self, lease: Claim, keys: Sequence[str]) -> Committed | None:
        """What the job works through, in order; None when the lease is lost."""
        return await self._by_lease(self.statements.add_items, lease, keys=list(keys))

    async def pending_items(self, job_id: UUID, *, after: int, most: int) -> list[Item]:
        """Those behind a position that no run of the job has ended."""
        rows = await self.database.fetch(self.statements.pending_items, job_id=job_id, after=after, most=most)
        return [Item(row["key"], row["position"]) for row in rows]

    async def record_items(self, lease: Claim, items: Sequence[ItemEnd]) -> Committed | None:
        """Items of a running job that ended, with their events and the job's progress; None when the lease is lost."""
        return await self._by_lease(self.statements.record_items, lease, items=item_rows(items))

    async def _by_lease(self, statement: Statement, lease: Claim, **values: object) -> Committed | None:
        row = await self.database.fetchrow(
            statement, job_id=lease.job_id, worker_id=lease.worker_id, attempt=lease.attempt, **values
        )
        return None if row is None else Committed(tasks={(row["task_id"], row["user_id"])})

    async def requeue(self, worker_id: UUID, leases: Sequence[tuple[UUID, int]]) -> Committed:
        """Queue jobs again that the worker holds without knowing: the claim's answer never reached it. By job id and
        attempt."""
        ids = [job_id for job_id, _ in leases]

        async def write(tx: Tx) -> None:
            tasks = await tx.connection.fetch(self.statements.tasks_of, job_ids=ids)
            await self.lock_tasks(tx, [row["task_id"] for row in tasks])
            rows = await tx.connection.fetch(
                self.statements.requeue_jobs,
                worker_id=worker_id,
                job_ids=ids,
                attempts=[attempt for _, attempt in leases],
            )
            await self._follower.apply(tx, _changed(rows, Transition.REQUEUE))

        _, committed = await self.in_transaction(write)
        return committed

    # --- cancel and erase -------------------------------------------------------------------------------------

    async def cancel(self, task_id: str, user_id: UUID) -> Canceled | None:
        """End all unfinished jobs and outputs of the task at once. Open provider calls stay open: they are polled on
        and their cost is recorded. None when the task is not the user's."""

        async def write(tx: Tx) -> list[Changed] | None:
            if await tx.connection.fetchval(self.statements.lock_own_task, task_id=task_id, user_id=user_id) is None:
                return None
            return await self._end(tx, [task_id], Transition.CANCEL)

        jobs, committed = await self.in_transaction(write)
        return None if jobs is None else Canceled(tuple(sorted({job.pool for job in jobs})), committed)

    async def erase(self, user_id: UUID) -> Committed:
        """End everything unfinished of a user whose rows are about to be erased."""

        async def write(tx: Tx) -> int:
            rows = await tx.connection.fetch(self.statements.unfinished_tasks_of, user_id=user_id, most=_AT_A_TIME)
            tasks = [row["id"] for row in rows]
            await self.lock_tasks(tx, tasks)
            await self._end(tx, tasks, Transition.ERASE)
            return len(tasks)

        committed, ended = Committed(), _AT_A_TIME
        while ended == _AT_A_TIME:
            ended, told = await self.in_transaction(write)
            committed.add(told)
        return committed

    async def _end(self, tx: Tx, task_ids: Sequence[str], by: Transition) -> list[Changed]:
        rows = await tx.connection.fetch(
            self.statements.cancel_jobs, task_ids=list(task_ids), error_code=ErrorCode.CANCELED.code
        )
        return await self._follower.apply(tx, _changed(rows, by))

    # --- expire -----------------------------------------------------------------------------------------------

    async def expire_leases(self, tx: Tx, lost: Sequence[UUID], *, max_crashes: int) -> list[Changed]:
        """Take running jobs back from workers that are gone: those that were there at too many crashes fail. The caller
        holds the locks of their tasks."""
        rows = await tx.connection.fetch(
            self.statements.expire_leases,
            job_ids=list(lost),
            max_crashes=max_crashes,
            error_code=ErrorCode.WORKER_CRASHED.code,
            error_message=_CRASHED_MESSAGE,
        )
        return await self._follower.apply(tx, _changed(rows, Transition.EXPIRE))

    async def expire_deadlines(self, tx: Tx, overdue: Sequence[UUID], *, patience_seconds: float) -> list[Changed]:
        """Fail running jobs whose deadline passed that long ago. Open calls stay open: they are polled on and their
        cost is recorded. The caller holds the locks of their tasks."""
        rows = await tx.connection.fetch(
            self.statements.expire_deadlines,
            job_ids=list(overdue),
            patience_seconds=patience_seconds,
            error_code=ErrorCode.DEADLINE_EXCEEDED.code,
            error_message=OVERDUE_MESSAGE,
        )
        return await self._follower.apply(tx, _changed(rows, Transition.EXPIRE))

    async def expire_stuck(self, tx: Tx, stuck: Sequence[UUID]) -> list[Changed]:
        """Fail running jobs whose kept end cannot be written. The caller holds the locks of their tasks."""
        rows = await tx.connection.fetch(
            self.statements.expire_stuck,
            job_ids=list(stuck),
            error_code=ErrorCode.INTERNAL_ERROR.code,
            error_message=NOT_RECORDED_MESSAGE,
        )
        return await self._follower.apply(tx, _changed(rows, Transition.EXPIRE))

    async def expire_stranded(self, tx: Tx, stranded: Sequence[UUID]) -> list[Changed]:
        """Fail jobs that an open breaker has kept waiting for too long, with its reason. The caller holds the locks of
        their tasks."""
        rows = await tx.connection.fetch(
            self.statements.expire_stranded, job_ids=list(stranded), error_message=_OUTAGE_MESSAGE
        )
        return await self._follower.apply(tx, _changed(rows, Transition.EXPIRE))

    async def expire_unstarted(self, tx: Tx, unstarted: Sequence[UUID]) -> list[Changed]:
        """Fail jobs of requests that were not started in time. The caller holds the locks of their tasks."""
        rows = await tx.connection.fetch(
            self.statements.expire_unstarted,
            job_ids=list(unstarted),
            error_code=ErrorCode.EXPIRED.code,
            error_message=ErrorCode.EXPIRED.title,
        )
        return await self._follower.apply(tx, _changed(rows, Transition.EXPIRE))

    # --- dependents -------------------------------------------------------------------------------------------

    async def advance_dependents(
        self, tx: Tx, task_ids: Collection[str], dependents: Collection[str], *, limited: bool
    ) -> None:
        """Tell the dependents of what ended in the tasks: they start, or fail. Where there are limits, they wait for a
        permit first. The caller holds the locks of all of these tasks."""
        rows = await tx.connection.fetch(
            self.statements.advance_dependents,
            task_ids=sorted(task_ids),
            dependents=sorted(dependents),
            limited=limited,
            error_code=ErrorCode.DEPENDENCY_FAILED.code,
        )
        for row in rows:
            if row["task_id"] is not None:
                tx.committed.tasks.add((row["task_id"], row["user_id"]))
                if row["needs_permit"]:
                    tx.committed.users.add(row["user_id"])
                else:
                    tx.committed.lanes.add(row["lane"])
        ended = [row for row in rows if row["changed"] is not None]
        await self._follower.apply(tx, _changed(ended, Transition.FAIL_DEPENDENTS))

    # --- shared -----------------------------------------------------------------------------------------------

    async def in_transaction(self, work: Callable[[Tx], Awaitable[T]]) -> tuple[T, Committed]:
        """What ``work`` returns, and whom it tells. After a deadlock, which changed nothing, it is run again."""

        async def within(connection: Connection) -> tuple[T, Committed]:
            tx = Tx(connection, Committed())
            return await work(tx), tx.committed

        return await self.database.in_transaction(within)

    async def lock_tasks(self, tx: Tx, task_ids: Collection[str]) -> None:
        await tx.connection.execute(self.statements.lock_tasks, task_ids=sorted(set(task_ids)))


def _changed(rows: Sequence[asyncpg.Record], by: Transition) -> list[Changed]:
    return [Changed.from_json(row["changed"], by) for row in rows]


def _finished(row: asyncpg.Record) -> Changed:
    again = row["changed"]["new"] == JobStatus.QUEUED
    return Changed.from_json(row["changed"], Transition.REQUEUE if again else Transition.FINISH)


def _constraint(error: asyncpg.IntegrityConstraintViolationError) -> str:
    return str(getattr(error, "constraint_name", None) or "")  # set by asyncpg from the server's message
