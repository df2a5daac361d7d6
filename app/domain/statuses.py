"""Status words and the only translations between them.

Jobs and tasks: ``queued running completed failed canceled``.
Asset rows and ``/tasks/{id}/status``: ``pending processing complete failed canceled``.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_final(self) -> bool:
        return self in _FINAL


class AssetStatus(StrEnum):
    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETE = "complete"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_final(self) -> bool:
        return self in (AssetStatus.COMPLETE, AssetStatus.FAILED, AssetStatus.CANCELED)


class CallState(StrEnum):
    """State of a journalled provider call; ``refused`` and ``settled`` are final."""

    INTENT = "intent"
    SUBMITTED = "submitted"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    SETTLED = "settled"


class WaitingFor(StrEnum):
    """Why a queued job does not run. ``slot`` and ``worker`` (nothing keeps it back: no worker has claimed it yet) are
    derived and never stored; ``breaker`` is derived but for the job whose call was just refused."""

    RETRY = "retry"
    USER_LIMIT = "user_limit"
    STEP = "step"
    DEPENDENCY = "dependency"
    BREAKER = "breaker"
    SLOT = "slot"
    WORKER = "worker"


_FINAL = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED})

_ASSET_OF_JOB = {
    JobStatus.QUEUED: AssetStatus.PENDING,
    JobStatus.RUNNING: AssetStatus.PROCESSING,
    JobStatus.COMPLETED: AssetStatus.COMPLETE,
    JobStatus.FAILED: AssetStatus.FAILED,
    JobStatus.CANCELED: AssetStatus.CANCELED,
}


def asset_status(job: JobStatus) -> AssetStatus:
    """The asset word for a job word."""
    return _ASSET_OF_JOB[job]


def request_status(jobs: Iterable[JobStatus]) -> JobStatus:
    """The status of a request (and of its task) from its jobs' statuses; ``queued`` when there are none."""
    words = set(jobs)
    if JobStatus.RUNNING in words or (JobStatus.QUEUED in words and JobStatus.COMPLETED in words):
        return JobStatus.RUNNING
    for word in (JobStatus.QUEUED, JobStatus.FAILED, JobStatus.CANCELED, JobStatus.COMPLETED):
        if word in words:
            return word
    return JobStatus.QUEUED
