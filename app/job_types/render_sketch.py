"""Job type ``render_sketch``: a polled provider turns a drawing into a concept image."""

from __future__ import annotations

from contextlib import AsyncExitStack

from app.ai_clients.base import ModelKind, ModelSpec
from app.config import Settings
from app.domain.jobs import Failed, Outcome
from app.domain.params import ModelJob
from app.errors import ErrorCode
from app.job_types.generate_model import ModelWork
from app.services.job_run import JobRun

_EXPECTED_BYTES = 32 * 1024 * 1024


class RenderSketch:
    def __init__(self, work: ModelWork, settings: Settings) -> None:
        self._work = work
        self._max_image_bytes = settings.max_image_bytes

    async def run(self, run: JobRun) -> Outcome:
        job = ModelJob.from_json(run.job.params)
        work = self._work
        if not run.assets:
            return Failed(ErrorCode.INTERNAL_ERROR, "The job has no row to fill.")
        if (stored := await work.store_kept(run)) is not None:
            return stored
        async with AsyncExitStack() as stack:

            async def prepare() -> ModelSpec:
                views = await work.fetch_views(run, job, stack)
                return ModelSpec(ModelKind.SKETCH_TO_IMAGE, prompt=job.prompt, views=views)

            call = await work.calls.finished(run, ModelKind.SKETCH_TO_IMAGE, prepare)
            workspace = work.spool.workspace(expected_bytes=_EXPECTED_BYTES)
            directory = await stack.enter_async_context(workspace)
            picture = await work.calls.download(run, call.task, directory / "result", max_bytes=self._max_image_bytes)
            seen = await work.inputs.look_at(picture.path, run.job.user_id)
            return await work.upload(
                run, call.id, call.task.id, picture.path, content_type=picture.content_type, picture=seen
            )
