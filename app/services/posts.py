"""One paid POST: written ahead, sent exactly once, and its answer recorded whatever happens to the job.

It runs in a task of its own that nothing cancels. Whoever waits for it may go away (claim lost, process stopping); the
answer is recorded all the same, retrying until the database answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

import structlog
from prometheus_client import Histogram

from app.ai_clients.departure import HeldBack, watched
from app.ai_clients.errors import Advice, OutcomeUnknown, ProviderError, Refused
from app.db import provider_calls
from app.db.pool import UNREACHABLE, Database
from app.db.provider_calls import CallIntent
from app.domain.crash_points import Boundary, boundary
from app.domain.jobs import ClaimedJob, Lane
from app.errors import ErrorCode
from app.services.breaker import Breakers
from app.services.job_run import ClaimLost, JobEnded, JobRun
from app.services.outcomes import RetryPolicy
from app.services.spool import Spool
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
class Post(Generic[T]):
    """What is paid for: ``send`` makes the request under the intent, ``record`` writes down its answer."""

    intent: CallIntent
    send: Callable[[], Awaitable[T]]
    record: Callable[[T], Awaitable[None]]


class Posts:
    def __init__(self, database: Database, spool: Spool, breakers: Breakers, retry: RetryPolicy) -> None:
        self._database = database
        self._spool = spool
        self._breakers = breakers
        self._retry = retry
        self._open: set[asyncio.Task[Any]] = set()

    async def make(self, run: JobRun, post: Post[Any]) -> None:
        """Returns when the answer is recorded. Raises ClaimLost, JobEnded, ProviderError, and what the database raises
        where the intent could not be written."""
        with run.protected():
            if not await self._intend(run, post.intent):
                raise ClaimLost
            task = asyncio.create_task(self._send_and_record(run.job, post))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            await asyncio.shield(task)

    async def _intend(self, run: JobRun, intent: CallIntent) -> bool:
        """Whether the call may be sent. Where the database does not say, it is not sent, and the intent is closed."""
        self._spool.announce(intent.id)
        try:
            with boundary(Boundary.INTENT):
                intended = await provider_calls.intend(self._database, run.claim, intent)
        except UNREACHABLE:
            code = ErrorCode.SERVICE_UNAVAILABLE.code
            with boundary(Boundary.REFUSED):
                await until_recorded(
                    lambda: provider_calls.withdraw(self._database, run.claim, intent, error_code=code)
                )
            self._spool.drop_slip(intent.id)
            raise
        if not intended:
            self._spool.drop_slip(intent.id)
        return intended

    async def _leave(self, call_id: UUID) -> None:
        try:
            await self._spool.depart(call_id)
        except OSError as error:
            raise HeldBack("the call was held back") from error

    async def _send_and_record(self, job: ClaimedJob, post: Post[T]) -> None:
        try:
            answer = await self._send(job, post)
            await until_recorded(lambda: post.record(answer))
            await self._breakers.accepted(post.intent.provider, post.intent.id, job.task_id)
        finally:
            self._spool.drop_slip(post.intent.id)

    async def _send(self, job: ClaimedJob, post: Post[T]) -> T:
        """Raises Refused where nothing was paid, and OutcomeUnknown; the journal knows either by then."""
        intent = post.intent
        begun = time.perf_counter()
        outcome = "unknown"
        try:
            with (
                span(
                    "provider_call",
                    Kind.CLIENT,
                    provider=intent.provider,
                    operation=intent.kind,
                    call_id=str(intent.id),
                ),
                watched(lambda: self._leave(intent.id)),
            ):
                answer = await post.send()
            outcome = "accepted"
            return answer
        except Refused as error:
            outcome = "refused"
            refusal = error
            with boundary(Boundary.REFUSED):
                await until_recorded(
                    lambda: provider_calls.refused(
                        self._database,
                        intent.id,
                        error_code=refusal.code.code,
                        provider_code=refusal.provider_code,
                        http_status=refusal.http_status,
                    )
                )
            await self.not_taken(job, intent.provider, error)
            raise
        except Exception as error:
            if self._spool.hold_back(intent.id):
                outcome = "never_left"
                await until_recorded(lambda: self.never_left(intent.id))
                raise Refused(_NOT_SENT, _NOT_SENT.title, advice=Advice.RETRY) from error
            # also a defect of ours: once the request has left, only "unknown" is true
            status = error.http_status if isinstance(error, OutcomeUnknown) else None
            code = ErrorCode.PROVIDER_OUTCOME_UNKNOWN
            with boundary(Boundary.UNKNOWN):
                await until_recorded(
                    lambda: provider_calls.unknown(self._database, intent.id, error_code=code.code, http_status=status)
                )
            if isinstance(error, OutcomeUnknown):
                await self._breakers.failed(intent.provider, error, job_id=job.claim.job_id, task_id=job.task_id)
                raise
            log.exception("paid_call_broke", call_id=str(intent.id))
            raise OutcomeUnknown(code, UNKNOWN_DETAIL) from error
        finally:
            seconds = time.perf_counter() - begun
            CALL_SECONDS.labels(intent.provider, intent.kind, outcome).observe(seconds)
            log.info(
                "provider_call",
                call_id=str(intent.id),
                provider=intent.provider,
                operation=intent.kind,
                outcome=outcome,
                duration_ms=round(seconds * 1000),
            )

    async def not_taken(self, job: ClaimedJob, provider: str, error: ProviderError) -> None:
        """Tell the breaker. Raises JobEnded when the job waits for it rather than fail an attempt."""
        waits = await self._breakers.failed(provider, error, job_id=job.claim.job_id, task_id=job.task_id)
        if waits and isinstance(error, Refused) and error.code is ErrorCode.PROVIDER_UNAVAILABLE:
            raise JobEnded(self._retry.wait_for_breaker(job, error)) from error

    async def never_left(self, call_id: UUID) -> frozenset[Lane]:
        """The call was held back before its first byte: nothing was paid, whoever comes next may send.

        Returns the lane of its job where that became claimable.
        """
        with boundary(Boundary.REFUSED):
            lanes = await provider_calls.never_left(self._database, call_id, error_code=_NOT_SENT.code)
        self._spool.drop_slip(call_id)
        log.warning("provider_call_never_left", call_id=str(call_id))
        return lanes

    async def recover(self) -> frozenset[Lane]:
        """Go on, on this host, with the calls of processes that died: give back what was announced and never left, wake
        who waits for a reply that is here, and see to results that are kept here.

        Returns the lanes whose jobs became claimable by that.
        """
        lanes: set[Lane] = set()
        for call_id in await provider_calls.abandoned_intents(self._database, self._spool.announced()):
            if self._spool.hold_back(call_id):
                lanes |= await self.never_left(call_id)
        if replied := self._spool.replied():
            with boundary(Boundary.PROMOTE):
                lanes |= await provider_calls.reply_found(self._database, replied)
        if kept := self._spool.all_kept():
            with boundary(Boundary.PROMOTE):
                lanes |= await provider_calls.kept_here(self._database, self._spool.host, kept)
            await asyncio.to_thread(self._spool.remove_expired)
        return frozenset(lanes)

    async def drain(self) -> None:
        """Wait for every open POST and for its record."""
        while self._open:
            await asyncio.wait(set(self._open))


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
