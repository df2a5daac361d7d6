"""Job types ``generate_model`` and ``refine_model``: polled work of a model provider becomes a GLB and a row."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from app.ai_clients.base import FileInput, ModelKind, ModelSpec, ProviderTask
from app.config import Settings
from app.db import assets
from app.db.pool import Database
from app.domain.jobs import Completed, Failed, Outcome
from app.domain.operations import View
from app.domain.params import ModelJob, ObjectRef, Source
from app.domain.sniff import GLB, extension_of
from app.errors import AppError, ErrorCode
from app.job_types.polled import PolledCalls
from app.services.input_files import InputFiles
from app.services.job_run import JobRun
from app.services.outputs import Outputs
from app.services.preparation import Preparation
from app.services.spool import Spool

_EXPECTED_BYTES = 64 * 1024 * 1024


class ModelWork:
    """Fetching inputs and storing results, for both job types."""

    def __init__(
        self,
        database: Database,
        calls: PolledCalls,
        inputs: InputFiles,
        preparation: Preparation,
        spool: Spool,
        outputs: Outputs,
        settings: Settings,
    ) -> None:
        self.calls = calls
        self.spool = spool
        self.inputs = inputs
        self.preparation = preparation
        self._database = database
        self._outputs = outputs
        self._max_model_bytes = settings.max_model_bytes
        self._max_image_bytes = settings.max_image_bytes

    async def fetch_views(self, run: JobRun, job: ModelJob, stack: AsyncExitStack) -> dict[View, FileInput]:
        """The pictures of a job on local disk, ready for a provider, until ``stack`` closes."""
        views: dict[View, FileInput] = {}
        if not job.views:
            return views
        async with self.preparation.of(run):
            for view, source in job.views.items():
                ref = await self._object_of(run, source)
                views[view] = await stack.enter_async_context(self.inputs.fetch_picture(ref, run.job.user_id))
        return views

    async def _object_of(self, run: JobRun, source: Source) -> ObjectRef:
        """Where a source lies: given at accept, or made by an earlier step."""
        if isinstance(source, ObjectRef):
            return source
        output = await self._output(run, source.step)
        files = output["files"]
        if not files:
            raise AppError(ErrorCode.STEP_FAILED, "The earlier step made no file.")
        return ObjectRef(files[0]["bucket"], files[0]["key"], size=files[0]["size"])

    async def task_of_step(self, run: JobRun, step: int) -> str:
        """The provider's task id that an earlier step made."""
        return str((await self._output(run, step))["provider_task_id"])

    async def _output(self, run: JobRun, step: int) -> dict[str, Any]:
        output = await assets.output_of_step(self._database, run.job.request_id, step)
        if output is None:
            raise AppError(ErrorCode.STEP_FAILED, "The earlier step is not completed.")
        return output

    async def store(self, run: JobRun, task: ProviderTask) -> Outcome:
        """Download the result and put it into the bucket."""
        if not run.assets:
            return Failed(ErrorCode.INTERNAL_ERROR, "The job has no row to fill.")
        # only now, not while the provider works: hundreds wait at a time
        async with self.spool.workspace(expected_bytes=_EXPECTED_BYTES) as directory:
            return await self._store(run, task, directory)

    async def _store(self, run: JobRun, task: ProviderTask, directory: Path) -> Outcome:
        model = await self.calls.download(run, task, directory / "result", max_bytes=self._max_model_bytes)
        if model.content_type != GLB:
            return Failed(ErrorCode.PROVIDER_RESULT_INVALID, "The provider's result is not a GLB model.")
        preview = await self.calls.preview(run, task, directory / "preview", max_bytes=self._max_image_bytes)
        if preview is not None:
            preview = await self.inputs.make_preview(preview, directory / "preview.webp", run.job.user_id)
        file = await self._outputs.store(
            run,
            run.assets[0],
            model.path,
            content_type=model.content_type,
            extension=extension_of(model.content_type),
            preview=preview,
        )
        return Completed((file,), provider_task_id=task.id)


class GenerateModel:
    def __init__(self, work: ModelWork) -> None:
        self._work = work

    async def run(self, run: JobRun) -> Outcome:
        job = ModelJob.from_json(run.job.params)
        kind = _kind(job)
        work = self._work
        async with AsyncExitStack() as stack:

            async def prepare() -> ModelSpec:
                views = await work.fetch_views(run, job, stack)
                source_task_id = job.source_task_id
                if job.source_step is not None:
                    source_task_id = await work.task_of_step(run, job.source_step)
                return ModelSpec(
                    kind, prompt=job.prompt or None, views=views, source_task_id=source_task_id, options=job.options
                )

            task = await work.calls.finished(run, kind, prepare)
            return await work.store(run, task)


class RefineModel:
    """Keeps the draft's mesh and makes a new texture; a mesh that is not the provider's is imported first (free)."""

    def __init__(self, work: ModelWork) -> None:
        self._work = work

    async def run(self, run: JobRun) -> Outcome:
        job = ModelJob.from_json(run.job.params)
        work = self._work
        async with AsyncExitStack() as stack:
            source_task_id = job.source_task_id
            if job.model is not None:
                source_task_id = await self._imported(run, job.model, stack)

            async def prepare() -> ModelSpec:
                return ModelSpec(
                    ModelKind.TEXTURE_MODEL,
                    prompt=job.prompt or None,
                    source_task_id=source_task_id,
                    options=job.options,
                )

            task = await work.calls.finished(run, ModelKind.TEXTURE_MODEL, prepare)
            return await work.store(run, task)

    async def _imported(self, run: JobRun, model: ObjectRef, stack: AsyncExitStack) -> str:
        work = self._work

        async def prepare() -> ModelSpec:
            async with work.preparation.of(run):
                file = await stack.enter_async_context(work.inputs.fetch_model(model))
            return ModelSpec(ModelKind.IMPORT_MODEL, model_file=file)

        return (await work.calls.finished(run, ModelKind.IMPORT_MODEL, prepare, last=False)).id


def _kind(job: ModelJob) -> ModelKind:
    if len(job.views) > 1:
        return ModelKind.MULTIVIEW_TO_MODEL
    if job.views or job.source_task_id is not None or job.source_step is not None:
        return ModelKind.IMAGE_TO_MODEL
    return ModelKind.TEXT_TO_MODEL
