"""One paid POST: written ahead, sent exactly once, and its answer recorded whatever happens to the job.

It runs in a task of its own that nothing cancels. Whoever waits for it may go away (claim lost, process stopping); the
answer is recorded all the same, retrying until the database answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import structlog
from prometheus_client import Histogram

from app.ai_clients.base import PolledProvider, PreparedCall, Request, SynchronousProvider
from app.ai_clients.errors import Advice, OutcomeUnknown, ProviderError, Refused
from app.calls import journal
from app.calls.journal import CallIntent
from app.calls.send_marker import SendMarker, SendMarkers
from app.db.pool import UNREACHABLE, Database
from app.domain.crash_points import Boundary, boundary
from app.domain.jobs import ClaimedJob, Lane
from app.errors import ErrorCode
from app.services.breaker import Breakers
from app.services.job_run import ClaimLost, JobRun
from app.tracing import Kind, span

log = structlog.get_logger(__name__)

CALL_SECONDS = Histogram(
    "makeit3d_provider_call_seconds",
    "Paid posts, from the first attempt to send to an answer or its loss",
    ["provider", "operation", "outcome"],
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640),
)

T = TypeVar("T")

_NOT_SENT = ErrorCode.CALL_NOT_SENT
UNKNOWN_DETAIL = "The connection broke after the request was sent. It may have been paid; it was not sent again."


@dataclass(frozen=True, slots=True)
class SynchronousCall:
    """A POST whose reply, put at ``reply``, is the result."""

    intent: CallIntent
    provider: SynchronousProvider
    request: Request
    reply: Path
    final: bool = True  # the job makes no further paid call


@dataclass(frozen=True, slots=True)
class PolledCall:
    """A POST whose reply is an id."""

    intent: CallIntent
    provider: PolledProvider
    request: PreparedCall
    final: bool = True


PaidCall = SynchronousCall | PolledCall


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider took the call: its id is in hand, or its whole reply is on disk."""

    provider_task_id: str | None = None
    provider_request_id: str | None = None


@dataclass(frozen=True, slots=True)
class NotTaken:
    """Nothing was paid. ``breaker_open``: the provider's jobs wait now."""

    error: ProviderError
    breaker_open: bool


@dataclass(frozen=True, slots=True)
class Unknown:
    """The request was sent and nobody knows what became of it."""


CallOutcome = Accepted | NotTaken | Unknown


class PaidCallExecutor:
    def __init__(self, database: Database, markers: SendMarkers, breakers: Breakers) -> None:
        self._database = database
        self._markers = markers
        self._breakers = breakers
        self._open: set[asyncio.Task[Any]] = set()

    async def execute(self, run: JobRun, call: PaidCall) -> CallOutcome:
        """Returns when the outcome is recorded. Raises ClaimLost, HandBack, and what the database raises where the
        intent could not be written."""
        with run.protected():
            marker = await self._intend(run, call.intent)
            task = asyncio.create_task(self._send_and_record(run.job, call, marker))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            return await asyncio.shield(task)

    async def _intend(self, run: JobRun, intent: CallIntent) -> SendMarker:
        """Write the intent. Where the database does not say whether it is written, the call is not sent, and the
        intent is closed. Raises ClaimLost."""
        marker = self._markers.place(intent.id)
        try:
            with boundary(Boundary.INTENT):
                intended = await journal.intend(self._database, run.claim, intent)
        except UNREACHABLE:
            code = ErrorCode.SERVICE_UNAVAILABLE.code
            with boundary(Boundary.REFUSED):
                await until_recorded(lambda: journal.withdraw(self._database, run.claim, intent, error_code=code))
            marker.remove()
            raise
        if not intended:
            marker.remove()
            raise ClaimLost
        return marker

    async def _send_and_record(self, job: ClaimedJob, call: PaidCall, marker: SendMarker) -> CallOutcome:
        begun = time.perf_counter()
        try:
            answer = await self._send(call, marker)
            never_sent = not isinstance(answer, Accepted | Refused) and marker.revoke()
            _observe(call.intent, answer, time.perf_counter() - begun, never_sent=never_sent)
            if isinstance(answer, Accepted):
                await self._record_accepted(call, answer)
                await self._breakers.accepted(call.intent.provider, call.intent.id, job.task_id)
                return answer
            if isinstance(answer, Refused):
                return await self._record_refused(job, call.intent, answer)
            if never_sent:
                return await self._record_never_sent(call.intent, answer)
            return await self._record_unknown(job, call.intent, answer)
        finally:
            marker.remove()

    async def _send(self, call: PaidCall, marker: SendMarker) -> Accepted | Exception:
        """The one POST. What it raises is its answer, also a defect of ours: once the request was sent, only
        "unknown" is true."""
        intent = call.intent
        told = span(
            "provider_call", Kind.CLIENT, provider=intent.provider, operation=intent.kind, call_id=str(intent.id)
        )
        try:
            with told, boundary(Boundary.SEND):
                if isinstance(call, PolledCall):
                    return Accepted(await call.provider.send(call.request, before_first_byte=marker.sent))
                reply = await call.provider.send(call.request, reply=call.reply, before_first_byte=marker.sent)
                return Accepted(provider_request_id=reply.provider_request_id)
        except Exception as error:  # noqa: BLE001 - told by whoever records it
            return error

    # --- what the journal takes ---------------------------------------------------------------------------------

    async def _record_accepted(self, call: PaidCall, answer: Accepted) -> None:
        with boundary(Boundary.SUBMITTED):
            await until_recorded(
                lambda: journal.submitted(
                    self._database,
                    call.intent.id,
                    last=call.final,
                    provider_task_id=answer.provider_task_id,
                    provider_request_id=answer.provider_request_id,
                    result=journal.ON_DISK if isinstance(call, SynchronousCall) else None,
                )
            )

    async def _record_refused(self, job: ClaimedJob, intent: CallIntent, refusal: Refused) -> NotTaken:
        with boundary(Boundary.REFUSED):
            await until_recorded(
                lambda: journal.refused(
                    self._database,
                    intent.id,
                    error_code=refusal.code.code,
                    provider_code=refusal.provider_code,
                    http_status=refusal.http_status,
                )
            )
        return await self.not_taken(job, intent.provider, refusal)

    async def _record_never_sent(self, intent: CallIntent, error: Exception) -> NotTaken:
        await until_recorded(lambda: self.never_sent(intent.id))
        refusal = Refused(_NOT_SENT, _NOT_SENT.title, advice=Advice.RETRY)
        refusal.__cause__ = error
        return NotTaken(refusal, breaker_open=False)

    async def _record_unknown(self, job: ClaimedJob, intent: CallIntent, error: Exception) -> Unknown:
        status = error.http_status if isinstance(error, OutcomeUnknown) else None
        code = ErrorCode.PROVIDER_OUTCOME_UNKNOWN.code
        with boundary(Boundary.UNKNOWN):
            await until_recorded(
                lambda: journal.unknown(self._database, intent.id, error_code=code, http_status=status)
            )
        if isinstance(error, OutcomeUnknown):
            await self._breakers.failed(intent.provider, error, job_id=job.claim.job_id, task_id=job.task_id)
        else:
            log.error("paid_call_broke", call_id=str(intent.id), exc_info=error)
        return Unknown()

    async def not_taken(self, job: ClaimedJob, provider: str, refusal: ProviderError) -> NotTaken:
        """Tell the breaker."""
        waits = await self._breakers.failed(provider, refusal, job_id=job.claim.job_id, task_id=job.task_id)
        return NotTaken(refusal, breaker_open=waits)

    async def never_sent(self, call_id: UUID) -> frozenset[Lane]:
        """The call was revoked before its first byte: nothing was paid, whoever comes next may send.

        Returns the lane of its job where that became claimable.
        """
        with boundary(Boundary.REFUSED):
            lanes = await journal.never_left(self._database, call_id, error_code=_NOT_SENT.code)
        self._markers.remove(call_id)
        log.warning("provider_call_never_left", call_id=str(call_id))
        return lanes

    async def drain(self) -> None:
        """Wait for every open POST and for its record."""
        while self._open:
            await asyncio.wait(set(self._open))


def _observe(intent: CallIntent, answer: Accepted | Exception, seconds: float, *, never_sent: bool) -> None:
    match answer:
        case Accepted():
            outcome = "accepted"
        case Refused():
            outcome = "refused"
        case _:
            outcome = "never_left" if never_sent else "unknown"
    CALL_SECONDS.labels(intent.provider, intent.kind, outcome).observe(seconds)
    log.info(
        "provider_call",
        call_id=str(intent.id),
        provider=intent.provider,
        operation=intent.kind,
        outcome=outcome,
        duration_ms=round(seconds * 1000),
    )


async def until_recorded(write: Callable[[], Awaitable[T]]) -> T:
    """Write what is true already, however long the database is away."""
    pause = 0.1
    while True:
        try:
            return await write()
        except UNREACHABLE as error:
            log.warning("journal_waits_for_database", error=type(error).__name__)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)
