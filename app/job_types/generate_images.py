"""Job type ``generate_images``: one paid call of an image provider becomes files and rows."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import structlog

from app.ai_clients.base import DecodedImage, ImageProvider, ImageRequest, ImageResult
from app.ai_clients.errors import OutcomeUnknown
from app.ai_clients.registry import Providers
from app.db.pool import UNREACHABLE
from app.db.provider_calls import Call
from app.domain.crash_points import Boundary, boundary
from app.domain.jobs import AssetSlot, Completed, Failed, Outcome, StoredFile
from app.domain.params import ImageJob
from app.domain.statuses import CallState
from app.errors import ErrorCode
from app.services.input_files import InputFiles
from app.services.job_run import ClaimLost, JobRun
from app.services.journal import Journal
from app.services.outputs import Outputs
from app.services.preparation import Preparation
from app.services.spool import Spool
from app.storage.base import StorageUnavailable

log = structlog.get_logger(__name__)

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
_BYTES_PER_IMAGE = 32 * 1024 * 1024  # a 4K PNG and its base64 reply


class GenerateImages:
    def __init__(
        self,
        providers: Providers,
        inputs: InputFiles,
        preparation: Preparation,
        journal: Journal,
        spool: Spool,
        outputs: Outputs,
    ) -> None:
        self._preparation = preparation
        self._providers = providers
        self._inputs = inputs
        self._journal = journal
        self._spool = spool
        self._outputs = outputs

    async def run(self, run: JobRun) -> Outcome:
        job = ImageJob.from_json(run.job.params)
        provider = self._providers.image_provider(run.job.provider)
        request = ImageRequest(
            prompt=job.prompt,
            n=job.n,
            size=job.size,
            quality=job.quality,
            background=job.background,
            output_format=job.output_format,
            sketch=job.sketch,
            safety_identifier=job.safety_identifier,
        )
        expected = job.n * _BYTES_PER_IMAGE
        async with AsyncExitStack() as stack:

            async def prepare() -> ImageRequest:
                self._spool.require(expected)
                if not job.inputs:
                    return request
                async with self._preparation.of(run):
                    fetched = [
                        await stack.enter_async_context(self._inputs.fetch_picture(ref, run.job.user_id))
                        for ref in job.inputs
                    ]
                return replace(request, inputs=tuple(fetched))

            # from the POST until its pictures lie in the bucket, only this process has what was paid
            with run.protected():
                call = await self._journal.reply_for(run, provider, prepare)
                if call.state is CallState.SETTLED and call.result is not None:
                    return _stored_earlier(call, call.result)
                # only now, not while the call is open: hundreds wait for a provider at a time
                directory = await stack.enter_async_context(self._spool.workspace(expected_bytes=expected))
                return await self._store(run, provider, request, call, directory)

    async def _store(
        self, run: JobRun, provider: ImageProvider, request: ImageRequest, call: Call, directory: Path
    ) -> Outcome:
        try:
            with boundary(Boundary.DECODE):
                result = await provider.decode(self._spool.reply(call.id), request, directory=directory)
        except OutcomeUnknown:
            await self._journal.reply_useless(run, call)
            raise
        try:
            files = await self._upload(run, result)
        except ClaimLost:
            await self._journal.result_unwanted(call, result)
            raise
        missing = _missing(run, result)
        await self._journal.result_stored(
            call,
            result,
            stored={
                "files": [file.as_json() for file in files],
                "missing": {str(asset_id): error.code for asset_id, error in missing.items()},
            },
        )
        return _outcome(files, missing, call.provider_request_id)

    async def _upload(self, run: JobRun, result: ImageResult) -> tuple[StoredFile, ...]:
        files: list[StoredFile] = []
        for slot, image in zip(run.assets, result.images, strict=False):
            if image is not None:
                files.append(await self._put(run, slot, image))
        return tuple(files)

    async def _put(self, run: JobRun, slot: AssetSlot, image: DecodedImage) -> StoredFile:
        """Store one picture, however long storage is away: another machine does not have the reply. Raises ClaimLost,
        and during a stop what went wrong."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return await self._outputs.store(
                    run,
                    slot,
                    image.path,
                    content_type=image.content_type,
                    extension=image.extension,
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


def _missing(run: JobRun, result: ImageResult) -> dict[UUID, ErrorCode]:
    """Rows that got no picture: the reply had too few, or one could not be decoded."""
    delivered = len(result.images)
    return {
        slot.id: ErrorCode.PROVIDER_RESULT_MISSING if index >= delivered else ErrorCode.PROVIDER_RESULT_INVALID
        for index, slot in enumerate(run.assets)
        if index >= delivered or result.images[index] is None
    }


def _stored_earlier(call: Call, result: Mapping[str, object]) -> Outcome:
    files = result["files"]
    missing = result["missing"]
    assert isinstance(files, list)  # noqa: S101 - written by this file
    assert isinstance(missing, dict)  # noqa: S101
    return _outcome(
        tuple(StoredFile.from_json(file) for file in files),
        {UUID(str(asset_id)): ErrorCode.of(str(code)) for asset_id, code in missing.items()},
        call.provider_request_id,
    )


def _outcome(
    files: tuple[StoredFile, ...], missing: Mapping[UUID, ErrorCode], provider_request_id: str | None
) -> Outcome:
    if not files:
        return Failed(ErrorCode.PROVIDER_RESULT_INVALID, "None of the provider's pictures could be used.")
    return Completed(files, provider_task_id=provider_request_id, missing=missing)
