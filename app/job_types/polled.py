"""What the polled job types share: submit once, wait, download with a fresh link."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import structlog

from app.ai_clients.base import DownloadedFile, ModelKind, ModelProvider, ModelSpec, ProviderTask, ProviderTaskState
from app.ai_clients.errors import Advice, ProviderError, Refused
from app.ai_clients.registry import Providers
from app.domain.crash_points import Boundary, boundary
from app.domain.jobs import Failed
from app.domain.statuses import CallState
from app.errors import AppError, ErrorCode
from app.services.job_run import JobEnded, JobRun
from app.services.journal import Journal
from app.services.outcomes import RetryPolicy
from app.services.poller import Poller
from app.tracing import Kind, span

log = structlog.get_logger(__name__)

_FRESH_LINKS = 3


@dataclass(frozen=True, slots=True)
class FinishedCall:
    """Paid work that the provider finished well, and the call that paid for it."""

    id: UUID
    task: ProviderTask


class PolledCalls:
    def __init__(self, providers: Providers, journal: Journal, pollers: dict[str, Poller], retry: RetryPolicy) -> None:
        self._providers = providers
        self._journal = journal
        self._pollers = pollers
        self._retry = retry

    def provider(self, run: JobRun) -> ModelProvider:
        return self._providers.model_provider(run.job.provider)

    async def finished(
        self, run: JobRun, kind: ModelKind, prepare: Callable[[], Awaitable[ModelSpec]], *, last: bool = True
    ) -> FinishedCall:
        """The successful call of this kind for the job, submitted at most once.

        Raises JobEnded when the provider failed, ProviderError when it can not be asked.
        """
        provider = self.provider(run)
        poller = self._pollers[provider.name]
        call = await self._journal.submission_for(run, provider, kind, prepare, last=last)
        if call.provider_task_id is None:
            raise AppError(ErrorCode.INTERNAL_ERROR, "The journal has no provider task for this job.")
        if call.state is CallState.SUBMITTED:
            task = await poller.wait(call)
        else:
            task = await self._look(run, call.provider_task_id)
        if task.state is not ProviderTaskState.SUCCEEDED:
            self._end(run, task)
        return FinishedCall(call.id, task)

    async def _look(self, run: JobRun, task_id: str) -> ProviderTask:
        """The task as it is now. What is paid is not given up because the provider can not be asked just now."""
        try:
            return await self._pollers[self.provider(run).name].look(task_id)
        except Refused as error:
            raise JobEnded(self._retry.defer(run.job, error.code, error.detail, error.retry_after)) from error

    def _end(self, run: JobRun, task: ProviderTask) -> None:
        error = task.error or ErrorCode.PROVIDER_TASK_FAILED
        detail = task.error_detail or error.title
        match task.state:
            case ProviderTaskState.FAILED if error is ErrorCode.PROVIDER_TASK_EXPIRED:
                raise JobEnded(self._retry.retry(run.job, error, detail, start_over=True))
            case ProviderTaskState.FAILED:
                raise JobEnded(Failed(error, detail))
            case ProviderTaskState.CANCELED:
                raise JobEnded(Failed(ErrorCode.PROVIDER_TASK_CANCELED, ErrorCode.PROVIDER_TASK_CANCELED.title))
            case _:
                # done by the journal, but not listed just now
                raise Refused(
                    ErrorCode.PROVIDER_UNAVAILABLE, "The provider does not list the task.", advice=Advice.RETRY
                )

    async def download(self, run: JobRun, task: ProviderTask, target: Path, *, max_bytes: int) -> DownloadedFile:
        """The task's output; a dead link is asked for again. Raises Refused, ProviderError."""
        provider = self.provider(run)
        for attempt in range(_FRESH_LINKS):
            if task.output_url is None:
                raise Refused(ErrorCode.PROVIDER_RESULT_MISSING, "The provider says success but names no result.")
            try:
                with span("download", Kind.CLIENT, provider=provider.name), boundary(Boundary.DOWNLOAD):
                    return await provider.download(task.output_url, target, max_bytes=max_bytes)
            except Refused as error:
                if error.advice is not Advice.RETRY or attempt == _FRESH_LINKS - 1:
                    raise
                log.info("download_link_renewed", code=error.code.code)
                task = await self._look(run, task.id)
        raise AssertionError  # pragma: no cover - the loop returns or raises

    async def preview(self, run: JobRun, task: ProviderTask, target: Path, *, max_bytes: int) -> Path | None:
        """The provider's own picture of the result; a model is never lost for want of it."""
        if task.preview_url is None:
            return None
        try:
            with boundary(Boundary.DOWNLOAD):
                return (await self.provider(run).download(task.preview_url, target, max_bytes=max_bytes)).path
        except ProviderError as error:
            log.warning("preview_not_downloaded", code=error.code.code)
            return None
