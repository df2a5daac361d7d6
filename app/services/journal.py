"""Paying once: a paid POST is written ahead, sent exactly once, and its answer recorded whatever happens to the job.

The POST runs in a task of its own that nothing cancels. Whoever waits for it may go away (claim lost, process
stopping); the answer is recorded all the same, retrying until the database answers.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID, uuid4

import orjson
import structlog
from prometheus_client import Histogram

from app.ai_clients.base import (
    Estimate,
    ImageProvider,
    ImageReceipt,
    ImageRequest,
    ModelKind,
    ModelProvider,
    ModelSpec,
    PreparedCall,
)
from app.ai_clients.departure import HeldBack, watched
from app.ai_clients.errors import Advice, OutcomeUnknown, ProviderError, Refused
from app.config import Settings
from app.db import provider_calls
from app.db.pool import UNREACHABLE, Database
from app.db.provider_calls import Call, CallIntent
from app.domain.crash_points import Boundary, boundary
from app.domain.jobs import ClaimedJob, Deferred, Failed, Lane, Retry
from app.domain.statuses import CallState
from app.errors import ErrorCode
from app.services.bookings import UNKNOWN_SETTLED, booked
from app.services.breaker import Breakers
from app.services.job_run import ClaimLost, JobEnded, JobRun
from app.services.outcomes import RetryPolicy
from app.services.reconciler import Absent, Ambiguous, Found, NotYet, Reconciler
from app.services.spool import Spool

log = structlog.get_logger(__name__)

CALL_SECONDS = Histogram(
    "makeit3d_provider_call_seconds",
    "Paid posts, from the first attempt to send to an answer or its loss",
    ["provider", "operation", "outcome"],
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640),
)

T = TypeVar("T")

_DEADLINE_MARGIN = 30.0  # seconds after the client's own timeout before anybody else may judge the call
_NOT_SENT = ErrorCode.CALL_NOT_SENT
_UNKNOWN_DETAIL = "The connection broke after the request was sent. It may have been paid; it was not sent again."


class Journal:
    def __init__(
        self, database: Database, settings: Settings, spool: Spool, reconciler: Reconciler, breakers: Breakers
    ) -> None:
        self._database = database
        self._spool = spool
        self._reconciler = reconciler
        self._breakers = breakers
        self._retry = RetryPolicy.of(settings)
        self._first_look = settings.reconcile_first_seconds
        self._paid_retry = settings.openai_paid_retry
        self._open: set[asyncio.Task[Any]] = set()

    # --- a reply that is the result -------------------------------------------------------------------------

    async def reply_for(
        self, run: JobRun, provider: ImageProvider, prepare: Callable[[], Awaitable[ImageRequest]]
    ) -> Call:
        """The job's accepted image call: an earlier run's, or a new one, which ``prepare`` readies and is paid now.

        Its reply lies at ``spool.reply(call.id)``, unless the call is settled: then ``result`` has the stored files.
        """
        latest = await self._latest(run)
        if latest is not None:
            match latest.state:
                case CallState.SETTLED if latest.error_code is None:
                    return latest
                case CallState.SUBMITTED if self._spool.has_reply(latest.id):
                    return latest
                case CallState.INTENT if self._spool.has_reply(latest.id):
                    await self._replied(latest.id, None)
                    return latest
                case CallState.INTENT | CallState.SUBMITTED if not latest.expired:
                    # the process that sent it may still answer, or another machine has the reply on disk
                    raise JobEnded(Deferred(None, None, _seconds_left(latest)))
                case CallState.INTENT | CallState.SUBMITTED | CallState.UNKNOWN:
                    await self._give_up(run, latest)
                case _:
                    pass
        request = await prepare()
        run.check()
        intent = self._intent(
            provider.name,
            provider.pool(request),
            "edit" if request.inputs else "generation",
            asdict(request),
            provider.estimate(request),
            provider.timeout_seconds,
        )

        async def send() -> ImageReceipt:
            with boundary(Boundary.SEND):
                return await provider.generate(request, reply=self._spool.reply(intent.id))

        async def record(receipt: ImageReceipt) -> None:
            await self._replied(intent.id, receipt.provider_request_id)

        try:
            await self._post(run, intent, send, record)
        except OutcomeUnknown:
            await self._give_up(run, await self._current(run, intent.id))
            return await self.reply_for(run, provider, prepare)
        return await self._current(run, intent.id)

    async def result_unwanted(self, call: Call, *, cost_micros: int) -> None:
        """The run lost its claim. Where the job is over the reply may go; elsewhere its next run needs it."""
        if await provider_calls.job_is_over(self._database, call.id):
            await self.result_stored(call, cost_micros=cost_micros, result=None)

    async def result_stored(self, call: Call, *, cost_micros: int, result: Mapping[str, Any] | None) -> None:
        """The reply's pictures lie in the bucket (or nobody wants them: no ``result``), and the reply may go."""
        with boundary(Boundary.RESULT):
            if await self._until_recorded(
                lambda: provider_calls.settled(self._database, call.id, cost_micros=cost_micros, result=result)
            ):
                booked(call.provider, cost_micros, is_estimate=False)
        self._spool.drop_reply(call.id)

    async def reply_useless(self, run: JobRun, call: Call) -> None:
        """The reply is not one: it was paid, perhaps, and can not be asked for again."""
        await self._give_up(run, call)
        raise JobEnded(Retry(ErrorCode.PROVIDER_RESULT_INVALID, "The reply could not be read.", 1.0, start_over=True))

    async def _replied(self, call_id: UUID, provider_request_id: str | None) -> None:
        with boundary(Boundary.SUBMITTED):
            await provider_calls.submitted(
                self._database,
                call_id,
                last=True,
                provider_request_id=provider_request_id,
                result={"reply": "on disk"},
            )

    async def _give_up(self, run: JobRun, call: Call) -> None:
        """Nobody can look a synchronous call up. Returns only where one paid retry is allowed and left."""
        with boundary(Boundary.GIVE_UP):
            if await provider_calls.settled(
                self._database,
                call.id,
                cost_micros=call.estimate_micros,
                is_estimate=True,
                error_code=ErrorCode.PROVIDER_OUTCOME_UNKNOWN.code,
            ):
                booked(call.provider, call.estimate_micros, is_estimate=True)
        UNKNOWN_SETTLED.labels("given_up").inc()
        log.error("provider_outcome_unknown", call_id=str(call.id), job_id=str(run.claim.job_id))
        earlier = [c for c in await self._calls(run) if c.error_code == ErrorCode.PROVIDER_OUTCOME_UNKNOWN.code]
        if not self._paid_retry or len(earlier) > 1:
            raise JobEnded(Failed(ErrorCode.PROVIDER_OUTCOME_UNKNOWN, _UNKNOWN_DETAIL))

    # --- an id that is polled -------------------------------------------------------------------------------

    async def submission_for(
        self,
        run: JobRun,
        provider: ModelProvider,
        kind: ModelKind,
        prepare: Callable[[], Awaitable[ModelSpec]],
        *,
        last: bool = True,
    ) -> Call:
        """The job's accepted call of this kind: an earlier run's (submitted, or settled as a success), or a new one,
        which ``prepare`` readies and is paid now. ``last`` is false for a call that another paid one follows in the
        same job.
        """
        latest = await self._latest(run, kind.value)
        if latest is not None:
            match latest.state:
                case CallState.SUBMITTED:
                    return latest
                case CallState.SETTLED if latest.error_code is None:
                    return latest
                case CallState.INTENT if not latest.expired:
                    raise JobEnded(Deferred(None, None, _seconds_left(latest)))
                case CallState.INTENT | CallState.UNKNOWN:
                    found = await self._reconcile(run, provider, latest, last=last)
                    if found is not None:
                        return found
                case _:
                    pass
        spec = await prepare()
        prepared = await self._prepared(run, provider, spec)
        run.check()
        intent = self._intent(
            provider.name,
            provider.pool(spec),
            spec.kind.value,
            {"path": prepared.path, "body": dict(prepared.body)},
            provider.estimate(spec),
            provider.timeout_seconds,
            prepared.fingerprint,
        )

        async def send() -> str:
            with boundary(Boundary.SEND):
                return await provider.submit(prepared)

        async def record(task_id: str) -> None:
            with boundary(Boundary.SUBMITTED):
                await provider_calls.submitted(self._database, intent.id, last=last, provider_task_id=task_id)

        try:
            await self._post(run, intent, send, record)
        except OutcomeUnknown as error:
            raise JobEnded(Deferred(None, None, self._first_look)) from error
        return await self._current(run, intent.id)

    async def _prepared(self, run: JobRun, provider: ModelProvider, spec: ModelSpec) -> PreparedCall:
        try:
            with boundary(Boundary.PREPARE):
                return await provider.prepare(spec)
        except ProviderError as error:
            await self._not_taken(run.job, provider.name, error)
            raise

    async def _reconcile(self, run: JobRun, provider: ModelProvider, call: Call, *, last: bool) -> Call | None:
        """One look into the provider's listing for an unknown call: adopted, proven absent (None), or later again."""
        sighting = await self._reconciler.look(provider, call)
        match sighting:
            case Found(provider_task_id):
                with boundary(Boundary.SUBMITTED):
                    await provider_calls.submitted(
                        self._database, call.id, last=last, provider_task_id=provider_task_id
                    )
                UNKNOWN_SETTLED.labels("adopted").inc()
                log.info("provider_call_adopted", call_id=str(call.id))
                return await self._current(run, call.id)
            case NotYet(seconds):
                raise JobEnded(Deferred(None, None, seconds))
            case Absent() | Ambiguous():
                pass
        code = ErrorCode.PROVIDER_OUTCOME_UNKNOWN.code
        absent = [c for c in await self._calls(run) if c.state is CallState.REFUSED and c.error_code == code]
        if isinstance(sighting, Ambiguous) or absent:
            with boundary(Boundary.GIVE_UP):
                if await provider_calls.settled(
                    self._database, call.id, cost_micros=call.estimate_micros, is_estimate=True, error_code=code
                ):
                    booked(call.provider, call.estimate_micros, is_estimate=True)
            UNKNOWN_SETTLED.labels("given_up").inc()
            log.error("provider_outcome_unknown", call_id=str(call.id))
            raise JobEnded(Failed(ErrorCode.PROVIDER_OUTCOME_UNKNOWN, _UNKNOWN_DETAIL))
        with boundary(Boundary.REFUSED):
            await provider_calls.refused(self._database, call.id, error_code=code, provider_code=None, http_status=None)
        UNKNOWN_SETTLED.labels("absent").inc()
        return None

    # --- common ---------------------------------------------------------------------------------------------

    def _intent(
        self,
        provider: str,
        pool: str,
        kind: str,
        body: object,
        estimate: Estimate,
        timeout: float,
        fingerprint: Mapping[str, Any] | None = None,
    ) -> CallIntent:
        return CallIntent(
            id=uuid4(),
            provider=provider,
            pool=pool,
            kind=kind,
            request_hash=hashlib.sha256(orjson.dumps(body, default=str, option=orjson.OPT_SORT_KEYS)).hexdigest(),
            fingerprint=fingerprint or {},
            estimate_micros=estimate.micros,
            price_version=estimate.price_version,
            deadline_seconds=timeout + _DEADLINE_MARGIN,
        )

    async def _post(
        self,
        run: JobRun,
        intent: CallIntent,
        send: Callable[[], Awaitable[T]],
        record: Callable[[T], Awaitable[None]],
    ) -> None:
        with run.protected():
            if not await self._intend(run, intent):
                raise ClaimLost
            task = asyncio.create_task(self._send_and_record(run.job, intent, send, record))
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
                await self._until_recorded(
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

    async def _never_left(self, call_id: UUID) -> None:
        """The sender died, or was cut off, before the first byte: nothing was paid, whoever comes next may send."""
        with boundary(Boundary.REFUSED):
            await provider_calls.refused(
                self._database, call_id, error_code=_NOT_SENT.code, provider_code=None, http_status=None
            )
        self._spool.drop_slip(call_id)
        log.warning("provider_call_never_left", call_id=str(call_id))

    async def _send_and_record(
        self,
        job: ClaimedJob,
        intent: CallIntent,
        send: Callable[[], Awaitable[T]],
        record: Callable[[T], Awaitable[None]],
    ) -> None:
        try:
            await self._send(job, intent, send, record)
        finally:
            self._spool.drop_slip(intent.id)

    async def _send(
        self,
        job: ClaimedJob,
        intent: CallIntent,
        send: Callable[[], Awaitable[T]],
        record: Callable[[T], Awaitable[None]],
    ) -> None:
        begun = time.perf_counter()
        outcome = "unknown"
        try:
            with watched(lambda: self._leave(intent.id)):
                answer = await send()
            outcome = "accepted"
        except Refused as error:
            outcome = "refused"
            refusal = error
            with boundary(Boundary.REFUSED):
                await self._until_recorded(
                    lambda: provider_calls.refused(
                        self._database,
                        intent.id,
                        error_code=refusal.code.code,
                        provider_code=refusal.provider_code,
                        http_status=refusal.http_status,
                    )
                )
            await self._not_taken(job, intent.provider, error)
            raise
        except Exception as error:
            if self._spool.hold_back(intent.id):
                outcome = "never_left"
                await self._until_recorded(lambda: self._never_left(intent.id))
                raise Refused(_NOT_SENT, _NOT_SENT.title, advice=Advice.RETRY) from error
            # also a defect of ours: once the request has left, only "unknown" is true
            status = error.http_status if isinstance(error, OutcomeUnknown) else None
            code = ErrorCode.PROVIDER_OUTCOME_UNKNOWN
            with boundary(Boundary.UNKNOWN):
                await self._until_recorded(
                    lambda: provider_calls.unknown(self._database, intent.id, error_code=code.code, http_status=status)
                )
            if isinstance(error, OutcomeUnknown):
                await self._breakers.failed(intent.provider, error, job_id=job.claim.job_id, task_id=job.task_id)
                raise
            log.exception("paid_call_broke", call_id=str(intent.id))
            raise OutcomeUnknown(code, _UNKNOWN_DETAIL) from error
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
        await self._until_recorded(lambda: record(answer))
        await self._breakers.accepted(intent.provider, intent.id, job.task_id)

    async def _not_taken(self, job: ClaimedJob, provider: str, error: ProviderError) -> None:
        """Tell the breaker. Raises JobEnded when the job waits for it rather than fail an attempt."""
        waits = await self._breakers.failed(provider, error, job_id=job.claim.job_id, task_id=job.task_id)
        if waits and isinstance(error, Refused) and error.code is ErrorCode.PROVIDER_UNAVAILABLE:
            raise JobEnded(self._retry.wait_for_breaker(job, error)) from error

    async def recover(self) -> frozenset[Lane]:
        """Go on, on this host, with the calls of processes that died: give back what was announced and never left, and
        wake who waits for a reply that is here.

        Returns the lanes whose jobs became claimable by that.
        """
        lanes: set[Lane] = set()
        for call_id in await provider_calls.abandoned_intents(self._database, self._spool.announced()):
            if self._spool.hold_back(call_id):
                with boundary(Boundary.REFUSED):
                    lanes |= await provider_calls.never_left(self._database, call_id, error_code=_NOT_SENT.code)
                self._spool.drop_slip(call_id)
                log.warning("provider_call_never_left", call_id=str(call_id))
        if replied := self._spool.replied():
            with boundary(Boundary.PROMOTE):
                lanes |= await provider_calls.reply_found(self._database, replied)
        return frozenset(lanes)

    async def _until_recorded(self, write: Callable[[], Awaitable[T]]) -> T:
        pause = 0.1
        while True:
            try:
                return await write()
            except UNREACHABLE as error:
                log.warning("journal_waits_for_database", error=type(error).__name__)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)

    async def _calls(self, run: JobRun) -> list[Call]:
        return await provider_calls.calls_of(self._database, run.claim.job_id)

    async def _latest(self, run: JobRun, kind: str | None = None) -> Call | None:
        """The job's newest call (of this kind) that left us, or may have."""
        calls = [call for call in await self._calls(run) if kind is None or call.kind == kind]
        if calls and calls[-1].state is CallState.INTENT and self._spool.hold_back(calls[-1].id):
            await self._never_left(calls.pop().id)
        if calls:
            return calls[-1]
        if kind is None or run.job.retry_of is None:
            return None
        return await provider_calls.inherited(self._database, run.claim.job_id, kind)

    async def _current(self, run: JobRun, call_id: UUID) -> Call:
        # what is paid for is in this process: it does not give the job away because the database is away just now
        calls = await self._until_recorded(lambda: self._calls(run))
        return next(call for call in calls if call.id == call_id)

    async def drain(self) -> None:
        """Wait for every open POST and for its record."""
        while self._open:
            await asyncio.wait(set(self._open))


def _seconds_left(call: Call) -> float:
    return max(0.5, (call.deadline - datetime.now(UTC)).total_seconds() + 0.5)
