"""Job type ``refine_model``: a draft gets a new texture."""

from __future__ import annotations

from contextlib import AsyncExitStack

from app.ai_clients.base import Capability, ModelRequest, PolledProvider
from app.calls.journal import Call
from app.domain.jobs import Outcome
from app.domain.params import ModelJob, ObjectRef
from app.job_types.model_work import ModelWork
from app.job_types.polled import FinishedCall
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
        provider = work.polled.provider(run)
        draft = job.source_task_id
        if job.model is not None:
            imported = await self._import(run, provider, job.model)
            if not isinstance(imported, FinishedCall):
                return imported
            draft = imported.task.id
        call = await work.calls.find_reusable(run, provider, Capability.TEXTURE_MODEL)
        if call is None:
            request = ModelRequest(
                Capability.TEXTURE_MODEL, prompt=job.prompt or None, source_task_id=draft, options=job.options
            )
            call = await work.calls.execute(run, provider, request)
        if not isinstance(call, Call):
            return call
        return await work.store(run, provider, call)

    async def _import(self, run: JobRun, provider: PolledProvider, model: ObjectRef) -> FinishedCall | Outcome:
        """The mesh as a task of the provider, which a paid call follows."""
        work = self._work
        call = await work.calls.find_reusable(run, provider, Capability.IMPORT_MODEL, final=False)
        if call is None:
            async with AsyncExitStack() as stack:
                async with work.preparation.of(run):
                    file = await stack.enter_async_context(work.inputs.fetch_model(model))
                request = ModelRequest(Capability.IMPORT_MODEL, model_file=file)
                call = await work.calls.execute(run, provider, request, final=False)
        if not isinstance(call, Call):
            return call
        return await work.polled.finished(run, provider, call)


REFINE_MODEL = JobType(name="refine_model", handler=RefineModel, params=ModelJob, permit="paid")
