"""Plans what a job found to do. Nothing is looked at or asked: what goes in is data of the job."""

from __future__ import annotations

from uuid import UUID, uuid4

from pydantic import ValidationError

from app.domain.jobs import FollowUp
from app.domain.task_ids import is_task_id
from app.errors import AppError, ErrorCode
from app.queue.contracts import Changed
from app.queue.plans import RequestPlan
from app.task_types.planner import Planner
from app.task_types.registry import TaskTypes
from app.task_types.steps import Inputs


class FollowUpPlans:
    def __init__(self, task_types: TaskTypes, planner: Planner) -> None:
        self._task_types = task_types
        self._planner = planner

    def plan(self, follow_up: FollowUp, job: Changed, user_id: UUID, *, key: str) -> RequestPlan:
        """Raises AppError: UNKNOWN_TASK_TYPE, VALIDATION_ERROR, PROVIDER_NOT_AVAILABLE."""
        task_type = self._task_types.named(follow_up.task_type)
        task_id = job.task_id if follow_up.task_id is None else follow_up.task_id
        if not is_task_id(task_id):
            raise AppError(ErrorCode.VALIDATION_ERROR, "The follow-up names a task that cannot be one.")
        try:
            params = task_type.params.model_validate(dict(follow_up.params))
        except ValidationError as error:
            wrong = ", ".join(sorted({".".join(map(str, found["loc"])) for found in error.errors()}))
            raise AppError(ErrorCode.VALIDATION_ERROR, f"The follow-up has wrong parameters: {wrong}.") from None
        plan = self._planner.plan(task_type, params, Inputs(follow_up.inputs), user_id)
        urls = [url for found in task_type.input_urls(params).values() for url in found]
        return RequestPlan(
            id=uuid4(),
            task_id=task_id,
            user_id=user_id,
            operation=task_type.name,
            params=task_type.kept(params, dict(zip(urls, urls, strict=True))),
            scope=job.task_id,
            idempotency_key=key,
            explicit_key=True,
            body_hash=task_type.body_hash(params, {}),
            job_id=plan.main_job_id,
            steps=plan.steps,
            jobs=plan.jobs,
            assets=plan.assets,
            trace_id=job.trace_id,
        )
