"""Polls open calls, not jobs: one loop per provider and process, all ids in as few requests as possible."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from app.ai_clients.base import PolledProvider, ProviderTask, ProviderTaskState
from app.ai_clients.errors import Advice, ProviderError, Refused
from app.calls import accounting, journal
from app.calls.journal import Call
from app.db.pool import UNREACHABLE, Database
from app.domain.crash_points import Boundary, boundary
from app.errors import ErrorCode
from app.queue.contracts import Committed
from app.services.breaker import Breakers
from app.services.publisher import Publisher
from app.tracing import detached, span

log = structlog.get_logger(__name__)

_OVER = frozenset({ProviderTaskState.SUCCEEDED, ProviderTaskState.FAILED, ProviderTaskState.CANCELED})

_LONGEST_PAUSE = 20  # times the usual one, whatever a provider asks for: results wait, and deadlines run


@dataclass(slots=True)
class _Watched:
    call: Call
    waiter: asyncio.Future[ProviderTask] | None
    progress: int
    seen_at: float = field(default_factory=time.monotonic)

    @property
    def age_seconds(self) -> float:
        """Since the call was made."""
        return self.call.age_seconds + time.monotonic() - self.seen_at


class Poller:
    """Watches the submitted calls of one provider until they are over, and books their cost. A call that the provider
    does not end within ``give_up_seconds`` is booked at its estimate: it may not hold its slot for ever."""

    def __init__(
        self,
        database: Database,
        provider: PolledProvider,
        publisher: Publisher,
        breakers: Breakers,
        *,
        give_up_seconds: float,
    ) -> None:
        self._database = database
        self._provider = provider
        self._publisher = publisher
        self._breakers = breakers
        self._give_up_seconds = give_up_seconds
        self._watched: dict[str, _Watched] = {}
        self._loop: asyncio.Task[None] | None = None

    @property
    def provider_name(self) -> str:
        return self._provider.name

    async def wait(self, call: Call) -> ProviderTask:
        """The task when the provider is done with it. Cancelling the wait stops nothing at the provider."""
        task_id = call.provider_task_id
        if task_id is None:
            raise ValueError("only a submitted call can be polled")
        waiter: asyncio.Future[ProviderTask] = asyncio.get_running_loop().create_future()
        self._watch(task_id, _Watched(call, waiter, call.progress or 0))
        try:
            with span("provider_work", provider=call.provider, operation=call.kind, call_id=str(call.id)):
                return await waiter
        finally:
            watched = self._watched.get(task_id)
            if watched is not None and watched.waiter is waiter and waiter.cancelled():
                del self._watched[task_id]

    async def task_now(self, task_id: str) -> ProviderTask:
        """The task as it is now, with a fresh output URL. Raises ProviderError."""
        with boundary(Boundary.POLL):
            return (await self._provider.poll([task_id]))[task_id]

    def adopt(self, call: Call) -> None:
        """Watch a call that no job waits for: only its cost and its slot matter."""
        if call.provider_task_id is not None and call.provider_task_id not in self._watched:
            self._watch(call.provider_task_id, _Watched(call, None, call.progress or 0))

    def _watch(self, task_id: str, watched: _Watched) -> None:
        self._watched[task_id] = watched
        if self._loop is None or self._loop.done():
            self._loop = detached(self._run())

    async def _run(self) -> None:
        pause = 0.0
        while self._watched:
            # spread over the interval, so that processes do not poll in step
            await asyncio.sleep(max(pause, self._provider.poll_seconds * random.uniform(0.9, 1.1)))
            try:
                pause = await self._round()
            except Exception:  # jobs wait for this loop
                log.exception("poll_broke", provider=self._provider.name)
                pause = self._provider.poll_seconds * 2

    async def _round(self) -> float:
        """Poll everything once; how long to wait beyond the usual pace, in seconds."""
        ids = list(self._watched)
        if not ids:
            return 0.0
        try:
            with boundary(Boundary.POLL, (watched.call.task_id for watched in self._watched.values())):
                tasks = await self._provider.poll(ids)
        except ProviderError as error:
            log.warning("poll_failed", provider=self._provider.name, code=error.code.code)
            if isinstance(error, Refused) and error.advice is Advice.CONFIGURATION:
                await self._breakers.failed(self._provider.name, error)
            wanted = getattr(error, "retry_after", None) or self._provider.poll_seconds * 2
            return min(wanted, self._provider.poll_seconds * _LONGEST_PAUSE)
        try:
            await self._record_progress(tasks)
            await self._finish({key: task for key, task in tasks.items() if task.state in _OVER})
            await self._give_up(tasks)
        except UNREACHABLE as error:
            log.warning("poll_not_recorded", provider=self._provider.name, error=type(error).__name__)
        return 0.0

    async def _record_progress(self, tasks: Mapping[str, ProviderTask]) -> None:
        moved: list[tuple[UUID, int]] = []
        for task_id, task in tasks.items():
            watched = self._watched.get(task_id)
            if watched is None or task.progress is None or task.state in _OVER:
                continue
            progress = min(99, max(0, task.progress))  # 100 is for a stored result
            if progress > watched.progress:
                watched.progress = progress
                moved.append((watched.call.id, progress))
        if moved:
            changed = {call_id for call_id, _ in moved}
            calls = [watched.call for watched in self._watched.values() if watched.call.id in changed]
            with boundary(Boundary.PROGRESS, (call.task_id for call in calls)):
                await journal.record_progress(self._database, moved)
            readers = {(call.task_id, call.user_id) for call in calls if call.task_id is not None}
            self._publisher.publish(Committed(tasks=readers))

    async def _finish(self, over: Mapping[str, ProviderTask]) -> None:
        ended: list[Call] = []
        for task_id, task in over.items():
            watched = self._watched.get(task_id)
            if watched is None:
                continue
            await accounting.settle(self._database, watched.call, task)
            ended.append(watched.call)
            self._over(task_id, watched, task)
        if ended:
            self._publish(ended)

    async def _give_up(self, asked: Iterable[str]) -> None:
        """Settle by policy what the provider, just asked, still has not ended."""
        endless = {
            task_id: watched
            for task_id in asked
            if (watched := self._watched.get(task_id)) and watched.age_seconds > self._give_up_seconds
        }
        for task_id, watched in endless.items():
            call, error = watched.call, ErrorCode.DEADLINE_EXCEEDED
            await accounting.give_up(self._database, call, error)
            log.error(
                "provider_call_given_up", call_id=str(call.id), provider=self._provider.name, provider_task_id=task_id
            )
            self._over(task_id, watched, ProviderTask(task_id, ProviderTaskState.FAILED, error=error))
        if endless:
            self._publish([watched.call for watched in endless.values()])

    def _over(self, task_id: str, asked_for: _Watched, task: ProviderTask) -> None:
        """Tell who waits, also who came while the end was being booked."""
        for watched in (asked_for, self._watched.pop(task_id, None)):
            if watched is not None and watched.waiter is not None and not watched.waiter.done():
                watched.waiter.set_result(task)

    def _publish(self, ended: Sequence[Call]) -> None:
        committed = Committed()
        for call in ended:
            committed.free(call.pool, call.user_id)
        self._publisher.publish(committed)

    async def aclose(self) -> None:
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
