"""What a request waits for in other tasks of its user.

A request depends on the newest request that a task had when it was accepted, which therefore came before it: no chain
of dependencies leads back to itself, also where a task is used again. What a task is asked for later changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from app.db.pool import Connection
from app.domain.statuses import JobStatus
from app.errors import AppError, ErrorCode
from app.queue.plans import RequestPlan
from app.queue.statements import Statements


@dataclass(frozen=True, slots=True)
class Dependency:
    task_id: str
    request_id: UUID
    status: JobStatus

    @property
    def met(self) -> bool:
        return self.status is JobStatus.COMPLETED


async def lock(connection: Connection, statements: Statements, plan: RequestPlan) -> list[Dependency]:
    """What the request depends on, locked until it is written: nothing of it ends unseen. Raises AppError:
    DEPENDENCY_NOT_FOUND, DEPENDENCY_FAILED."""
    wanted = list(dict.fromkeys(plan.depends_on))
    # with its own task, in the order in which everybody locks tasks
    await connection.execute(statements.lock_own_tasks, task_ids=sorted({*wanted, plan.task_id}), user_id=plan.user_id)
    rows = await connection.fetch(statements.newest_requests, task_ids=wanted, user_id=plan.user_id)
    return judge(wanted, [Dependency(row["task_id"], row["request_id"], JobStatus(row["status"])) for row in rows])


def judge(wanted: Sequence[str], there: Sequence[Dependency]) -> list[Dependency]:
    """In the order in which they were named. Raises AppError."""
    found = {one.task_id: one for one in there}
    if unknown := [task_id for task_id in wanted if task_id not in found]:
        raise AppError(ErrorCode.DEPENDENCY_NOT_FOUND, f"No task {', '.join(unknown)}.", extra={"depends_on": unknown})
    dependencies = [found[task_id] for task_id in wanted]
    if ended := [one for one in dependencies if one.status in (JobStatus.FAILED, JobStatus.CANCELED)]:
        told = ", ".join(f"{one.task_id} is {one.status}" for one in ended)
        names = [one.task_id for one in ended]
        raise AppError(ErrorCode.DEPENDENCY_FAILED, f"Task {told}.", extra={"depends_on": names})
    return dependencies


async def add(
    connection: Connection, statements: Statements, plan: RequestPlan, dependencies: Sequence[Dependency]
) -> None:
    await connection.execute(
        statements.add_dependencies,
        request_id=plan.id,
        task_id=plan.task_id,
        depends_on=[one.task_id for one in dependencies],
        requests=[one.request_id for one in dependencies],
        met=[one.met for one in dependencies],
    )
