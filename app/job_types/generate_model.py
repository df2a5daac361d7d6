"""Job type ``generate_model``: polled work of a model provider becomes a GLB and a row."""

from __future__ import annotations

from contextlib import AsyncExitStack

from app.ai_clients.base import Capability, ModelRequest
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
        kind = _kind(job)
        work = self._work
        if (stored := await work.store_kept(run)) is not None:
            return stored
        async with AsyncExitStack() as stack:

            async def prepare() -> ModelRequest:
                views = await work.fetch_views(run, job, stack)
                source_task_id = job.source_task_id
                if job.source_step is not None:
                    source_task_id = await work.task_of_step(run, job.source_step)
                return ModelRequest(
                    kind, prompt=job.prompt or None, views=views, source_task_id=source_task_id, options=job.options
                )

            return await work.store(run, await work.calls.finished(run, kind, prepare))


def _kind(job: ModelJob) -> Capability:
    if len(job.views) > 1:
        return Capability.MULTIVIEW_TO_MODEL
    if job.views or job.source_task_id is not None or job.source_step is not None:
        return Capability.IMAGE_TO_MODEL
    return Capability.TEXT_TO_MODEL


GENERATE_MODEL = JobType(name="generate_model", handler=GenerateModel, params=ModelJob, permit="paid")
