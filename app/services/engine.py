"""One worker process: claims batches of jobs, runs their handlers on one loop, and settles how they end."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import replace
from uuid import UUID

import structlog
from prometheus_client import Counter, Gauge

from app.config import Settings
from app.db import workers
from app.db.pool import UNREACHABLE
from app.db.workers import WorkerIdentity
from app.domain.crash_points import Boundary, boundary
from app.domain.jobs import ClaimedJob, Failed, HandedBack, Outcome, Settlement
from app.errors import ErrorCode
from app.queue.contracts import Committed
from app.queue.transitions import OVERDUE_MESSAGE, Queue
from app.services.bells import Bells
from app.services.job_run import ClaimLost, HandBack, JobEnded, JobRun, RunnableType
from app.services.leftovers import Leftovers
from app.services.open_calls import OpenCalls
from app.services.publisher import Publisher
from app.services.settler import Settler, Written, code, word
from app.tracing import Place, detached, span, span_id_of

log = structlog.get_logger(__name__)

CLAIMED = Counter("makeit3d_jobs_claimed_total", "Jobs that this process began to run", ["lane", "job_type"])
CLAIMS = Counter("makeit3d_claims_total", "Times that this process asked the database for jobs")
CLAIMS_LOST = Counter("makeit3d_claims_lost_total", "Runs whose job was canceled or taken away meanwhile")
RUNNING = Gauge("makeit3d_jobs_running", "Jobs under way in this process")

_FORWARD_SECONDS = 0.3  # a full process rings for the others at most this often
_LOCKED_SECONDS = 0.02  # another process holds the rows at the head: look again soon


class Engine:
    """Slots live on the loop; Celery's threads only carry bells."""

    def __init__(
        self,
        queue: Queue,
        identity: WorkerIdentity,
        types: Mapping[str, RunnableType],
        *,
        posts: OpenCalls,
        settler: Settler,
        publisher: Publisher,
        leftovers: Leftovers,
        bells: Bells,
        settings: Settings,
    ) -> None:
        self.identity = replace(identity, job_types=tuple(sorted(types)))
        self._queue = queue
        self._database = queue.database
        self._types = types
        self._posts = posts
        self._settler = settler
        self._publisher = publisher
        self._leftovers = leftovers
        self._bells = bells
        self._ttl = settings.worker_ttl_seconds
        self._grace = settings.shutdown_grace_seconds
        self._time_limits = {
            name: kind.time_limit_seconds for name, kind in types.items() if kind.time_limit_seconds is not None
        }
        # by job and attempt: a job that was taken away may be claimed here again before its earlier run has noticed
        self._runs: dict[tuple[UUID, int], JobRun] = {}
        self._finishing = 0  # of these, whose handler has returned: their ends are being written
        self._wanted = False  # there may be work that was not claimed
        self._wake = asyncio.Event()  # that, or a slot came free
        self._claiming = asyncio.Lock()
        self._in_shift = False
        self._stopping = False
        self._forwarded = 0.0
        self._strangers: set[tuple[UUID, int]] = set()
        self._liveness: asyncio.Task[None] | None = None
        self._local_shift: asyncio.Task[None] | None = None

    @property
    def running(self) -> int:
        return len(self._runs)

    @property
    def stopping(self) -> bool:
        return self._stopping

    async def start(self) -> None:
        """Register the process; without a row of its own its jobs would be taken for lost."""
        await workers.renew(self._database, self.identity, stopping=False)
        self._liveness = asyncio.create_task(self._stay_alive())

    def wake(self) -> None:
        """There may be work: begin a shift, or wake the one under way. Call it on the loop."""
        if self._in_shift or self._stopping:
            self._look_again()
        elif self._local_shift is None or self._local_shift.done():
            self._local_shift = detached(self.run_shift())

    # --- the shift ------------------------------------------------------------------------------------------

    async def run_shift(self) -> None:
        """Answer a bell: work until nothing is claimable and nothing runs. One shift per process at a time; a bell
        during a shift only wakes it. Work is claimed while the ends of earlier runs are written."""
        self._look_again()
        if self._in_shift or self._stopping:
            return
        self._in_shift = True
        try:
            # between the last look at the flag and the end of the shift there is no await
            while self._wanted or self._runs:
                await self._wake.wait()
                if self._stopping:
                    return
                self._wake.clear()
                if self._wanted and self._free_slots() > 0:  # without one, the end of a handler wakes it
                    self._wanted = False
                    async with self._claiming:
                        await self._claim_and_start()
        finally:
            self._in_shift = False

    async def _claim_and_start(self) -> None:
        CLAIMS.inc()
        try:
            with boundary(Boundary.CLAIM) as crossing:
                result = await self._queue.claim(
                    worker_id=self.identity.id,
                    lanes=self.identity.lanes,
                    limit=self._free_slots(),
                    types=self._types.keys(),
                    host=self.identity.host,
                    time_limits=self._time_limits,
                )
                crossing.met(job.task_id for job in result.jobs)
        except UNREACHABLE as error:
            log.warning("claim_failed", error=type(error).__name__)
            await self._pause_claims()
            return  # what was claimed without our knowing is found when claims are compared
        except Exception:
            log.exception("claim_broke")
            await self._pause_claims()
            return
        self._publisher.publish(Committed(tasks={(job.task_id, job.user_id) for job in result.jobs}))
        for job in result.jobs:
            self._start(JobRun(job, result.outputs[job.claim.job_id]))
        if result.full:
            self._look_again()
            self._forward()
        elif result.more:
            await asyncio.sleep(_LOCKED_SECONDS * random.uniform(0.5, 1.5))
            self._look_again()

    async def _pause_claims(self) -> None:
        await asyncio.sleep(random.uniform(0.5, 1.0))
        self._wanted = self._wanted or bool(self._runs)  # the end of one looks again; without, maintenance wakes

    def _look_again(self) -> None:
        """As soon as a slot is free."""
        self._wanted = True
        self._wake.set()

    def _free_slots(self) -> int:
        """A run whose end is being written needs no slot; of those there are no more than slots."""
        if any(run.job.alone for run in self._runs.values()):
            return 0
        slots = self.identity.slots
        return min(slots - len(self._runs) + self._finishing, 2 * slots - len(self._runs))

    def _forward(self) -> None:
        """Work is left that this process has no slot for: others may."""
        now = time.monotonic()
        if now - self._forwarded >= _FORWARD_SECONDS:
            self._forwarded = now
            self._bells.ring(self.identity.lanes)

    def _start(self, run: JobRun) -> None:
        if self._stopping:
            run.stop()
        self._runs[_key(run)] = run
        CLAIMED.labels(run.job.lane, run.job.type).inc()
        RUNNING.set(len(self._runs))
        run.task = asyncio.create_task(self._run(run))

    # --- one job --------------------------------------------------------------------------------------------

    async def _run(self, run: JobRun) -> None:
        job = run.job
        with (
            structlog.contextvars.bound_contextvars(
                job_id=str(job.claim.job_id),
                task_id=job.task_id,
                request_id=str(job.request_id),
                trace_id=job.trace_id,
            ),
            _run_span(job) as current,
        ):
            left = job.time_left_seconds
            timer = None if left is None else asyncio.get_running_loop().call_later(max(0.0, left), self._overdue, run)
            finishing = False
            try:
                outcome = await self._outcome(run)
                finishing = True
                self._finishing += 1
                self._wake.set()
                await self._end(run, outcome, current)
            except asyncio.CancelledError:
                if not run.stopping:
                    raise
            except Exception:  # what it still held comes back when claims are compared
                log.exception("run_broke", job_type=job.type)
            finally:
                if timer is not None:
                    timer.cancel()
                self._finishing -= finishing
                self._runs.pop(_key(run), None)
                RUNNING.set(len(self._runs))
                self._wake.set()

    async def _end(self, run: JobRun, outcome: Outcome | None, current: span) -> None:
        """The handler has returned: settle, unless the run's end was decided before."""
        run.close()
        if not run.decide() and run.expiry is not None:
            await run.expiry
            outcome = None
        if outcome is None:  # the call that outlived the job may have given its slot back
            committed = Committed()
            committed.free(run.job.pool, run.job.user_id)
            self._publisher.publish(committed)
        written = Written.LEASE_LOST if outcome is None else await self._settle(Settlement(run.job, outcome))
        if outcome is not None and written is Written.LEASE_LOST:
            CLAIMS_LOST.inc()
            log.info("claim_was_lost")
        # one that is stuck may still be completed with what it stored
        if written is Written.LEASE_LOST or (written is Written.DONE and isinstance(outcome, Failed)):
            await self._leftovers.discard(run)
        ended = "lost" if outcome is None or written is Written.LEASE_LOST else word(outcome)
        if written is Written.STUCK:
            ended = "stuck"
        reason = None if outcome is None else code(outcome) or None
        current.set(outcome=ended, code=reason)
        log.info("run_ended", job_type=run.job.type, attempt=run.claim.attempt, outcome=ended, code=reason)

    async def _settle(self, settlement: Settlement) -> Written:
        with span("settle"):
            return await self._settler.settle(settlement)

    def _overdue(self, run: JobRun) -> None:
        if run.decide():
            run.expiry = asyncio.create_task(self._expire(run))

    async def _expire(self, run: JobRun) -> None:
        """End a job whose time is over, whatever its handler is doing. Money in the air is still followed."""
        log.error("deadline_exceeded", job_type=run.job.type)
        await self._settler.settle(Settlement(run.job, Failed(ErrorCode.DEADLINE_EXCEEDED, OVERDUE_MESSAGE)))
        run.lose()

    async def _outcome(self, run: JobRun) -> Outcome | None:
        """How the handler's run ends; None when nothing may be written any more."""
        job = run.job
        try:
            run.begin()
            worker = f"{self.identity.name} ({self.identity.pid})"
            log.info("run_began", job_type=job.type, attempt=job.claim.attempt, worker=worker)
            if job.alone:
                await self._others_end(run)
            return await self._types[job.type].run(run)
        except ClaimLost:
            return None
        except HandBack:
            return HandedBack()
        except JobEnded as ended:
            return ended.outcome
        except asyncio.CancelledError:
            if run.lost:
                return None
            if run.stopping:
                return HandedBack()
            raise
        except Exception as error:  # noqa: BLE001 - every defect of a handler ends its own job only
            return self._types[job.type].retry.outcome_of(job, error)

    async def _others_end(self, run: JobRun) -> None:
        """A job that was there at several crashes takes nobody with it; nothing is claimed until it has ended."""
        while others := [other.task for other in self._runs.values() if other is not run and other.task is not None]:
            await asyncio.wait(others)

    # --- liveness -------------------------------------------------------------------------------------------

    async def _stay_alive(self) -> None:
        while True:
            await asyncio.sleep(self._ttl / 4)
            try:
                await workers.renew(self._database, self.identity, stopping=self._stopping)
                await self._compare_claims()
            except UNREACHABLE as error:
                log.warning("liveness_not_renewed", error=type(error).__name__)
            except Exception:  # a process that stops to say that it lives loses its jobs
                log.exception("liveness_broke")

    async def _compare_claims(self) -> None:
        """Stop what was canceled or taken away meanwhile; give back what the database says is ours and is not here."""
        here = set(self._runs)
        ours = await workers.running_claims(self._database, self.identity.id)
        for key in here - ours.keys():
            run = self._runs.get(key)
            if run is not None and not run.lost:
                log.info("claim_lost", job_id=str(run.claim.job_id))
                run.lose()
        strangers = _unended(ours) - here - set(self._runs)
        lasting = strangers & self._strangers  # a claim whose answer is only just on its way is no stranger
        if lasting:
            await self._release(lasting)
        self._strangers = strangers - lasting

    async def _release(self, claims: set[tuple[UUID, int]]) -> None:
        log.warning("claims_released", jobs=len(claims))
        with boundary(Boundary.RELEASE):
            committed = await self._queue.requeue(self.identity.id, sorted(claims))
        self._publisher.publish(committed)

    # --- the end --------------------------------------------------------------------------------------------

    def stop_claiming(self) -> None:
        """Begin a warm shutdown: nothing new; what waits is handed back, what has money in the air may finish."""
        self._stopping = True
        self._wake.set()
        for run in list(self._runs.values()):
            run.stop()

    async def stop(self) -> None:
        """Finish the shutdown within the grace time and leave."""
        self.stop_claiming()
        try:
            async with asyncio.timeout(self._grace):
                async with self._claiming:  # what a claim under way brings is handed back like the rest
                    tasks = [run.task for run in self._runs.values() if run.task is not None]
                if tasks:
                    await asyncio.wait(tasks)
                await self._posts.drain()
                await self._settler.aclose()
        except TimeoutError:
            # an answer that the database never took: on disk, or to be found in the provider's listing
            log.error("shutdown_grace_over", jobs=len(self._runs))
        if self._liveness is not None:
            self._liveness.cancel()
            await asyncio.gather(self._liveness, return_exceptions=True)
        try:
            await self._leave()
        except UNREACHABLE as error:
            log.warning("worker_row_left", error=type(error).__name__)  # its time to live ends it
        self._bells.ring(self.identity.lanes)

    async def _leave(self) -> None:
        """Give back claims whose answer never arrived, and take the process's row away: nobody died here."""
        unknown = _unended(await workers.running_claims(self._database, self.identity.id)) - set(self._runs)
        if unknown:
            await self._release(unknown)
        await workers.remove(self._database, self.identity.id)


def _unended(claims: Mapping[tuple[UUID, int], bool]) -> set[tuple[UUID, int]]:
    """Without those whose end is kept, which nobody runs again."""
    return {key for key, ended in claims.items() if not ended}


def _key(run: JobRun) -> tuple[UUID, int]:
    return run.claim.job_id, run.claim.attempt


def _run_span(job: ClaimedJob) -> span:
    """Under the acceptance of the job's request, which happened in another process."""
    return span(
        f"run {job.type}",
        place=None if job.trace_id is None else Place(job.trace_id, span_id_of(job.request_id)),
        task_id=job.task_id,
        request_id=str(job.request_id),
        job_id=str(job.claim.job_id),
        attempt=job.claim.attempt,
        step=job.step,
        pool=job.pool,
        lane=job.lane,
    )
