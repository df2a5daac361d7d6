"""What the polled job types share: wait for a call that was submitted once, and download with a fresh link."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import structlog

from app.ai_clients.base import DownloadedFile, PolledProvider, ProviderTask, ProviderTaskState
from app.ai_clients.errors import Advice, ProviderError, Refused
from app.ai_clients.registry import Providers
from app.calls.journal import Call
from app.calls.poller import Poller
from app.domain.crash_points import Boundary, boundary
from app.domain.jobs import Failed, Outcome
from app.domain.statuses import CallState
from app.errors import AppError, ErrorCode
from app.services.job_run import JobRun
from app.services.outcomes import RetryPolicy
from app.tracing import Kind, span

log = structlog.get_logger(__name__)

_FRESH_LINKS = 3


@dataclass(frozen=True, slots=True)
class FinishedCall:
    """Paid work that the provider finished well, and the call that paid for it."""

    id: UUID
    task: ProviderTask


class PolledCalls:
    def __init__(self, providers: Providers, pollers: Mapping[str, Poller], retry: RetryPolicy) -> None:
        self._providers = providers
        self._pollers = pollers
        self._retry = retry

    def provider(self, run: JobRun) -> PolledProvider:
        """Raises AppError(PROVIDER_NOT_AVAILABLE)."""
        provider = self._providers.named(run.job.provider)
        if not isinstance(provider, PolledProvider):
            raise AppError(ErrorCode.PROVIDER_NOT_AVAILABLE, "The job's provider cannot be polled.")
        return provider

    async def finished(self, run: JobRun, provider: PolledProvider, call: Call) -> FinishedCall | Outcome:
        """The call when the provider is done with it, or how the run ends without its result. Raises ProviderError
        when the provider cannot be asked."""
        if call.provider_task_id is None:
            raise AppError(ErrorCode.INTERNAL_ERROR, "The journal has no provider task for this job.")
        if call.state is CallState.SUBMITTED:
            task = await self._pollers[provider.name].wait(call)
        else:
            found = await self._task_now(run, provider, call.provider_task_id)
            if not isinstance(found, ProviderTask):
                return found
            task = found
        if task.state is ProviderTaskState.SUCCEEDED:
            return FinishedCall(call.id, task)
        return self._failed(run, task)

    async def _task_now(self, run: JobRun, provider: PolledProvider, task_id: str) -> ProviderTask | Outcome:
        """The task as it is now. What is paid is not given up because the provider cannot be asked just now."""
        try:
            return await self._pollers[provider.name].task_now(task_id)
        except Refused as error:
            return self._retry.defer(run.job, error.code, error.detail, error.retry_after)

    def _failed(self, run: JobRun, task: ProviderTask) -> Outcome:
        error = task.error or ErrorCode.PROVIDER_TASK_FAILED
        detail = task.error_detail or error.title
        match task.state:
            case ProviderTaskState.FAILED if error is ErrorCode.PROVIDER_TASK_EXPIRED:
                return self._retry.retry(run.job, error, detail, start_over=True)
            case ProviderTaskState.FAILED:
                return Failed(error, detail)
            case ProviderTaskState.CANCELED:
                return Failed(ErrorCode.PROVIDER_TASK_CANCELED, ErrorCode.PROVIDER_TASK_CANCELED.title)
            case _:
                # done by the journal, but not listed just now
                unlisted = Refused(
                    ErrorCode.PROVIDER_UNAVAILABLE, "The provider does not list the task.", advice=Advice.RETRY
                )
                return self._retry.outcome_of(run.job, unlisted)

    async def download(
        self,
        run: JobRun,
        provider: PolledProvider,
        task: ProviderTask,
        target: Path,
        *,
        max_bytes: int,
        number: int = 0,
    ) -> DownloadedFile | Outcome:
        """A file of the task's output; a dead link is asked for again. Raises Refused."""
        for attempt in range(_FRESH_LINKS):
            if number >= len(task.output_urls):
                raise Refused(ErrorCode.PROVIDER_RESULT_MISSING, "The provider says success but names no result.")
            try:
                with span("download", Kind.CLIENT, provider=provider.name), boundary(Boundary.DOWNLOAD):
                    return await provider.download(task.output_urls[number], target, max_bytes=max_bytes)
            except Refused as error:
                if error.advice is not Advice.RETRY or attempt == _FRESH_LINKS - 1:
                    raise
                log.info("download_link_renewed", code=error.code.code)
                found = await self._task_now(run, provider, task.id)
                if not isinstance(found, ProviderTask):
                    return found
                task = found
        raise AssertionError  # pragma: no cover - the loop returns or raises

    async def preview(
        self, provider: PolledProvider, task: ProviderTask, target: Path, *, max_bytes: int
    ) -> Path | None:
        """The provider's own picture of the result; a model is never lost for want of it."""
        if task.preview_url is None:
            return None
        try:
            with boundary(Boundary.DOWNLOAD):
                return (await provider.download(task.preview_url, target, max_bytes=max_bytes)).path
        except ProviderError as error:
            log.warning("preview_not_downloaded", code=error.code.code)
            return None
