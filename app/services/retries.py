"""An operator repeats a failed request: what it completed is kept, what it paid for is used, the rest runs again.

Final states are final, so the repeat is a new request of the same task, for the same user, with new jobs and rows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

from app.db import jobs
from app.db.jobs import FailedRequest
from app.domain.jobs import FOLLOW_UP, AssetPlan, JobPlan
from app.errors import AppError, ErrorCode
from app.queue.accept import DuplicateRequest, TaskOwnedByAnother
from app.queue.contracts import StepPlan
from app.queue.plans import RequestPlan
from app.queue.transitions import Queue, UnknownUser
from app.services.publisher import Publisher


class NotRetried(Exception):
    """Nothing was written; the text says why and what to do."""


class Retries:
    def __init__(self, queue: Queue, publisher: Publisher) -> None:
        self._queue = queue
        self._database = queue.database
        self._publisher = publisher

    async def find(self, id_: str) -> FailedRequest:
        """The failed request that a job, request or task id stands for. Raises NotRetried."""
        request_id = await jobs.request_of(self._database, id_)
        if request_id is None:
            raise NotRetried("no such job, request or task")
        found = await jobs.failed_request(self._database, request_id)
        if found is None:
            raise NotRetried("it has not failed")
        return found

    async def retry(self, failed: FailedRequest, *, may_pay_again: bool) -> UUID:
        """Accept the failed request once more; the new request's id. The user's limits do not count.

        Raises NotRetried.
        """
        if failed.retried_by is not None:
            raise NotRetried(f"already retried by request {failed.retried_by}; if that failed, retry that")
        if failed.user_id is None:
            raise NotRetried("its user no longer exists")
        if failed.type == FOLLOW_UP:
            raise NotRetried(f"it is a follow-up that could not be planned: {failed.error_message}")
        if failed.paid_again_micros and not may_pay_again:
            raise NotRetried(
                f"{_kept(failed)}${failed.paid_again_micros / 1e6:.2f} was or may have been paid and would be paid once"
                " more: allow it with --may-pay-again"
            )
        plan = await self._plan(failed, failed.user_id)
        try:
            accepted = await self._queue.accept(plan)
        except DuplicateRequest:
            raise NotRetried("somebody else retried it just now") from None
        except AppError as refused:
            if refused.error is not ErrorCode.DEPENDENCY_FAILED:
                raise
            raise NotRetried(
                f"{refused.detail} Retry first what failed; for what was canceled its user has to ask again"
            ) from None
        except (TaskOwnedByAnother, UnknownUser):
            raise NotRetried("its user no longer exists") from None
        self._publisher.publish(accepted.committed)
        return plan.id

    async def _plan(self, failed: FailedRequest, user_id: UUID) -> RequestPlan:
        old_jobs, old_assets = await jobs.unfinished_jobs(self._database, failed.request_id)
        params, old_steps = await jobs.planned(self._database, failed.request_id)
        steps = [step for value in old_steps if (step := StepPlan.from_json(value)).step >= old_jobs[0].step]
        job_ids = {job.id: uuid4() for job in old_jobs}
        asset_ids = {asset.id: uuid4() for asset in old_assets}
        kept = failed.kept if failed.kept_is_in_reach else None
        rows = Counter(asset.job_id for asset in old_assets)
        return RequestPlan(
            id=uuid4(),
            task_id=failed.task_id,
            user_id=user_id,
            operation=failed.operation,
            params=params,
            depends_on=await jobs.dependencies_left(self._database, failed.request_id),
            scope=failed.task_id,
            idempotency_key=f"retry:{failed.request_id}",
            explicit_key=True,
            body_hash=f"retry:{failed.request_id}",
            job_id=job_ids[old_jobs[-1].id],
            jobs=[
                replace(
                    _for_rows(job, rows[job.id]) if kept is None or job.id != failed.job_id else job,
                    id=job_ids[job.id],
                    retry_of=job.id,
                    keeps_paid_work=failed.keeps_paid_work and job.id == failed.job_id,
                    kept=kept if job.id == failed.job_id else None,
                )
                for job in old_jobs
            ],
            assets=[_again(asset, job_ids, asset_ids) for asset in old_assets],
            steps=steps,
            retry_of=failed.request_id,
            trace_id=uuid4().hex,
        )


def _kept(failed: FailedRequest) -> str:
    """Why what was kept helps nobody."""
    if failed.kept is None:
        return ""
    kept = f"its paid result was kept on {failed.kept.host} until {failed.kept.until:%Y-%m-%d %H:%M} UTC"
    if failed.kept.until <= datetime.now(UTC):
        return f"{kept} and is gone; "
    return f"{kept.replace('was', 'is')}, where no worker runs: start one; else "


def _for_rows(job: JobPlan, rows: int) -> JobPlan:
    """The job as it was planned; one that lost some of its pictures pays for those alone."""
    n = job.params.get("n", rows)
    if n <= rows:
        return job
    return replace(job, params={**job.params, "n": rows}, estimate_micros=job.estimate_micros * rows // n)


def _again(asset: AssetPlan, job_ids: dict[UUID, UUID], asset_ids: dict[UUID, UUID]) -> AssetPlan:
    """The same row, anew; what it was to be made from may be a new row as well."""

    def anew(source: UUID | None) -> UUID | None:
        return None if source is None else asset_ids.get(source, source)

    return replace(
        asset,
        id=asset_ids[asset.id],
        job_id=job_ids[asset.job_id],
        source_concept_image_id=anew(asset.source_concept_image_id),
        source_model_id=anew(asset.source_model_id),
    )
