"""What follows a change of jobs, in the same transaction and in this order: outputs, steps of the same task,
participants, roll-up. Events are written beside each of these changes. Nothing else follows a status change, and no
other code repeats a part of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.domain.statuses import JobStatus
from app.queue.contracts import Changed, Participants, Transition, Tx
from app.queue.statements import Statements

Rows = Sequence[Mapping[str, Any]]


class Follower:
    def __init__(self, statements: Statements, participants: Participants) -> None:
        self._statements = statements
        self._participants = participants

    async def apply(
        self, tx: Tx, changed: Sequence[Changed], *, files: Rows = (), missing: Rows = (), items: Rows = ()
    ) -> list[Changed]:
        """Let everything follow; all jobs that changed, those that hung on the given ones included.

        Of completed jobs: ``files`` are stored outputs, ``missing`` outputs without a file, ``items`` what they worked
        through.
        """
        if not changed:
            return []
        await self._end_outputs(tx, changed, files, missing, items)
        dependents = await self._advance_steps(tx, changed)
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
        rows = await tx.connection.fetch(
            self._statements.advance_steps,
            completed=[job.request_id for job in before if job.new is JobStatus.COMPLETED],
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
        return [
            Changed.from_json(row["changed"], Transition.FAIL_DEPENDENTS) for row in rows if row["changed"] is not None
        ]

    async def _roll_up(self, tx: Tx, changed: Sequence[Changed]) -> None:
        rows = await tx.connection.fetch(
            self._statements.roll_up,
            request_ids=list({job.request_id for job in changed}),
            task_ids=sorted({job.task_id for job in changed}),
        )
        tx.committed.dependents |= {row["id"] for row in rows}
