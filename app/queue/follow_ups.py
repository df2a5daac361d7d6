"""Work that a job found to do. It is planned and accepted in the transaction that finishes the job.

The job stays completed, whatever becomes of its follow-ups. One that cannot be accepted is a failed request of the task
with the code that says why. Limits of the user were judged when the job was accepted; only permits are waited for.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Protocol
from uuid import UUID, uuid4

import structlog

from app.db.pool import REPEATABLE, UNREACHABLE
from app.domain.jobs import FOLLOW_UP, FollowUp, JobPlan
from app.errors import AppError, ErrorCode
from app.queue.accept import Acceptor, DuplicateRequest, TaskOwnedByAnother
from app.queue.contracts import Changed, Refused, Tx
from app.queue.plans import RequestPlan

log = structlog.get_logger(__name__)

_NO_PERMIT = {"paid": 0, "gpu": 0}
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
_NAME = re.compile(r"[a-z0-9_-]{1,64}")


class FollowUpPlanner(Protocol):
    def plan(self, follow_up: FollowUp, job: Changed, user_id: UUID, *, key: str) -> RequestPlan:
        """What is to be accepted, under an idempotency key of the job's task; pure. Raises AppError."""
        ...


class FollowUps:
    def __init__(self, acceptor: Acceptor, planner: FollowUpPlanner | None, *, limited: bool) -> None:
        self._acceptor = acceptor
        self._planner = planner
        self._permits = _NO_PERMIT if limited else None  # those of the user are given out after the commit

    async def accept(self, tx: Tx, job: Changed, follow_ups: Sequence[FollowUp]) -> list[Changed]:
        """Accept the follow-ups of a job that is completed in this transaction, which has locked their tasks; the jobs
        of those that failed."""
        ended: list[Changed] = []
        user_id = job.user_id
        if user_id is None:  # erased while the job ran
            return ended
        for one in follow_ups:
            try:
                ended += await self._accept(tx, job, user_id, one)
            except DuplicateRequest:
                log.info("follow_up_known", job_id=str(job.job_id), key=one.key)
        return ended

    async def _accept(self, tx: Tx, job: Changed, user_id: UUID, follow_up: FollowUp) -> list[Changed]:
        """Raises DuplicateRequest."""
        key = f"follow-up:{job.job_id}:{_short(follow_up.key)}"
        named = {"task_type": follow_up.task_type, "job_id": str(job.job_id)}
        plan: RequestPlan | None = None
        try:
            plan = self._plan(job, user_id, follow_up, key)
            async with tx.connection.savepoint():
                await self._acceptor.accept(tx, plan, self._permits)
            return []
        except Refused as error:
            refused = error
            log.info("follow_up_refused", code=error.code.code, **named)
        except TaskOwnedByAnother:
            plan, refused = None, Refused(ErrorCode.TASK_NOT_FOUND)
        except AppError as error:
            plan, refused = None, Refused(error.error, error.detail and _UNSTORABLE.sub("?", error.detail))
        except (DuplicateRequest, *UNREACHABLE, *REPEATABLE):
            raise
        except Exception:  # what the database does not take does not undo the job either
            log.exception("follow_up_not_accepted", unexpected=True, **named)
            plan, refused = None, Refused(ErrorCode.INTERNAL_ERROR)
        if plan is None:
            plan = _without_plan(job, user_id, follow_up, key)
            log.error("follow_up_failed", code=refused.code.code, reason=refused.detail, **named)
        await self._acceptor.write(tx, plan, self._permits)
        return await self._acceptor.refuse(tx, [one.id for one in plan.jobs], refused)

    def _plan(self, job: Changed, user_id: UUID, follow_up: FollowUp, key: str) -> RequestPlan:
        """Raises AppError."""
        if self._planner is None:
            raise AppError(ErrorCode.UNKNOWN_TASK_TYPE, "This process knows no task types.")
        try:
            return self._planner.plan(follow_up, job, user_id, key=key)
        except AppError:
            raise
        except Exception as error:  # a defect of the task type: it does not undo the job
            log.exception("follow_up_not_planned", unexpected=True, task_type=follow_up.task_type)
            raise AppError(ErrorCode.INTERNAL_ERROR) from error


def _without_plan(job: Changed, user_id: UUID, follow_up: FollowUp, key: str) -> RequestPlan:
    """A request of one job that nobody runs, in the job's own task."""
    failed = JobPlan(uuid4(), 1, FOLLOW_UP, None, job.pool, job.lane, 0, {}, permit="none")
    return RequestPlan(
        id=uuid4(),
        task_id=job.task_id,
        user_id=user_id,
        operation=follow_up.task_type if _NAME.fullmatch(follow_up.task_type) else FOLLOW_UP,
        scope=job.task_id,
        idempotency_key=key,
        explicit_key=True,
        body_hash="",
        job_id=failed.id,
        jobs=[failed],
        assets=[],
        trace_id=job.trace_id,
    )


def _short(key: str) -> str:
    """Stands for a key, which may be of any length and hold any character."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
