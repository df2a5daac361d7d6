"""From what went wrong to how the run ends: the one place that decides about retries."""

from __future__ import annotations

import errno
import random
from dataclasses import dataclass

import structlog

from app.ai_clients.errors import Advice, OutcomeUnknown, ProviderError, Refused
from app.config import Settings
from app.db.pool import UNREACHABLE
from app.domain.jobs import ClaimedJob, Deferred, Failed, Outcome, Retry
from app.domain.statuses import WaitingFor
from app.errors import AppError, ErrorCode
from app.storage.base import StorageError, StorageUnavailable

log = structlog.get_logger(__name__)

_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
_LONGEST_WAIT_SECONDS = 15.0  # what waits for a service of ours is soon at work again when it is back


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with jitter, in seconds; ``max_attempts`` counts failed attempts of a job."""

    base_seconds: float
    cap_seconds: float
    max_attempts: int
    max_wait_seconds: float

    @classmethod
    def of(cls, settings: Settings) -> RetryPolicy:
        return cls(
            base_seconds=settings.retry_base_seconds,
            cap_seconds=settings.retry_cap_seconds,
            max_attempts=settings.max_attempts,
            max_wait_seconds=settings.max_wait_seconds,
        )

    def delay(self, failures: int) -> float:
        ceiling = min(self.cap_seconds, self.base_seconds * 2 ** min(failures, 30))
        return ceiling * random.uniform(0.5, 1.0)

    def retry(self, job: ClaimedJob, error: ErrorCode, message: str, *, start_over: bool = False) -> Outcome:
        if job.failures + 1 >= self.max_attempts:
            return Failed(error, message)
        return Retry(error, message, self.delay(job.failures), start_over=start_over)

    def defer(self, job: ClaimedJob, error: ErrorCode, message: str, retry_after: float | None) -> Outcome:
        if job.age_seconds > self.max_wait_seconds:
            return Failed(error, message)
        wanted = retry_after if retry_after is not None else self.delay(job.deferrals)
        # a provider tells every caller the same second: spread the repeats
        return Deferred(error, message, min(wanted, self.max_wait_seconds) + random.uniform(0.05, 0.5))

    def wait_for_breaker(self, job: ClaimedJob, error: ProviderError) -> Outcome:
        """The provider takes no work at all: the job goes back to its place in the queue, where the breaker keeps it,
        for as long as an outage may keep a job."""
        return Deferred(error.code, error.detail, self.delay(min(job.deferrals, 2)), WaitingFor.BREAKER)

    def outcome_of(self, job: ClaimedJob, error: Exception) -> Outcome:
        """How a run ends that was left by this exception."""
        match error:
            case Refused():
                return self._refused(job, error)
            case OutcomeUnknown():
                return Failed(ErrorCode.PROVIDER_OUTCOME_UNKNOWN, error.detail)
            case ProviderError():
                return self.retry(job, error.code, error.detail)
            case _ if (away := _away(error)) is not None:
                return self._wait_for(job, away, error)
            case AppError():
                message = error.detail or error.error.title
                if error.error.retry_helps:
                    return self.retry(job, error.error, message)
                return Failed(error.error, message)
            case StorageError():
                return self.retry(job, ErrorCode.STORAGE_UNAVAILABLE, "Storage did not answer properly.")
            case _:
                log.error("handler_failed", job_id=str(job.claim.job_id), job_type=job.type, exc_info=error)
                return self.retry(job, ErrorCode.INTERNAL_ERROR, "Something went wrong on our side.")

    def _wait_for(self, job: ClaimedJob, away: ErrorCode, error: Exception) -> Outcome:
        """The job waits for a service of our own, up to its deadline, and fails no attempt over it."""
        name = type(error).__name__
        if isinstance(error, OSError) and (error.filename is not None or error.errno in _DISK):
            log.error("spool_unusable", error=name, reason=error.strerror)
        else:
            log.warning("job_waits_for_service", code=away.code, error=name)
        return Deferred(away, away.title, min(self.delay(job.deferrals), _LONGEST_WAIT_SECONDS))

    def _refused(self, job: ClaimedJob, error: Refused) -> Outcome:
        match error.advice:
            case Advice.DEFER:
                return self.defer(job, error.code, error.detail, error.retry_after)
            case Advice.RETRY:
                return self.retry(job, error.code, error.detail)
            case Advice.CONFIGURATION:
                return self.wait_for_breaker(job, error)
            case Advice.FINAL:
                return Failed(error.code, error.detail)


def _away(error: Exception) -> ErrorCode | None:
    """The service of our own that did not answer, when that is what went wrong."""
    match error:
        case AppError(error=ErrorCode.STORAGE_UNAVAILABLE | ErrorCode.SERVICE_UNAVAILABLE as away):
            return away
        case StorageUnavailable():
            return ErrorCode.STORAGE_UNAVAILABLE
        case _ if isinstance(error, UNREACHABLE):
            return ErrorCode.SERVICE_UNAVAILABLE
        case _:
            return None
