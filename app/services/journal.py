"""Paying once: a job goes on with the call that an earlier run of it paid, and pays one only where there is none."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import orjson
import structlog

from app.ai_clients.base import (
    Estimate,
    ImageProvider,
    ImageReceipt,
    ImageRequest,
    ImageResult,
    ModelKind,
    ModelProvider,
    ModelSpec,
    PreparedCall,
)
from app.ai_clients.errors import OutcomeUnknown, ProviderError
from app.config import Settings
from app.db import assets, provider_calls
from app.db.pool import Database
from app.db.provider_calls import Call, CallIntent
from app.domain.crash_points import Boundary, boundary
from app.domain.jobs import Deferred, Failed, KeptResult, Retry
from app.domain.statuses import CallState
from app.errors import AppError, ErrorCode
from app.services import bookings
from app.services.job_run import ClaimLost, JobEnded, JobRun
from app.services.posts import UNKNOWN_DETAIL, Post, Posts, until_recorded
from app.services.reconciler import Absent, Ambiguous, Found, NotYet, Reconciler
from app.services.spool import Spool

log = structlog.get_logger(__name__)

_DEADLINE_MARGIN = 30.0  # seconds after the client's own timeout before anybody else may judge the call


class Journal:
    def __init__(
        self, database: Database, settings: Settings, spool: Spool, reconciler: Reconciler, posts: Posts
    ) -> None:
        self._database = database
        self._spool = spool
        self._reconciler = reconciler
        self._posts = posts
        self._first_look = settings.reconcile_first_seconds
        self._paid_retry = settings.openai_paid_retry

    # --- a reply that is the result -------------------------------------------------------------------------

    async def reply_for(
        self, run: JobRun, provider: ImageProvider, prepare: Callable[[], Awaitable[ImageRequest]]
    ) -> Call:
        """The job's accepted image call: an earlier run's, or a new one, which ``prepare`` readies and is paid now.

        Its reply lies at ``spool.reply(call.id)``, unless the call is settled: then ``result`` has the stored files.
        """
        earlier = await self._replied_earlier(run)
        if earlier is not None:
            return earlier
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
            await self._posts.make(run, Post(intent, send, record))
        except OutcomeUnknown:
            await self._give_up(run, await self._current(run, intent.id))
            return await self.reply_for(run, provider, prepare)
        return await self._current(run, intent.id)

    async def _replied_earlier(self, run: JobRun) -> Call | None:
        """An earlier run's call; None when one may be paid now. Raises JobEnded."""
        latest = await self._latest(run)
        if latest is None:
            return None
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
            case CallState.SETTLED:
                # given up by a run that died before it could end the job
                await self._end_or_pay_again(run)
            case _:
                pass
        return None

    async def result_unwanted(self, call: Call, result: ImageResult) -> None:
        """The run lost its claim. Where the job is over the reply may go; elsewhere its next run needs it."""
        if await provider_calls.job_is_over(self._database, call.id):
            await self.result_stored(call, result, stored=None)

    async def result_stored(
        self, call: Call, result: ImageResult, *, stored: Mapping[str, Any] | None, keep: bool = False
    ) -> None:
        """The reply's pictures lie in the bucket (or nobody wants them: not ``stored``), and the reply may go, unless
        it is kept for what storage refused."""
        cost, is_estimate = result.cost_micros, result.cost_is_estimate
        with boundary(Boundary.RESULT):
            if await until_recorded(
                lambda: provider_calls.settled(
                    self._database, call.id, cost_micros=cost, is_estimate=is_estimate, result=stored
                )
            ):
                bookings.booked(call.provider, cost, is_estimate=is_estimate)
        if not keep:
            self._spool.drop_reply(call.id)

    async def kept_call(self, kept: KeptResult) -> Call:
        """The call whose result was kept. Raises AppError(PAID_RESULT_GONE)."""
        call = await provider_calls.by_id(self._database, kept.call_id)
        if call is None:
            raise AppError(ErrorCode.PAID_RESULT_GONE)
        return call

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
        await bookings.give_up_unknown(self._database, call)
        await self._end_or_pay_again(run)

    async def _end_or_pay_again(self, run: JobRun) -> None:
        """Raises JobEnded, unless one paid retry is allowed and left."""
        earlier = [c for c in await self._calls(run) if c.error_code == ErrorCode.PROVIDER_OUTCOME_UNKNOWN.code]
        if not self._paid_retry or len(earlier) > 1:
            raise JobEnded(Failed(ErrorCode.PROVIDER_OUTCOME_UNKNOWN, UNKNOWN_DETAIL))
        # an upload of what the first call brought may still be on its way to its keys
        with boundary(Boundary.GIVE_UP):
            slots = await assets.renumber(self._database, run.claim)
        if slots is None:
            raise ClaimLost
        run.assets = tuple(slots)

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
        earlier = await self._submitted_earlier(run, provider, kind, last=last)
        if earlier is not None:
            return earlier
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
            await self._posts.make(run, Post(intent, send, record))
        except OutcomeUnknown as error:
            raise JobEnded(Deferred(None, None, self._first_look)) from error
        return await self._current(run, intent.id)

    async def _submitted_earlier(
        self, run: JobRun, provider: ModelProvider, kind: ModelKind, *, last: bool
    ) -> Call | None:
        """An earlier run's call; None when one may be paid now. Raises JobEnded."""
        latest = await self._latest(run, kind.value)
        if latest is None:
            return None
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
            case CallState.SETTLED if latest.error_code != ErrorCode.PROVIDER_TASK_EXPIRED.code:
                # booked by a run that died before it could end the job
                error = ErrorCode.of(str(latest.error_code))
                unknown = error is ErrorCode.PROVIDER_OUTCOME_UNKNOWN
                raise JobEnded(Failed(error, UNKNOWN_DETAIL if unknown else error.title))
            case _:
                pass
        return None

    async def _prepared(self, run: JobRun, provider: ModelProvider, spec: ModelSpec) -> PreparedCall:
        try:
            with boundary(Boundary.PREPARE):
                return await provider.prepare(spec)
        except ProviderError as error:
            await self._posts.not_taken(run.job, provider.name, error)
            raise

    async def _reconcile(self, run: JobRun, provider: ModelProvider, call: Call, *, last: bool) -> Call | None:
        """One look into the provider's listing for an unknown call: adopted, proven absent (None), or later again."""
        sighting = await self._reconciler.look(provider, call)
        match sighting:
            case Found(provider_task_id):
                await bookings.adopt(self._database, call, provider_task_id, last=last)
                return await self._current(run, call.id)
            case NotYet(seconds):
                raise JobEnded(Deferred(None, None, seconds))
            case Absent() | Ambiguous():
                pass
        code = ErrorCode.PROVIDER_OUTCOME_UNKNOWN.code
        absent = [c for c in await self._calls(run) if c.state is CallState.REFUSED and c.error_code == code]
        if isinstance(sighting, Ambiguous) or absent:
            await bookings.give_up_unknown(self._database, call)
            raise JobEnded(Failed(ErrorCode.PROVIDER_OUTCOME_UNKNOWN, UNKNOWN_DETAIL))
        await bookings.never_accepted(self._database, call)
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

    async def _calls(self, run: JobRun) -> list[Call]:
        return await provider_calls.calls_of(self._database, run.claim.job_id)

    async def _latest(self, run: JobRun, kind: str | None = None) -> Call | None:
        """The job's newest call (of this kind) that left us, or may have."""
        calls = [call for call in await self._calls(run) if kind is None or call.kind == kind]
        if calls and calls[-1].state is CallState.INTENT and self._spool.hold_back(calls[-1].id):
            await self._posts.never_left(calls.pop().id)
        if calls:
            return calls[-1]
        if kind is None or run.job.retry_of is None:
            return None
        return await provider_calls.inherited(self._database, run.claim.job_id, kind)

    async def _current(self, run: JobRun, call_id: UUID) -> Call:
        # what is paid for is in this process: it does not give the job away because the database is away just now
        calls = await until_recorded(lambda: self._calls(run))
        return next(call for call in calls if call.id == call_id)


def _seconds_left(call: Call) -> float:
    return max(0.5, (call.deadline - datetime.now(UTC)).total_seconds() + 0.5)
