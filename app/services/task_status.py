"""The status document of a request or a job, built from rows of one snapshot, and long polls for it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from app.db import tasks
from app.db.pool import Database
from app.db.tasks import StatusRows
from app.domain.asset_kinds import AssetKinds
from app.domain.statuses import AssetStatus, JobStatus, WaitingFor, asset_status, request_status
from app.domain.task_ids import is_task_id
from app.errors import AppError, ErrorCode
from app.services.event_stream import EventStream

_UNFINISHED_PROGRESS = 99  # 100 says complete
_COMPLETE_PROGRESS = 100
_POLL_SECONDS = 2.0  # where the provider has no pace of its own
_OUTAGE_POLL_SECONDS = 30.0  # at most, while a breaker is open


@dataclass(frozen=True, slots=True)
class StatusDocument:
    """``body`` is the JSON document; ``etag`` changes exactly when it does; ``retry_after`` is in seconds, None when
    the work has ended."""

    task_id: str
    body: bytes
    etag: str
    status: AssetStatus
    retry_after: float | None


class TaskStatus:
    """``poll_seconds`` is the pace of providers that are polled, by the name of the pool."""

    def __init__(self, database: Database, events: EventStream, poll_seconds: Mapping[str, float]) -> None:
        self._database = database
        self._kinds = database.tables.kinds
        self._events = events
        self._poll_seconds = poll_seconds

    async def document(self, id: str, user_id: UUID) -> StatusDocument:  # noqa: A002 - a task's or a job's
        """Of the newest request of a task, or of one job. Raises AppError(TASK_NOT_FOUND)."""
        rows = await tasks.status(self._database, id, user_id) if is_task_id(id) else None
        if rows is None:
            raise AppError(ErrorCode.TASK_NOT_FOUND)
        return self._document(rows)

    async def wait(self, id: str, user_id: UUID, *, seconds: float, known_etag: str | None) -> StatusDocument:  # noqa: A002
        """The document as soon as it differs from the known one, or is final, or the time is over.

        Without a known one, what it is now is taken as known. Where too many of the user's requests wait already, this
        one does not. Raises AppError(TASK_NOT_FOUND).
        """
        document = await self.document(id, user_id)
        known = known_etag or document.etag
        if document.etag != known or document.status.is_final:
            return document
        deadline = asyncio.get_running_loop().time() + seconds
        with self._events.watch_task(document.task_id, user_id) as watch:
            if watch is None:
                return document
            while True:
                watch.arm()
                document = await self.document(id, user_id)
                left = deadline - asyncio.get_running_loop().time()
                if document.etag != known or document.status.is_final or left <= 0 or self._events.stopping:
                    return document
                await watch.changed(left)

    def _document(self, rows: StatusRows) -> StatusDocument:
        jobs = [job for job in rows.jobs if not rows.single_job or UUID(job["id"]) == rows.job_id]
        assets = [asset for asset in rows.assets if not rows.single_job or _is_of(asset, rows.job_id)]
        status = asset_status(request_status(JobStatus(job["status"]) for job in jobs))
        current = next((job for job in jobs if not JobStatus(job["status"]).is_final), None)
        done = [asset for asset in assets if asset["status"] == AssetStatus.COMPLETE]
        first_url = next((asset["asset_url"] for asset in done if _is_of(asset, rows.job_id)), None)
        document: dict[str, Any] = {
            "task_id": rows.task_id,
            "request_id": str(rows.request_id),
            "job_id": str(rows.job_id),
            "operation": rows.operation,
            "retry_of": None if rows.retry_of is None else str(rows.retry_of),
            "status": status.value,
            "progress": _progress(jobs, rows.steps, status),
            "asset_url": first_url,
            "result_url": first_url,
            "result": _result(self._kinds, done),
            "error": _error(jobs, status),
            "waiting_for": None if current is None else current["waiting_for"],
            "jobs": [_job(job) for job in jobs],
        }
        body = orjson.dumps(document)
        etag = hashlib.sha256(body).hexdigest()[:32]
        retry_after = None if current is None else self._pace(current)
        return StatusDocument(rows.task_id, body, etag, status, retry_after)

    def _pace(self, job: Mapping[str, Any]) -> float:
        pace = self._poll_seconds.get(job["pool"], _POLL_SECONDS)
        if job["waiting_for"] != WaitingFor.BREAKER:
            return pace
        return max(pace, min(job["probe_seconds"] or 0.0, _OUTAGE_POLL_SECONDS))


def _result(kinds: AssetKinds, done: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The links of outputs that are complete, by the fields of their kinds."""
    links: dict[str, list[str]] = {name: [] for name in kinds.result_fields}
    for asset in done:
        if asset["kind"] not in kinds:  # of a newer process
            continue
        links[kinds[asset["kind"]].result_field].append(asset["asset_url"])
    return {name: links[name] if many else next(iter(links[name]), None) for name, many in kinds.result_fields.items()}


def _is_of(asset: Mapping[str, Any], job_id: UUID) -> bool:
    return asset["job_id"] is not None and UUID(asset["job_id"]) == job_id


def _progress(jobs: Sequence[Mapping[str, Any]], planned: int, status: AssetStatus) -> int:
    """Every step weighs the same, one that has no jobs yet included, and every job of a step."""
    if status is AssetStatus.COMPLETE:
        return _COMPLETE_PROGRESS
    steps: dict[int, list[int]] = {}
    for job in jobs:
        steps.setdefault(job["step"], []).append(job["progress"])
    done = sum(sum(each) / len(each) for each in steps.values())
    return min(int(done / max(planned, len(steps), 1)), _UNFINISHED_PROGRESS)


def _error(jobs: Sequence[Mapping[str, Any]], status: AssetStatus) -> dict[str, str] | None:
    """Why the work ended without its result; the job that ended first of all says it."""
    word = {AssetStatus.FAILED: JobStatus.FAILED, AssetStatus.CANCELED: JobStatus.CANCELED}.get(status)
    ended = next((job for job in jobs if word is not None and job["status"] == word), None)
    return None if ended is None else _error_of(ended)


def _error_of(job: Mapping[str, Any]) -> dict[str, str] | None:
    code: str | None = job["error_code"]
    return None if code is None else {"code": code, "message": job["error_message"] or _title(code)}


def _title(code: str) -> str:
    try:
        return ErrorCode.of(code).title
    except KeyError:  # written by a newer version
        return code


def _job(job: Mapping[str, Any]) -> dict[str, Any]:
    status = JobStatus(job["status"])
    waiting: str | None = job["waiting_for"]
    return {
        "job_id": job["id"],
        "step": job["step"],
        "chunk": job["chunk"],
        "type": job["type"],
        "status": asset_status(status).value,
        "progress": job["progress"],
        "items_done": job["items_done"],
        "items_total": job["items_total"],
        "waiting_for": None if waiting is None else WaitingFor(waiting).value,
        "error": None if status is JobStatus.COMPLETED else _error_of(job),
        "provider_task_id": job["provider_task_id"],
        "cost_micros": job["cost_micros"],
    }
