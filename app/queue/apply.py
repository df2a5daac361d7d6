"""What follows a change of jobs, in the same transaction and in this order: outputs, steps of the same task and
follow-ups, participants, roll-up.

Events are written beside each of these changes. Nothing else follows a status change, and no other code repeats a
part of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any
from uuid import UUID

from app.domain.jobs import FollowUp
from app.domain.statuses import JobStatus
from app.queue.accept import Acceptor
from app.queue.contracts import AcceptedJob, AcceptedRequest, Changed, Participants, Refused, Transition, Tx
from app.queue.follow_ups import FollowUps
from app.queue.statements import Statements

Rows = Sequence[Mapping[str, Any]]
NONE: Mapping[UUID, Sequence[FollowUp]] = MappingProxyType({})


class Follower:
    def __init__(
        self,
        statements: Statements,
        participants: Participants,
        acceptor: Acceptor,
        follow_ups: FollowUps,
        *,
        limited: bool,
    ) -> None:
        """``limited`` says that users have a limit of permits."""
        self._statements = statements
        self._participants = participants
        self._acceptor = acceptor
        self._follow_ups = follow_ups
        self._limited = limited

    async def apply(
        self,
        tx: Tx,
        changed: Sequence[Changed],
        *,
        files: Rows = (),
        missing: Rows = (),
        items: Rows = (),
        follow_ups: Mapping[UUID, Sequence[FollowUp]] = NONE,
    ) -> list[Changed]:
        """Let everything follow; all jobs that changed, those that hung on the given ones included.

        Of completed jobs: ``files`` are stored outputs, ``missing`` outputs without a file, ``items`` what they worked
        through, ``follow_ups`` what they found to do.
        """
        if not changed:
            return []
        await self._end_outputs(tx, changed, files, missing, items)
        dependents = await self._advance_steps(tx, changed)
        for job in changed:
            dependents += await self._follow_ups.accept(tx, job, follow_ups.get(job.job_id, ()))
        await self._end_outputs(tx, dependents)
        every = [*changed, *dependents]
        for participant in self._participants:
            concerned = [
                job
                for job in every
                if job.ended and job.by in participant.wants and participant.name in job.participants
            ]
            if concerned:
                await participant.ended(tx, concerned)
        await self._roll_up(tx, every)
        for job in every:
            tx.committed.tasks.add((job.task_id, job.user_id))
            if job.new is JobStatus.QUEUED and job.waiting_for is None:
                tx.committed.lanes.add(job.lane)
            if job.ended:
                tx.committed.free(job.pool, job.user_id)
        return every

    async def _end_outputs(
        self, tx: Tx, changed: Sequence[Changed], files: Rows = (), missing: Rows = (), items: Rows = ()
    ) -> None:
        ended = [
            {
                "job_id": str(job.job_id),
                "asset_id": None,
                "status": job.new.value,
                "error_code": job.error_code,
                "error_message": job.error_message,
            }
            for job in changed
            if job.new in (JobStatus.FAILED, JobStatus.CANCELED)
        ]
        if files or missing or ended or items:
            await tx.connection.execute(
                self._statements.finish_outputs, files=list(files), ended=[*missing, *ended], items=list(items)
            )

    async def _advance_steps(self, tx: Tx, changed: Sequence[Changed]) -> list[Changed]:
        """Start what waited for these jobs, or end it with them; the jobs that ended."""
        before = [job for job in changed if job.has_next and job.new in (JobStatus.COMPLETED, JobStatus.FAILED)]
        if not before:
            return []
        completed = [job for job in before if job.new is JobStatus.COMPLETED]
        freed = Counter((job.request_id, job.permit) for job in completed)
        rows = await tx.connection.fetch(
            self._statements.advance_steps,
            completed=[job.request_id for job in completed],
            freed=[
                {"request_id": str(request_id), "permit": permit, "permits": permits}
                for (request_id, permit), permits in freed.items()
            ],
            limited=self._limited,
            failed=[
                {
                    "request_id": str(job.request_id),
                    "error_code": job.error_code,
                    "error_message": job.error_message,
                }
                for job in before
                if job.new is JobStatus.FAILED
            ],
        )
        tx.committed.lanes |= {row["lane"] for row in rows if row["lane"] is not None}
        refused = await self._tell_of_made(tx, [row["made"] for row in rows if row["made"] is not None])
        ended = [
            Changed.from_json(row["changed"], Transition.FAIL_DEPENDENTS) for row in rows if row["changed"] is not None
        ]
        # what waited for a step that was refused
        return [*ended, *refused, *(await self._advance_steps(tx, refused))]

    async def _tell_of_made(self, tx: Tx, made: Sequence[Mapping[str, Any]]) -> list[Changed]:
        """Tell participants of jobs that were made for later steps; those that were refused, and so failed. What is
        completed stays."""
        refused: list[Changed] = []
        by_request: dict[str, list[Mapping[str, Any]]] = {}
        for job in made:
            if job["participants"] and job["user_id"] is not None:
                by_request.setdefault(job["request_id"], []).append(job)
        for jobs in by_request.values():
            told: dict[str, list[AcceptedJob]] = {}
            for job in jobs:
                accepted = AcceptedJob(
                    UUID(job["job_id"]), job["type"], job["step"], job["estimate_micros"], job["price"]
                )
                for name in job["participants"]:
                    told.setdefault(name, []).append(accepted)
            try:
                async with tx.connection.savepoint():
                    await self._acceptor.tell(tx, _request(jobs[0]), told)
            except Refused as error:
                refused += await self._acceptor.refuse(tx, [UUID(job["job_id"]) for job in jobs], error)
        return refused

    async def _roll_up(self, tx: Tx, changed: Sequence[Changed]) -> None:
        rows = await tx.connection.fetch(
            self._statements.roll_up,
            request_ids=list({job.request_id for job in changed}),
            task_ids=sorted({job.task_id for job in changed}),
        )
        tx.committed.dependents |= {row["id"] for row in rows}


def _request(made: Mapping[str, Any]) -> AcceptedRequest:
    retry_of = made["retry_of"]
    return AcceptedRequest(
        UUID(made["request_id"]),
        made["task_id"],
        UUID(made["user_id"]),
        made["operation"],
        None if retry_of is None else UUID(retry_of),
    )
