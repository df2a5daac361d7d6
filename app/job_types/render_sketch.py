"""Job type ``render_sketch``: a polled provider turns a drawing into a concept image."""

from __future__ import annotations

from contextlib import AsyncExitStack

from app.ai_clients.base import Capability, DownloadedFile, ModelRequest
from app.calls.journal import Call
from app.domain.jobs import Failed, Outcome
from app.domain.params import ModelJob
from app.errors import ErrorCode
from app.job_types.model_work import ModelWork
from app.job_types.polled import FinishedCall
from app.job_types.registry import JobType
from app.job_types.toolbox import Toolbox
from app.services.job_run import JobRun

_EXPECTED_BYTES = 32 * 1024 * 1024


class RenderSketch:
    def __init__(self, toolbox: Toolbox) -> None:
        self._work = ModelWork(toolbox)
        self._max_image_bytes = toolbox.settings.max_image_bytes

    async def run(self, run: JobRun, job: ModelJob) -> Outcome:
        work = self._work
        if not run.assets:
            return Failed(ErrorCode.INTERNAL_ERROR, "The job has no row to fill.")
        if (stored := await work.store_kept(run)) is not None:
            return stored
        provider = work.polled.provider(run)
        call = await work.calls.find_reusable(run, provider, Capability.SKETCH_TO_IMAGE)
        if call is None:
            async with AsyncExitStack() as stack:
                views = await work.fetch_views(run, job, stack)
                request = ModelRequest(Capability.SKETCH_TO_IMAGE, prompt=job.prompt, views=views)
                call = await work.calls.execute(run, provider, request)
        if not isinstance(call, Call):
            return call
        finished = await work.polled.finished(run, provider, call)
        if not isinstance(finished, FinishedCall):
            return finished
        async with work.spool.workspace(expected_bytes=_EXPECTED_BYTES) as directory:
            target, most = directory / "result", self._max_image_bytes
            picture = await work.polled.download(run, provider, finished.task, target, max_bytes=most)
            if not isinstance(picture, DownloadedFile):
                return picture
            seen = await work.inputs.look_at(picture.path, run.job.user_id)
            return await work.upload(
                run, call.id, finished.task.id, picture.path, content_type=picture.content_type, picture=seen
            )


RENDER_SKETCH = JobType(
    name="render_sketch", handler=RenderSketch, params=ModelJob, permit="paid", time_limit_seconds=1800.0
)
