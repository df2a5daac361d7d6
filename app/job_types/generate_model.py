"""Job type ``generate_model``: polled work of a model provider becomes a GLB and a row."""

from __future__ import annotations

from contextlib import AsyncExitStack

from app.ai_clients.base import Capability, ModelRequest
from app.calls.journal import Call
from app.domain.jobs import Outcome
from app.domain.params import ModelJob
from app.job_types.model_work import ModelWork
from app.job_types.registry import JobType
from app.job_types.toolbox import Toolbox
from app.services.job_run import JobRun


class GenerateModel:
    def __init__(self, toolbox: Toolbox) -> None:
        self._work = ModelWork(toolbox)

    async def run(self, run: JobRun, job: ModelJob) -> Outcome:
        work = self._work
        if (stored := await work.store_kept(run)) is not None:
            return stored
        provider = work.polled.provider(run)
        call = await work.calls.find_reusable(run, provider, _capability(job))
        if call is None:
            async with AsyncExitStack() as stack:
                request = await self._request(run, job, stack)
                call = await work.calls.execute(run, provider, request)
        if not isinstance(call, Call):
            return call
        return await work.store(run, provider, call)

    async def _request(self, run: JobRun, job: ModelJob, stack: AsyncExitStack) -> ModelRequest:
        views = await self._work.fetch_views(run, job, stack)
        source_task_id = job.source_task_id
        if job.source_step is not None:
            source_task_id = await self._work.task_of_step(run, job.source_step)
        return ModelRequest(
            _capability(job),
            prompt=job.prompt or None,
            views=views,
            source_task_id=source_task_id,
            options=job.options,
        )


def _capability(job: ModelJob) -> Capability:
    if len(job.views) > 1:
        return Capability.MULTIVIEW_TO_MODEL
    if job.views or job.source_task_id is not None or job.source_step is not None:
        return Capability.IMAGE_TO_MODEL
    return Capability.TEXT_TO_MODEL


GENERATE_MODEL = JobType(name="generate_model", handler=GenerateModel, params=ModelJob, permit="paid")
