"""The journal of paid calls, written ahead of every one. A row is fenced by its own id once it exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from app.db.pool import Database
from app.db.sql import load
from app.domain.jobs import Claim, Lane
from app.domain.statuses import CallState

_SQL = load(__file__)


@dataclass(frozen=True, slots=True)
class CallIntent:
    """A paid call about to be made."""

    id: UUID
    provider: str
    pool: str
    kind: str
    request_hash: str
    fingerprint: Mapping[str, Any]
    estimate_micros: int
    price_version: str
    deadline_seconds: float


@dataclass(frozen=True, slots=True)
class Call:
    id: UUID
    job_id: UUID | None
    task_id: str | None
    user_id: UUID | None
    worker_id: UUID
    attempt: int
    provider: str
    pool: str
    kind: str
    state: CallState
    fingerprint: Mapping[str, Any]
    estimate_micros: int
    provider_task_id: str | None
    provider_request_id: str | None
    error_code: str | None
    result: Mapping[str, Any] | None
    progress: int | None
    created_at: datetime
    deadline: datetime
    expired: bool  # the deadline has passed: anybody may say that the outcome is unknown
    age_seconds: float


ON_DISK: Mapping[str, Any] = {"reply": "on disk"}  # where the result of an accepted synchronous call is


async def intend(database: Database, claim: Claim, intent: CallIntent) -> bool:
    """Commit the intent before the first byte is sent. False when the claim is lost or a call is still open."""
    try:
        changed = await database.execute(
            _SQL["intend_call"], **_values(claim, intent), deadline_seconds=intent.deadline_seconds
        )
    except asyncpg.UniqueViolationError:
        return False
    return changed == 1


async def withdraw(database: Database, claim: Claim, intent: CallIntent, *, error_code: str) -> None:
    """Close an intent of which nobody knows whether it was committed, and whose request was never sent."""
    await database.execute(_SQL["withdraw_call"], **_values(claim, intent), error_code=error_code)


def _values(claim: Claim, intent: CallIntent) -> dict[str, Any]:
    return {
        "job_id": claim.job_id,
        "worker_id": claim.worker_id,
        "attempt": claim.attempt,
        "call_id": intent.id,
        "provider": intent.provider,
        "pool": intent.pool,
        "kind": intent.kind,
        "request_hash": intent.request_hash,
        "fingerprint": dict(intent.fingerprint),
        "estimate_micros": intent.estimate_micros,
        "price_version": intent.price_version,
    }


async def calls_of(database: Database, job_id: UUID) -> list[Call]:
    """All calls of a job, oldest first."""
    return [call_of(row) for row in await database.fetch(_SQL["journal_of_job"], job_id=job_id)]


async def by_id(database: Database, call_id: UUID) -> Call | None:
    row = await database.fetchrow(_SQL["call_by_id"], call_id=call_id)
    return None if row is None else call_of(row)


async def inherited(database: Database, job_id: UUID, kind: str) -> Call | None:
    """The call of this kind whose paid work a retried job goes on with: the newest one of the jobs whose place it
    takes, where the provider has its result or works on it."""
    row = await database.fetchrow(_SQL["inherited_call"], job_id=job_id, kind=kind)
    return None if row is None else call_of(row)


async def submitted(
    database: Database,
    call_id: UUID,
    *,
    last: bool,
    provider_task_id: str | None = None,
    provider_request_id: str | None = None,
    result: Mapping[str, Any] | None = None,
) -> bool:
    """The provider accepted: its id is in hand, or its whole reply (``result`` says where). ``last`` says that the
    job makes no further paid call. False when the call has another final word already."""
    return bool(
        await database.execute(
            _SQL["submit_call"],
            call_id=call_id,
            provider_task_id=provider_task_id,
            provider_request_id=provider_request_id,
            result=None if result is None else dict(result),
            last=last,
        )
    )


async def refused(
    database: Database, call_id: UUID, *, error_code: str, provider_code: str | None, http_status: int | None
) -> None:
    """Nothing was paid; the slot is free."""
    await database.execute(
        _SQL["refuse_call"],
        call_id=call_id,
        error_code=error_code,
        provider_code=provider_code,
        http_status=http_status,
    )


async def abandoned_intents(database: Database, call_ids: Sequence[UUID]) -> list[UUID]:
    """Those of the calls that are mere intents of jobs that nobody runs."""
    if not call_ids:
        return []
    return [row["id"] for row in await database.fetch(_SQL["abandoned_intents"], call_ids=list(call_ids))]


async def never_left(database: Database, call_id: UUID, *, error_code: str) -> frozenset[Lane]:
    """No byte of the call was sent: it is refused, and its job, parked because of it, waits for a slot like any other.

    Returns the lane of the job that became claimable.
    """
    rows = await database.fetch(_SQL["take_call_back"], call_id=call_id, error_code=error_code)
    return frozenset(row["lane"] for row in rows)


async def unknown(database: Database, call_id: UUID, *, error_code: str, http_status: int | None) -> None:
    """The request left and nobody knows what became of it; the slot stays taken."""
    await database.execute(_SQL["lose_call"], call_id=call_id, error_code=error_code, http_status=http_status)


async def job_is_over(database: Database, call_id: UUID) -> bool:
    """Whether nobody will ever ask for the result of the call."""
    return not await database.fetchval(_SQL["call_is_wanted"], call_id=call_id)


async def settled(
    database: Database,
    call_id: UUID,
    *,
    cost_micros: int,
    is_estimate: bool = False,
    error_code: str | None = None,
    result: Mapping[str, Any] | None = None,
) -> bool:
    """The provider is done with the call: the cost is booked and the slot is free.

    A call that succeeded (no ``error_code``) marks its job's paid work as done when it carries a result.
    """
    return bool(
        await database.execute(
            _SQL["settle_call"],
            call_id=call_id,
            cost_micros=cost_micros,
            is_estimate=is_estimate,
            error_code=error_code,
            result=None if result is None else dict(result),
        )
    )


async def record_progress(database: Database, progress: Sequence[tuple[UUID, int]]) -> None:
    """Progress of polled calls, for their jobs and readers; one statement for all. Never backwards."""
    await database.execute(
        _SQL["record_call_progress"],
        call_ids=[call for call, _ in progress],
        progress=[value for _, value in progress],
    )


async def known_task_ids(database: Database, provider: str, since: datetime) -> frozenset[str]:
    rows = await database.fetch(_SQL["known_provider_tasks"], provider=provider, since=since)
    return frozenset(row["provider_task_id"] for row in rows)


def call_of(row: asyncpg.Record) -> Call:
    values = dict(row)
    values["state"] = CallState(values["state"])
    return Call(**values)
