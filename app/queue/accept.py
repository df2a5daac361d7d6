"""A request is written within a transaction: its own, or the one that finishes the job which asked for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import asyncpg

from app.queue import dependencies
from app.queue.contracts import (
    AcceptedJob,
    AcceptedRequest,
    Changed,
    Committed,
    Participants,
    Refused,
    Transition,
    Tx,
)
from app.queue.plans import RequestPlan
from app.queue.statements import Statements


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """A request that was accepted before under the same key."""

    id: UUID
    task_id: str
    job_id: UUID
    body_hash: str
    status: str


class TaskOwnedByAnother(Exception):
    """The task id belongs to another user; nothing was written."""


class DuplicateRequest(Exception):
    """The idempotency key is taken; nothing was written. ``existing`` has it; it is None where the other request was
    accepted in this very moment."""

    def __init__(self, existing: StoredRequest | None = None) -> None:
        super().__init__("the key is taken")
        self.existing = existing


@dataclass(frozen=True, slots=True)
class Accepted:
    """``waits``: a job of it waits for a permit of the user."""

    waits: bool
    committed: Committed


class Acceptor:
    def __init__(self, statements: Statements, participants: Participants) -> None:
        self._statements = statements
        self._participants = participants

    async def accept(self, tx: Tx, plan: RequestPlan, permits: Mapping[str, int] | None) -> Accepted:
        """Write the request; ``permits`` is how many jobs of each class may start now, None: all that can.

        Raises TaskOwnedByAnother, DuplicateRequest, AppError: DEPENDENCY_NOT_FOUND, DEPENDENCY_FAILED, and what a
        participant raises: then the transaction is to be rolled back.
        """
        accepted = await self.write(tx, plan, permits)
        await self.tell(tx, plan.as_accepted(), plan.jobs_by_participant())
        return accepted

    async def write(self, tx: Tx, plan: RequestPlan, permits: Mapping[str, int] | None) -> Accepted:
        """As ``accept``, and no participant hears of it."""
        connection = tx.connection
        waits_for = await dependencies.lock(connection, self._statements, plan) if plan.depends_on else []
        blocked = not all(one.met for one in waits_for)
        row = await connection.fetchrow(self._statements.accept, **plan.arguments(permits, blocked=blocked))
        accepted = accepted_row(row, plan, tx.committed)
        if waits_for:
            await dependencies.add(connection, self._statements, plan, waits_for)
        return accepted

    async def tell(self, tx: Tx, request: AcceptedRequest, jobs: Mapping[str, Sequence[AcceptedJob]]) -> None:
        """Tell participants of jobs of a request that were written; ``jobs`` are by participant. Raises what they
        raise."""
        for participant in self._participants:
            if participant.name in jobs and Transition.ACCEPT in participant.wants:
                await participant.accepted(tx, request, jobs[participant.name])

    async def refuse(self, tx: Tx, job_ids: Sequence[UUID], refused: Refused) -> list[Changed]:
        """End jobs of this transaction that a participant does not let in: no participant has heard of them. Their
        rows still name them all, for an operator's retry."""
        rows = await tx.connection.fetch(
            self._statements.refuse_jobs,
            job_ids=list(job_ids),
            error_code=refused.code.code,
            error_message=refused.detail or refused.code.title,
        )
        changed = [Changed.from_json(row["changed"], Transition.FAIL_DEPENDENTS) for row in rows]
        return [replace(job, participants=()) for job in changed]


def accepted_row(row: asyncpg.Record | None, plan: RequestPlan, committed: Committed) -> Accepted:
    """What the statement says of the request. Raises TaskOwnedByAnother, DuplicateRequest."""
    assert row is not None  # noqa: S101 - the statement has one row
    if row["existing_id"] is not None:
        raise DuplicateRequest(
            StoredRequest(row["existing_id"], row["task_id"], row["job_id"], row["body_hash"], row["status"])
        )
    if not row["accepted"]:
        raise TaskOwnedByAnother
    committed.tasks.add((plan.task_id, plan.user_id))
    if row["has_room"]:
        committed.lanes |= {job.lane for job in plan.jobs}
    else:  # a slot may have come free while this was written, and nobody saw that it was wanted
        committed.capacity |= {job.pool for job in plan.jobs}
    if row["waits"]:  # a permit may have come free while this was written, and nobody saw that it was wanted
        committed.users.add(plan.user_id)
    return Accepted(row["waits"], committed)
