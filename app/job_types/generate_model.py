"""Job types ``generate_model`` and ``refine_model``: polled work of a model provider becomes a GLB and a row."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

from app.ai_clients.base import FileInput, ModelKind, ModelSpec
from app.config import Settings
from app.db import assets, provider_calls
from app.db.pool import Database
from app.domain.jobs import Completed, Failed, Outcome
from app.domain.operations import View
from app.domain.params import ModelJob, ObjectRef, Source
from app.domain.pictures import Picture
from app.domain.sniff import GLB, HEAD_BYTES, extension_of, sniff
from app.errors import AppError, ErrorCode
from app.job_types.polled import FinishedCall, PolledCalls
from app.services.input_files import InputFiles
from app.services.job_run import JobRun
from app.services.outputs import Outputs, ResultRefused
from app.services.preparation import Preparation
from app.services.spool import Spool

RESULT, PREVIEW = "result", "preview"  # names of kept files
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

    async def store(self, run: JobRun, call: FinishedCall) -> Outcome:
        """Download the result and put it into the bucket."""
        if not run.assets:
            return Failed(ErrorCode.INTERNAL_ERROR, "The job has no row to fill.")
        # only now, not while the provider works: hundreds wait at a time
        async with self.spool.workspace(expected_bytes=_EXPECTED_BYTES) as directory:
            return await self._store(run, call, directory)

    async def _store(self, run: JobRun, call: FinishedCall, directory: Path) -> Outcome:
        model = await self.calls.download(run, call.task, directory / "result", max_bytes=self._max_model_bytes)
        if model.content_type != GLB:
            return Failed(ErrorCode.PROVIDER_RESULT_INVALID, "The provider's result is not a GLB model.")
        preview = await self.calls.preview(run, call.task, directory / "preview", max_bytes=self._max_image_bytes)
        if preview is not None:
            preview = await self.inputs.make_preview(preview, directory / "preview.webp", run.job.user_id)
        return await self.upload(run, call.id, call.task.id, model.path, content_type=GLB, preview=preview)

    async def store_kept(self, run: JobRun) -> Outcome | None:
        """Store what storage refused when the job whose place this one takes had paid it; None where it is not here:
        the provider may still have it."""
        kept = run.job.kept
        path = None if kept is None else self.spool.kept(kept.call_id, RESULT)
        if kept is None or path is None or not run.assets:
            return None
        call = await provider_calls.by_id(self._database, kept.call_id)
        if call is None or call.provider_task_id is None:
            return None
        with path.open("rb") as source:
            content_type = sniff(source.read(HEAD_BYTES))
        preview = self.spool.kept(call.id, PREVIEW)
        size = None if content_type == GLB else await self.inputs.look_at(path, run.job.user_id)
        return await self.upload(
            run, call.id, call.provider_task_id, path, content_type=content_type or GLB, preview=preview, picture=size
        )

    async def upload(
        self,
        run: JobRun,
        call_id: UUID,
        provider_task_id: str,
        path: Path,
        *,
        content_type: str,
        preview: Path | None = None,
        picture: Picture | None = None,
    ) -> Outcome:
        """Put a result on disk into the bucket; what storage refuses for good stays on disk."""
        try:
            file = await self._outputs.store(
                run,
                run.assets[0],
                path,
                content_type=content_type,
                extension=extension_of(content_type),
                width=None if picture is None else picture.width,
                height=None if picture is None else picture.height,
                preview=preview,
            )
        except ResultRefused as refusal:
            files = {RESULT: path} if preview is None else {PREVIEW: preview, RESULT: path}
            kept = self.spool.keep(call_id, files)
            return Failed(refusal.error, refusal.detail or refusal.error.title, kept)
        return Completed((file,), provider_task_id=provider_task_id)


class GenerateModel:
    def __init__(self, work: ModelWork) -> None:
        self._work = work

    async def run(self, run: JobRun) -> Outcome:
        job = ModelJob.from_json(run.job.params)
        kind = _kind(job)
        work = self._work
        if (stored := await work.store_kept(run)) is not None:
            return stored
        async with AsyncExitStack() as stack:

            async def prepare() -> ModelSpec:
                views = await work.fetch_views(run, job, stack)
                source_task_id = job.source_task_id
                if job.source_step is not None:
                    source_task_id = await work.task_of_step(run, job.source_step)
                return ModelSpec(
                    kind, prompt=job.prompt or None, views=views, source_task_id=source_task_id, options=job.options
                )

            return await work.store(run, await work.calls.finished(run, kind, prepare))


class RefineModel:
    """Keeps the draft's mesh and makes a new texture; a mesh that is not the provider's is imported first (free)."""

    def __init__(self, work: ModelWork) -> None:
        self._work = work

    async def run(self, run: JobRun) -> Outcome:
        job = ModelJob.from_json(run.job.params)
        work = self._work
        if (stored := await work.store_kept(run)) is not None:
            return stored
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

            return await work.store(run, await work.calls.finished(run, ModelKind.TEXTURE_MODEL, prepare))

    async def _imported(self, run: JobRun, model: ObjectRef, stack: AsyncExitStack) -> str:
        work = self._work

        async def prepare() -> ModelSpec:
            async with work.preparation.of(run):
                file = await stack.enter_async_context(work.inputs.fetch_model(model))
            return ModelSpec(ModelKind.IMPORT_MODEL, model_file=file)

        return (await work.calls.finished(run, ModelKind.IMPORT_MODEL, prepare, last=False)).task.id


def _kind(job: ModelJob) -> ModelKind:
    if len(job.views) > 1:
        return ModelKind.MULTIVIEW_TO_MODEL
    if job.views or job.source_task_id is not None or job.source_step is not None:
        return ModelKind.IMAGE_TO_MODEL
    return ModelKind.TEXT_TO_MODEL
