"""Paying once: a job goes on with the call that an earlier run of it paid, and pays one only where there is none.

A call goes through the same states however its provider delivers: intent → submitted → settled, or refused, or unknown.
What differs is where an answer is that this process does not have: on a host's disk, or in the provider's listing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import orjson

from app.ai_clients.base import (
    Capability,
    PolledProvider,
    PreparedCall,
    Provider,
    Request,
    Result,
    SynchronousProvider,
)
from app.ai_clients.errors import ProviderError, Refused
from app.calls import accounting, journal
from app.calls.executor import (
    UNKNOWN_DETAIL,
    Accepted,
    NotTaken,
    PaidCall,
    PaidCallExecutor,
    PolledCall,
    SynchronousCall,
    Unknown,
    until_recorded,
)
from app.calls.journal import Call, CallIntent
from app.calls.reconciler import Absent, Ambiguous, Found, NotYet, Reconciler
from app.calls.spool import Spool
from app.config import Settings
from app.db.pool import Database
from app.domain.crash_points import Boundary, boundary
from app.domain.jobs import Deferred, Failed, KeptResult, Outcome, Retry
from app.domain.statuses import CallState
from app.errors import AppError, ErrorCode
from app.queue import numbers
from app.services.job_run import ClaimLost, JobRun
from app.services.outcomes import RetryPolicy

_DEADLINE_MARGIN = 30.0  # seconds after the client's own timeout before anybody else may judge the call


class PaidCalls:
    """The paid calls of jobs. A method that returns an ``Outcome`` says how the run ends."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        spool: Spool,
        reconciler: Reconciler,
        executor: PaidCallExecutor,
    ) -> None:
        self._database = database
        self._spool = spool
        self._reconciler = reconciler
        self._executor = executor
        self._retry = RetryPolicy.of(settings)
        self._first_look = settings.reconcile_first_seconds

    async def find_reusable(
        self, run: JobRun, provider: Provider, capability: Capability, *, final: bool = True
    ) -> Call | Outcome | None:
        """The job's accepted call for this, which an earlier run made: its result is stored, or can be had. None
        when one may be paid now. ``final`` is false for a call that another paid one follows in the same job."""
        latest = await self._latest(run, provider, capability.value)
        if latest is None:
            return None
        answered = isinstance(provider, PolledProvider) or self._spool.has_reply(latest.id)
        match latest.state:
            case CallState.SETTLED if latest.error_code is None:
                return latest
            case CallState.SUBMITTED if answered:
                return latest
            case CallState.INTENT if self._spool.has_reply(latest.id):
                await self._record_reply(latest.id)
                return latest
            case CallState.INTENT | CallState.SUBMITTED if not latest.expired:
                # the process that sent it may still answer, or another machine has the reply on disk
                return Deferred(None, None, _seconds_left(latest))
            case CallState.INTENT | CallState.SUBMITTED | CallState.UNKNOWN:
                if isinstance(provider, PolledProvider):
                    return await self._reconcile(run, provider, latest, final=final)
                return await self._give_up(run, provider, latest)
            case CallState.SETTLED if isinstance(provider, PolledProvider):
                return _ended(latest)
            case CallState.SETTLED:
                # given up by a run that died before it could end the job
                return await self._end_or_pay_again(run, provider)
            case _:
                return None

    async def execute(self, run: JobRun, provider: Provider, request: Request, *, final: bool = True) -> Call | Outcome:
        """Pay one call now, and wait until its outcome is recorded. Raises ClaimLost, HandBack."""
        call = await self._prepared(run, provider, request, final=final)
        if not isinstance(call, SynchronousCall | PolledCall):
            return call
        outcome = await self._executor.execute(run, call)
        match outcome:
            case Accepted():
                return await self._current(run, call.intent.id)
            case NotTaken():
                return self._not_taken(run, outcome)
            case Unknown() if isinstance(call, PolledCall):
                return Deferred(None, None, self._first_look)
            case Unknown():
                ended = await self._give_up(run, provider, await self._current(run, call.intent.id))
                return ended or await self.execute(run, provider, request, final=final)

    async def _prepared(self, run: JobRun, provider: Provider, request: Request, *, final: bool) -> PaidCall | Outcome:
        """The call, ready to be sent: its inputs lie at the provider."""
        if isinstance(provider, SynchronousProvider):
            run.check()
            intent = _intent(provider, request, asdict(request))
            return SynchronousCall(intent, provider, request, self._spool.reply(intent.id), final)
        if not isinstance(provider, PolledProvider):
            raise TypeError(f"{provider.name} has no way of delivery")
        try:
            with boundary(Boundary.PREPARE):
                prepared = await provider.prepare(request)
        except ProviderError as error:
            return self._not_taken(run, await self._executor.not_taken(run.job, provider.name, error))
        run.check()
        body = {"path": prepared.path, "body": dict(prepared.body)}
        intent = _intent(provider, request, body, prepared)
        return PolledCall(intent, provider, prepared, final)

    def _not_taken(self, run: JobRun, refused: NotTaken) -> Outcome:
        error = refused.error
        if refused.breaker_open and isinstance(error, Refused) and error.code is ErrorCode.PROVIDER_UNAVAILABLE:
            return self._retry.wait_for_breaker(run.job, error)
        return self._retry.outcome_of(run.job, error)

    # --- results ------------------------------------------------------------------------------------------------

    async def result_unwanted(self, call: Call, result: Result) -> None:
        """The run lost its claim. Where the job is over the reply may go; elsewhere its next run needs it."""
        if await journal.job_is_over(self._database, call.id):
            await self.result_stored(call, result, stored=None)

    async def result_stored(
        self, call: Call, result: Result, *, stored: Mapping[str, Any] | None, keep: bool = False
    ) -> None:
        """The reply's files lie in the bucket (or nobody wants them: not ``stored``), and the reply may go, unless
        it is kept for what storage refused."""
        cost, is_estimate = result.cost_micros, result.cost_is_estimate
        with boundary(Boundary.RESULT):
            if await until_recorded(
                lambda: journal.settled(
                    self._database, call.id, cost_micros=cost, is_estimate=is_estimate, result=stored
                )
            ):
                accounting.record_cost(call.provider, cost, is_estimate=is_estimate)
        if not keep:
            self._spool.drop_reply(call.id)

    async def reply_useless(self, run: JobRun, provider: SynchronousProvider, call: Call) -> Outcome:
        """The reply is not one: it was paid, perhaps, and cannot be asked for again."""
        ended = await self._give_up(run, provider, call)
        if ended is not None:
            return ended
        return Retry(ErrorCode.PROVIDER_RESULT_INVALID, "The reply could not be read.", 1.0, start_over=True)

    async def kept_call(self, kept: KeptResult) -> Call:
        """The call whose result was kept. Raises AppError(PAID_RESULT_GONE)."""
        call = await journal.by_id(self._database, kept.call_id)
        if call is None:
            raise AppError(ErrorCode.PAID_RESULT_GONE)
        return call

    # --- calls whose answer is not here ---------------------------------------------------------------------------

    async def _record_reply(self, call_id: UUID) -> None:
        with boundary(Boundary.SUBMITTED):
            await journal.submitted(self._database, call_id, last=True, result=journal.ON_DISK)

    async def _give_up(self, run: JobRun, provider: Provider, call: Call) -> Outcome | None:
        """Nobody can look a synchronous call up. None where one paid retry is allowed and left."""
        await accounting.give_up_unknown(self._database, call)
        return await self._end_or_pay_again(run, provider)

    async def _end_or_pay_again(self, run: JobRun, provider: Provider) -> Outcome | None:
        """None where one paid retry is allowed and left."""
        code = ErrorCode.PROVIDER_OUTCOME_UNKNOWN.code
        earlier = [call for call in await self._calls(run) if call.error_code == code]
        if not (isinstance(provider, SynchronousProvider) and provider.paid_retry) or len(earlier) > 1:
            return Failed(ErrorCode.PROVIDER_OUTCOME_UNKNOWN, UNKNOWN_DETAIL)
        # an upload of what the first call brought may still be on its way to its keys
        with boundary(Boundary.GIVE_UP):
            slots = await numbers.renumber(self._database, run.claim)
        if slots is None:
            raise ClaimLost
        run.assets = tuple(slots)
        return None

    async def _reconcile(
        self, run: JobRun, provider: PolledProvider, call: Call, *, final: bool
    ) -> Call | Outcome | None:
        """One look-up in the provider's listing for an unknown call: adopted, proven absent (None), or later again."""
        result = await self._reconciler.lookup(provider, call)
        match result:
            case Found(provider_task_id):
                await accounting.adopt(self._database, call, provider_task_id, last=final)
                return await self._current(run, call.id)
            case NotYet(seconds):
                return Deferred(None, None, seconds)
            case Absent() | Ambiguous():
                pass
        code = ErrorCode.PROVIDER_OUTCOME_UNKNOWN.code
        absent = [c for c in await self._calls(run) if c.state is CallState.REFUSED and c.error_code == code]
        if isinstance(result, Ambiguous) or absent:
            await accounting.give_up_unknown(self._database, call)
            return Failed(ErrorCode.PROVIDER_OUTCOME_UNKNOWN, UNKNOWN_DETAIL)
        await accounting.never_accepted(self._database, call)
        return None

    # --- the journal ----------------------------------------------------------------------------------------------

    async def _calls(self, run: JobRun) -> list[Call]:
        return await journal.calls_of(self._database, run.claim.job_id)

    async def _latest(self, run: JobRun, provider: Provider, kind: str) -> Call | None:
        """The job's newest call of this kind that was sent, or may have been."""
        calls = [call for call in await self._calls(run) if call.kind == kind]
        if calls and calls[-1].state is CallState.INTENT and self._spool.markers.revoke(calls[-1].id):
            await self._executor.never_sent(calls.pop().id)
        if calls:
            return calls[-1]
        if run.job.retry_of is None or not isinstance(provider, PolledProvider):
            return None
        return await journal.inherited(self._database, run.claim.job_id, kind)

    async def _current(self, run: JobRun, call_id: UUID) -> Call:
        # what is paid for is in this process: it does not give the job away because the database is away just now
        calls = await until_recorded(lambda: self._calls(run))
        return next(call for call in calls if call.id == call_id)


def _ended(call: Call) -> Outcome | None:
    """A polled call that failed at the provider, booked by a run that died before it could end the job."""
    if call.error_code == ErrorCode.PROVIDER_TASK_EXPIRED.code:
        return None
    error = ErrorCode.of(str(call.error_code))
    unknown = error is ErrorCode.PROVIDER_OUTCOME_UNKNOWN
    return Failed(error, UNKNOWN_DETAIL if unknown else error.title)


def _intent(provider: Provider, request: Request, body: object, prepared: PreparedCall | None = None) -> CallIntent:
    estimate = provider.estimate(request)
    return CallIntent(
        id=uuid4(),
        provider=provider.name,
        pool=provider.pool(request),
        kind=request.capability.value,
        request_hash=hashlib.sha256(orjson.dumps(body, default=str, option=orjson.OPT_SORT_KEYS)).hexdigest(),
        fingerprint={} if prepared is None else prepared.fingerprint,
        estimate_micros=estimate.micros,
        price_version=estimate.price_version,
        deadline_seconds=provider.timeout_seconds + _DEADLINE_MARGIN,
    )


def _seconds_left(call: Call) -> float:
    return max(0.5, (call.deadline - datetime.now(UTC)).total_seconds() + 0.5)
