"""What the job types of polled models share: fetching inputs, and storing a result or what was kept of one."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID

from app.ai_clients.base import DownloadedFile, FileInput, PolledProvider
from app.calls import journal
from app.calls.journal import Call
from app.domain.jobs import Completed, Failed, Outcome
from app.domain.operations import View
from app.domain.params import ModelJob, ObjectRef, Source
from app.domain.pictures import Picture
from app.domain.sniff import GLB, HEAD_BYTES, sniff
from app.errors import AppError, ErrorCode
from app.job_types.polled import FinishedCall
from app.job_types.toolbox import Toolbox
from app.services.beside import beside
from app.services.job_run import JobRun
from app.services.outputs import ResultRefused

RESULT, PREVIEW = "result", "preview"  # names of kept files
_EXPECTED_BYTES = 64 * 1024 * 1024


class ModelWork:
    """Fetching inputs and storing results, for both job types."""

    def __init__(self, toolbox: Toolbox) -> None:
        self.calls = toolbox.calls
        self.polled = toolbox.polled
        self.spool = toolbox.spool
        self.inputs = toolbox.inputs
        self.preparation = toolbox.preparation
        self._toolbox = toolbox
        self._database = toolbox.database
        self._outputs = toolbox.outputs
        self._max_model_bytes = toolbox.settings.max_model_bytes
        self._max_image_bytes = toolbox.settings.max_image_bytes

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
        output = await self._toolbox.output_of_step(run, source.step)
        files = output["files"]
        if not files:
            raise AppError(ErrorCode.STEP_FAILED, "The earlier step made no file.")
        return ObjectRef(files[0]["bucket"], files[0]["key"], size=files[0]["size"])

    async def task_of_step(self, run: JobRun, step: int) -> str:
        """The provider's task id that an earlier step made."""
        return str((await self._toolbox.output_of_step(run, step))["provider_task_id"])

    async def store(self, run: JobRun, provider: PolledProvider, call: Call) -> Outcome:
        """Wait for the result, download it and put it into the bucket."""
        finished = await self.polled.finished(run, provider, call)
        if not isinstance(finished, FinishedCall):
            return finished
        if not run.assets:
            return Failed(ErrorCode.INTERNAL_ERROR, "The job has no row to fill.")
        # only now, not while the provider works: hundreds wait at a time
        async with self.spool.workspace(expected_bytes=_EXPECTED_BYTES) as directory:
            return await self._store(run, provider, finished, directory)

    async def _store(self, run: JobRun, provider: PolledProvider, call: FinishedCall, directory: Path) -> Outcome:
        most = self._max_model_bytes
        async with beside(self._preview(run, provider, call, directory)) as preview:
            model = await self.polled.download(run, provider, call.task, directory / "result", max_bytes=most)
        if not isinstance(model, DownloadedFile):
            return model
        if model.content_type != GLB:
            return Failed(ErrorCode.PROVIDER_RESULT_INVALID, "The provider's result is not a GLB model.")
        return await self.upload(run, call.id, call.task.id, model.path, content_type=GLB, preview=preview.result())

    async def _preview(self, run: JobRun, provider: PolledProvider, call: FinishedCall, directory: Path) -> Path | None:
        found = await self.polled.preview(provider, call.task, directory / "preview", max_bytes=self._max_image_bytes)
        if found is None:
            return None
        return await self.inputs.make_preview(found, directory / "preview.webp", run.job.user_id)

    async def store_kept(self, run: JobRun) -> Outcome | None:
        """Store what storage refused when the job whose place this one takes had paid it; None where it is not here:
        the provider may still have it."""
        kept = run.job.kept
        path = None if kept is None else self.spool.kept(kept.call_id, RESULT)
        if kept is None or path is None or not run.assets:
            return None
        call = await journal.by_id(self._database, kept.call_id)
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
                width=None if picture is None else picture.width,
                height=None if picture is None else picture.height,
                preview=preview,
            )
        except ResultRefused as refusal:
            files = {RESULT: path} if preview is None else {PREVIEW: preview, RESULT: path}
            kept = self.spool.keep(call_id, files)
            return Failed(refusal.error, refusal.detail or refusal.error.title, kept)
        return Completed((file,), provider_task_id=provider_task_id)
