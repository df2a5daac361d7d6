"""The states of a job and who may change them. ``docs/architecture.md`` has the same table, held by a test."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from app.domain.statuses import JobStatus


class Transition(StrEnum):
    """The only reasons why ``jobs.status`` changes; each is named statements of ``app/queue``."""

    ACCEPT = "accept"
    CLAIM = "claim"
    FINISH = "finish"
    REQUEUE = "requeue"  # a retry, a snooze, or a lease given back
    CANCEL = "cancel"
    EXPIRE = "expire"  # of a lease, a deadline, the time to start in, or the time that an outage may keep a job
    FAIL_DEPENDENTS = "fail_dependents"  # what waited for a step or a task, or is refused as it is made
    ERASE = "erase"  # the user's rows are about to be erased


_QUEUED, _RUNNING = JobStatus.QUEUED, JobStatus.RUNNING
_COMPLETED, _FAILED, _CANCELED = JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED

# (old, new) → who may; None stands for a job that does not exist yet
TRANSITIONS: Mapping[tuple[JobStatus | None, JobStatus], frozenset[Transition]] = {
    (None, _QUEUED): frozenset({Transition.ACCEPT}),
    (_QUEUED, _RUNNING): frozenset({Transition.CLAIM}),
    (_QUEUED, _FAILED): frozenset({Transition.EXPIRE, Transition.FAIL_DEPENDENTS}),
    (_QUEUED, _CANCELED): frozenset({Transition.CANCEL, Transition.ERASE}),
    (_RUNNING, _QUEUED): frozenset({Transition.REQUEUE, Transition.EXPIRE}),
    (_RUNNING, _COMPLETED): frozenset({Transition.FINISH}),
    (_RUNNING, _FAILED): frozenset({Transition.FINISH, Transition.EXPIRE}),
    (_RUNNING, _CANCELED): frozenset({Transition.CANCEL, Transition.ERASE}),
}
