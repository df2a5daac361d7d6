"""How a run ended, as columns of its job and rows of its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from app.domain.jobs import (
    Completed,
    Deferred,
    Failed,
    FollowUp,
    HandedBack,
    ItemEnd,
    KeptResult,
    Outcome,
    Retry,
    Settlement,
)
from app.domain.statuses import WaitingFor
from app.domain.task_ids import is_task_id
from app.errors import ErrorCode


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended, as rows of the statements that write it."""

    columns: dict[str, Any]
    files: list[dict[str, Any]]
    missing: list[dict[str, Any]]
    items: list[dict[str, Any]]
    follow_ups: list[FollowUp]
    task_ids: list[str]  # to be locked: the job's, and those that follow-ups name

    @classmethod
    def of(cls, run: Settlement) -> RunEnd:
        found = run.outcome.follow_ups if isinstance(run.outcome, Completed) else ()
        # one that is no id makes its follow-up fail, and nothing else
        others = [one.task_id for one in found if one.task_id is not None and is_task_id(one.task_id)]
        return cls(
            columns=run_columns(run),
            files=stored_files(run),
            missing=missing_outputs(run),
            items=ended_items(run),
            follow_ups=list(found),
            task_ids=[run.job.task_id, *others],
        )

    @property
    def job_id(self) -> UUID:
        return UUID(self.columns["id"])

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RunEnd:
        values: dict[str, Any] = dict(value)
        values["follow_ups"] = [FollowUp.from_json(one) for one in value["follow_ups"]]
        return cls(**values)


def run_columns(run: Settlement) -> dict[str, Any]:
    """A row of ``finish_jobs``."""
    lease = run.job.claim
    return {
        "id": str(lease.job_id),
        "worker_id": str(lease.worker_id),
        "attempt": lease.attempt,
        "delay": 0.0,
        "waiting_for": WaitingFor.RETRY.value,
        "failed": 0,
        "deferred": 0,
        "start_over": False,
        "error_code": None,
        "error_message": None,
        "output": None,
        "usage": None,
        "items": 0,
        "drops_kept": False,
    } | _outcome_columns(run.outcome)


def _outcome_columns(outcome: Outcome) -> dict[str, Any]:
    match outcome:
        case Completed(files=files, provider_task_id=task, kept=kept, output=own, usage=usage, items=items):
            output = {**own, "files": [file.as_json() for file in files], "provider_task_id": task}
            usage = None if usage is None else dict(usage)
            columns = {"status": "completed", "output": output, "usage": usage, "items": len(items)}
            return columns | {"drops_kept": True} | _kept(kept)
        case Failed(error=error, message=message, kept=kept):
            # whatever else ends the job, what is kept for it stays for the next one
            gone = error is ErrorCode.PAID_RESULT_GONE
            columns = {"status": "failed", "failed": 1, "error_code": error.code, "error_message": message}
            return columns | {"drops_kept": gone} | _kept(kept)
        case Retry(error=error, message=message, delay=delay, start_over=start_over):
            return {
                "status": "queued",
                "failed": 1,
                "delay": delay,
                "start_over": start_over,
                "error_code": error.code,
                "error_message": message,
            }
        case Deferred(error=error, message=message, delay=delay, waiting_for=waiting_for):
            return {
                "status": "queued",
                "deferred": 1,
                "delay": delay,
                "waiting_for": waiting_for.value,
                "error_code": None if error is None else error.code,
                "error_message": message,
            }
        case HandedBack():
            return {"status": "queued"}


def _kept(kept: KeptResult | None) -> dict[str, Any]:
    return {} if kept is None else kept.as_json()


def stored_files(run: Settlement) -> list[dict[str, Any]]:
    """Rows of ``finish_outputs``: the outputs that have a file."""
    if not isinstance(run.outcome, Completed):
        return []
    task = run.outcome.provider_task_id
    return [file.as_json() | {"provider_task_id": task} for file in run.outcome.files]


def item_rows(items: Sequence[ItemEnd]) -> list[dict[str, Any]]:
    """Of ``record_items``; with the job's id, of ``finish_outputs``."""
    return [
        {
            "key": item.key,
            "position": position,
            "status": item.status,
            "error_code": None if item.error is None else item.error.code,
            "error_message": item.message,
            "output": dict(item.output),
        }
        for position, item in enumerate(items, 1)
    ]


def ended_items(run: Settlement) -> list[dict[str, Any]]:
    """Rows of ``finish_outputs``: the items of a completed job."""
    if not isinstance(run.outcome, Completed):
        return []
    return [row | {"job_id": str(run.job.claim.job_id)} for row in item_rows(run.outcome.items)]


def missing_outputs(run: Settlement) -> list[dict[str, Any]]:
    """Rows of ``finish_outputs``: the outputs of a completed job that have none."""
    if not isinstance(run.outcome, Completed):
        return []
    return [
        {
            "job_id": str(run.job.claim.job_id),
            "asset_id": str(asset_id),
            "status": "failed",
            "error_code": missing.error.code,
            "error_message": missing.message,
        }
        for asset_id, missing in run.outcome.missing.items()
    ]
