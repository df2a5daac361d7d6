"""Job type ``generate_images``: one paid call becomes files and rows, however its provider delivers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog

from app.ai_clients.base import (
    Capability,
    DownloadedFile,
    ImageRequest,
    PolledProvider,
    ProviderTask,
    ResultFile,
    SynchronousProvider,
)
from app.ai_clients.errors import OutcomeUnknown
from app.calls.journal import Call
from app.calls.spool import Spool
from app.db.pool import UNREACHABLE
from app.domain.crash_points import Boundary, boundary
from app.domain.jobs import AssetSlot, Completed, Failed, KeptResult, Missing, Outcome, StoredFile
from app.domain.params import ImageJob
from app.domain.sniff import extension_of
from app.domain.statuses import CallState
from app.errors import AppError, ErrorCode
from app.job_types.polled import FinishedCall
from app.job_types.registry import JobType
from app.job_types.toolbox import Toolbox
from app.services.job_run import ClaimLost, JobRun
from app.services.outputs import ResultRefused
from app.storage.base import StorageUnavailable

log = structlog.get_logger(__name__)

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
_BYTES_PER_IMAGE = 32 * 1024 * 1024  # a 4K PNG and its base64 reply


class GenerateImages:
    def __init__(self, toolbox: Toolbox) -> None:
        self._preparation = toolbox.preparation
        self._providers = toolbox.providers
        self._inputs = toolbox.inputs
        self._calls = toolbox.calls
        self._polled = toolbox.polled
        self._spool = toolbox.spool
        self._outputs = toolbox.outputs
        self._max_image_bytes = toolbox.settings.max_image_bytes

    async def run(self, run: JobRun, job: ImageJob) -> Outcome:
        provider = self._providers.named(run.job.provider)
        if isinstance(provider, PolledProvider):
            return await self._from_task(run, provider, job)
        if not isinstance(provider, SynchronousProvider):
            raise TypeError(f"{provider.name} has no way of delivery")
        # from the POST until its pictures lie in the bucket, only this process has what was paid
        with run.protected():
            return await self._from_reply(run, provider, job)

    async def _from_reply(self, run: JobRun, provider: SynchronousProvider, job: ImageJob) -> Outcome:
        """The pictures of a synchronous provider's reply."""
        expected = job.n * _BYTES_PER_IMAGE
        if run.job.kept is not None:
            async with self._spool.workspace(expected_bytes=expected) as directory:
                return await self._store_kept(run, provider, _request(job), run.job.kept, directory)
        call = await self._calls.find_reusable(run, provider, _capability(job))
        if call is None:
            self._spool.require(expected)
            async with AsyncExitStack() as stack:
                request = await self._with_inputs(run, job, stack)
                call = await self._calls.execute(run, provider, request)
        if not isinstance(call, Call):
            return call
        if call.state is CallState.SETTLED and call.result is not None:
            return _stored_earlier(call, call.result)
        # only now, not while the call is open: hundreds wait for a provider at a time
        async with self._spool.workspace(expected_bytes=expected) as directory:
            return await self._store(run, provider, _request(job), call, directory)

    async def _from_task(self, run: JobRun, provider: PolledProvider, job: ImageJob) -> Outcome:
        """The pictures of a polled provider's task."""
        call = await self._calls.find_reusable(run, provider, _capability(job))
        if call is None:
            async with AsyncExitStack() as stack:
                request = await self._with_inputs(run, job, stack)
                call = await self._calls.execute(run, provider, request)
        if not isinstance(call, Call):
            return call
        finished = await self._polled.finished(run, provider, call)
        if not isinstance(finished, FinishedCall):
            return finished
        async with self._spool.workspace(expected_bytes=job.n * _BYTES_PER_IMAGE) as directory:
            files = await self._downloaded(run, provider, finished.task, directory)
            if not isinstance(files, list):
                return files
            stored = await self._upload(run, files, range(len(run.assets)))
        return stored.outcome(finished.task.id)

    async def _with_inputs(self, run: JobRun, job: ImageJob, stack: AsyncExitStack) -> ImageRequest:
        request = _request(job)
        if not job.inputs:
            return request
        async with self._preparation.of(run):
            fetched = [
                await stack.enter_async_context(self._inputs.fetch_picture(ref, run.job.user_id)) for ref in job.inputs
            ]
        return replace(request, inputs=tuple(fetched))

    async def _downloaded(
        self, run: JobRun, provider: PolledProvider, task: ProviderTask, directory: Path
    ) -> list[ResultFile | None] | Outcome:
        """The task's pictures on disk. None stands for one that is no picture."""
        files: list[ResultFile | None] = []
        for number in range(min(len(task.output_urls), len(run.assets))):
            target = directory / f"{number}.image"
            file = await self._polled.download(
                run, provider, task, target, max_bytes=self._max_image_bytes, number=number
            )
            if not isinstance(file, DownloadedFile):
                return file
            try:
                seen = await self._inputs.look_at(file.path, run.job.user_id)
            except AppError as error:
                if error.error is not ErrorCode.PROVIDER_RESULT_INVALID:
                    raise
                files.append(None)
                continue
            extension = extension_of(seen.content_type)
            files.append(ResultFile(file.path, seen.content_type, extension, file.size, seen.width, seen.height))
        return files

    async def _store(
        self, run: JobRun, provider: SynchronousProvider, request: ImageRequest, call: Call, directory: Path
    ) -> Outcome:
        try:
            with boundary(Boundary.DECODE):
                result = await provider.decode(self._spool.reply(call.id), request, directory=directory)
        except OutcomeUnknown:
            return await self._calls.reply_useless(run, provider, call)
        try:
            stored = await self._upload(run, result.files, range(len(run.assets)))
        except ClaimLost:
            await self._calls.result_unwanted(call, result)
            raise
        stored.keep(self._spool, call.id)
        await self._calls.result_stored(call, result, stored=stored.as_json(), keep=stored.kept is not None)
        return stored.outcome(call.provider_request_id)

    async def _store_kept(
        self, run: JobRun, provider: SynchronousProvider, request: ImageRequest, kept: KeptResult, directory: Path
    ) -> Outcome:
        """Store what storage refused when the job whose place this one takes had paid it."""
        call = await self._calls.kept_call(kept)
        if not self._spool.has_reply(call.id):
            until = f"{kept.until:%Y-%m-%d %H:%M} UTC"
            message = f"The paid pictures are gone: they were kept on {kept.host} until {until}."
            return Failed(ErrorCode.PAID_RESULT_GONE, message)
        with boundary(Boundary.DECODE):
            result = await provider.decode(self._spool.reply(call.id), request, directory=directory)
        stored = await self._upload(run, result.files, kept.pictures)
        stored.keep(self._spool, call.id)
        return stored.outcome(call.provider_request_id)

    async def _upload(self, run: JobRun, files: Sequence[ResultFile | None], pictures: Sequence[int]) -> _Stored:
        """Store these pictures of a result, one for each row. One that storage refuses does not hold up the others."""
        stored = _Stored(tuple(pictures))
        for slot, number in zip(run.assets, pictures, strict=False):
            image = files[number] if number < len(files) else None
            if image is None:
                few = number >= len(files)
                error = ErrorCode.PROVIDER_RESULT_MISSING if few else ErrorCode.PROVIDER_RESULT_INVALID
                stored.missing[slot.id] = Missing(error, error.title)
                continue
            try:
                stored.files.append(await self._put(run, slot, image))
            except ResultRefused as refusal:
                stored.refuse(slot, number, refusal)
        return stored

    async def _put(self, run: JobRun, slot: AssetSlot, image: ResultFile) -> StoredFile:
        """Store one picture, however long storage is away: another machine does not have the reply. Raises ClaimLost,
        ResultRefused, and during a stop what went wrong."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return await self._outputs.store(
                    run,
                    slot,
                    image.path,
                    content_type=image.content_type,
                    width=image.width,
                    height=image.height,
                )
            except (StorageUnavailable, *UNREACHABLE) as error:
                if run.lost:
                    raise ClaimLost from error
                if run.stopping:
                    raise
                log.warning("paid_picture_waits_for_storage", error=type(error).__name__)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


@dataclass
class _Stored:
    """What became of the pictures of a reply, with all that is needed to end the job later."""

    pictures: tuple[int, ...]
    files: list[StoredFile] = field(default_factory=list[StoredFile])
    missing: dict[UUID, Missing] = field(default_factory=dict[UUID, Missing])
    refused: list[int] = field(default_factory=list[int])
    refusal: Missing | None = None
    kept: KeptResult | None = None

    def refuse(self, slot: AssetSlot, number: int, refusal: ResultRefused) -> None:
        self.missing[slot.id] = Missing(refusal.error, refusal.detail or refusal.error.title)
        self.refusal = self.refusal or self.missing[slot.id]
        self.refused.append(number)

    def keep(self, spool: Spool, call_id: UUID) -> None:
        """A job without a file fails with all its rows, so that a retry has them all again."""
        if self.refused:
            self.kept = spool.keep_reply(call_id, self.refused if self.files else self.pictures)

    def outcome(self, provider_request_id: str | None) -> Outcome:
        if self.files:
            return Completed(tuple(self.files), provider_request_id, self.missing, self.kept)
        if self.refusal is not None:
            return Failed(self.refusal.error, self.refusal.message, self.kept)
        return Failed(ErrorCode.PROVIDER_RESULT_INVALID, "None of the provider's pictures could be used.")

    def as_json(self) -> dict[str, Any]:
        return {
            "files": [file.as_json() for file in self.files],
            "missing": {str(id_): [missing.error.code, missing.message] for id_, missing in self.missing.items()},
            "refusal": None if self.refusal is None else [self.refusal.error.code, self.refusal.message],
            "kept": None if self.kept is None else self.kept.as_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> _Stored:
        return cls(
            pictures=(),
            files=[StoredFile.from_json(file) for file in value["files"]],
            missing={UUID(id_): _missing(words) for id_, words in value["missing"].items()},
            refusal=None if value["refusal"] is None else _missing(value["refusal"]),
            kept=None if value["kept"] is None else KeptResult.from_json(value["kept"]),
        )


def _request(job: ImageJob) -> ImageRequest:
    """What is asked for, before its inputs are here."""
    return ImageRequest(
        prompt=job.prompt,
        n=job.n,
        size=job.size,
        quality=job.quality,
        background=job.background,
        output_format=job.output_format,
        sketch=job.sketch,
        safety_identifier=job.safety_identifier,
    )


def _capability(job: ImageJob) -> Capability:
    if job.sketch:
        return Capability.SKETCH_TO_IMAGE
    return Capability.IMAGE_TO_IMAGE if job.inputs else Capability.TEXT_TO_IMAGE


def _missing(words: Sequence[str]) -> Missing:
    code, message = words
    return Missing(ErrorCode.of(code), message)


def _stored_earlier(call: Call, result: Mapping[str, Any]) -> Outcome:
    return _Stored.from_json(result).outcome(call.provider_request_id)


GENERATE_IMAGES = JobType(
    name="generate_images", handler=GenerateImages, params=ImageJob, permit="paid", time_limit_seconds=1800.0
)
