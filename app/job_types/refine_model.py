"""Job type ``refine_model``: a draft gets a new texture."""

from __future__ import annotations

from contextlib import AsyncExitStack

from app.ai_clients.base import Capability, ModelRequest
from app.domain.jobs import Outcome
from app.domain.params import ModelJob, ObjectRef
from app.job_types.model_work import ModelWork
from app.job_types.registry import JobType
from app.job_types.toolbox import Toolbox
from app.services.job_run import JobRun


class RefineModel:
    """Keeps the draft's mesh and makes a new texture; a mesh that is not the provider's is imported first (free)."""

    def __init__(self, toolbox: Toolbox) -> None:
        self._work = ModelWork(toolbox)

    async def run(self, run: JobRun, job: ModelJob) -> Outcome:
        work = self._work
        if (stored := await work.store_kept(run)) is not None:
            return stored
        async with AsyncExitStack() as stack:
            source_task_id = job.source_task_id
            if job.model is not None:
                source_task_id = await self._imported(run, job.model, stack)

            async def prepare() -> ModelRequest:
                return ModelRequest(
                    Capability.TEXTURE_MODEL,
                    prompt=job.prompt or None,
                    source_task_id=source_task_id,
                    options=job.options,
                )

            return await work.store(run, await work.calls.finished(run, Capability.TEXTURE_MODEL, prepare))

    async def _imported(self, run: JobRun, model: ObjectRef, stack: AsyncExitStack) -> str:
        work = self._work

        async def prepare() -> ModelRequest:
            async with work.preparation.of(run):
                file = await stack.enter_async_context(work.inputs.fetch_model(model))
            return ModelRequest(Capability.IMPORT_MODEL, model_file=file)

        return (await work.calls.finished(run, Capability.IMPORT_MODEL, prepare, last=False)).task.id


REFINE_MODEL = JobType(name="refine_model", handler=RefineModel, params=ModelJob, permit="paid")
