"""Waiting for changes: one listening connection per process wakes everyone who waits, for a task or for a user.

A notification is only a hint. Readers re-read, readers of the log from their own cursor; a slow look at the log is the
net under lost hints.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar
from uuid import UUID

import asyncpg
import structlog
from prometheus_client import Counter

from app.db import events
from app.db.events import CHANNEL, Event
from app.db.listener import listen
from app.db.pool import UNREACHABLE, Database
from app.domain.cursors import Cursor
from app.errors import AppError, ErrorCode

log = structlog.get_logger(__name__)

_PAGE = 200  # events read at a time for one client
_NET_SECONDS = 5.0
_HIDDEN_SECONDS = (0.05, 1.0)  # first and longest pause before looking again for events that can not be read yet
_RECONNECT_SECONDS = (0.2, 5.0)
_STREAMS_PER_USER = 32
_LONG_POLLS_PER_USER = 64  # a change is read once for each that waits for it
_LARGEST_BIGINT = 2**63 - 1

LISTENER_LOST = Counter("makeit3d_listener_lost_total", "Losses of the connection that hears of changes")

_Key = TypeVar("_Key")


class Watch:
    """Somebody's place in the waiting room. Arm it, read, then wait: what changes in between is not missed."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def arm(self) -> None:
        self._changed.clear()

    def wake(self) -> None:
        self._changed.set()

    async def changed(self, timeout: float | None) -> bool:
        """Wait until woken, at most ``timeout`` seconds; whether it was."""
        try:
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True


class ChangeListener(Protocol):
    """Hears of every change that the listening connection is told, and how far that can be relied upon."""

    def changed(self, task_id: str) -> None: ...

    def confirmed(self, at: float) -> None:
        """All that was told before this moment, by ``time.monotonic``, has arrived."""
        ...

    def lost(self) -> None:
        """Nobody listens, or did not until now."""
        ...


class EventStream:
    """``listen_dsn`` must reach Postgres itself, not a transaction pooler: LISTEN is lost there without an error."""

    def __init__(
        self,
        listen_dsn: str,
        database: Database,
        *,
        listeners: Sequence[ChangeListener] = (),
        net_seconds: float = _NET_SECONDS,
    ) -> None:
        self._dsn = listen_dsn
        self._net_seconds = net_seconds
        self._database = database
        self._listeners = listeners
        self._by_task: defaultdict[str, set[Watch]] = defaultdict(set)
        self._by_user: defaultdict[UUID, set[Watch]] = defaultdict(set)
        self._long_polls: defaultdict[UUID, set[Watch]] = defaultdict(set)
        self._background: list[asyncio.Task[None]] = []
        self._stopping = False
        self._listening = False

    def start(self) -> None:
        self._background = [asyncio.create_task(self._listen()), asyncio.create_task(self._net())]

    def stop(self) -> None:
        """Shutdown begins: every wait ends at once, every stream at its next step."""
        self._stopping = True
        self._wake_all()

    async def aclose(self) -> None:
        self.stop()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    @property
    def stopping(self) -> bool:
        return self._stopping

    @property
    def listening(self) -> bool:
        """Whether hints arrive; without them changes are seen within seconds."""
        return self._listening

    @property
    def waiting_for_tasks(self) -> int:
        """How many long polls there are."""
        return sum(len(watches) for watches in self._by_task.values())

    @property
    def streams(self) -> int:
        return sum(len(watches) for watches in self._by_user.values())

    # --- waiting --------------------------------------------------------------------------------------------

    @contextmanager
    def watch_task(self, task_id: str, user_id: UUID) -> Generator[Watch | None]:
        """For one long poll of the user's; None where too many wait already, and this one is to be answered at once."""
        if len(self._long_polls.get(user_id, ())) >= _LONG_POLLS_PER_USER:
            yield None
            return
        with _registered(self._long_polls, user_id), _registered(self._by_task, task_id) as watch:
            yield watch

    async def cursor(self, user_id: UUID, last_event_id: str | None) -> Cursor:
        """Where a client's stream begins: after the event it saw last, or now.

        Raises AppError: EVENT_CURSOR_INVALID, RATE_LIMITED when the user has too many streams already.
        """
        if len(self._by_user.get(user_id, ())) >= _STREAMS_PER_USER:
            raise AppError(
                ErrorCode.RATE_LIMITED, f"At most {_STREAMS_PER_USER} event streams may be open.", retry_after=15
            )
        now = await events.now(self._database)
        if last_event_id is None:
            return now
        try:
            cursor = Cursor.parse(last_event_id)
        except ValueError:
            raise AppError(ErrorCode.EVENT_CURSOR_INVALID) from None
        if cursor.xid > now.xid or cursor.id > _LARGEST_BIGINT:
            raise AppError(ErrorCode.EVENT_CURSOR_INVALID)
        return cursor

    async def stream(
        self, user_id: UUID, cursor: Cursor, *, task_id: str | None = None, seconds: float | None = None
    ) -> AsyncGenerator[Event]:
        """The user's events after the cursor, then new ones as they come; ends when shutdown begins, or after
        ``seconds``.

        At most one page is held per client; a client that reads slowly only delays itself.
        """
        clock = asyncio.get_running_loop().time
        end = float("inf") if seconds is None else clock() + seconds
        first, longest = _HIDDEN_SECONDS
        pause = first
        with _registered(self._by_user, user_id) as watch:
            if len(self._by_user[user_id]) > _STREAMS_PER_USER:
                return  # they came at one moment and passed ``cursor`` together
            while not self._stopping and (left := end - clock()) > 0:
                watch.arm()
                try:
                    horizon = await events.horizon(self._database, user_id)
                    page = await events.after(self._database, user_id, cursor, task_id=task_id, limit=_PAGE)
                except UNREACHABLE as error:
                    log.warning("event_stream_waits_for_database", error=type(error).__name__)
                    await watch.changed(1 + random.random())
                    continue
                for event in page:
                    yield event
                    cursor = event.cursor
                if len(page) == _PAGE:
                    continue
                # everything below the horizon was in this page or before it
                cursor = max(cursor, horizon.cursor)
                if horizon.hidden:
                    await watch.changed(min(pause, left))
                    pause = min(pause * 2, longest)
                else:
                    await watch.changed(None if left == float("inf") else left)
                    pause = first

    # --- waking ---------------------------------------------------------------------------------------------

    def _heard(self, payload: str) -> None:
        for key in payload.split():
            task_id, _, user = key.partition("/")
            for listener in self._listeners:
                listener.changed(task_id)
            self._wake(self._by_task.get(task_id))
            try:
                user_id = UUID(user)
            except ValueError:
                continue  # a task without an owner has no readers
            self._wake(self._by_user.get(user_id))

    @staticmethod
    def _wake(watches: set[Watch] | None) -> None:
        for watch in watches or ():
            watch.wake()

    def _wake_all(self) -> None:
        for watches in (*self._by_task.values(), *self._by_user.values()):
            self._wake(watches)

    def _now_listening(self) -> None:
        self._listening = True
        self._hearing_lost()
        self._wake_all()  # whatever was said while nobody listened

    def _hearing_lost(self) -> None:
        for listener in self._listeners:
            listener.lost()

    def _confirmed(self, at: float) -> None:
        for listener in self._listeners:
            listener.confirmed(at)

    async def _listen(self) -> None:
        shortest, longest = _RECONNECT_SECONDS
        pause = shortest
        while not self._stopping:
            reason = "closed"
            try:
                await listen(
                    self._dsn, CHANNEL, heard=self._heard, ready=self._now_listening, confirmed=self._confirmed
                )
            except (*UNREACHABLE, asyncpg.PostgresError) as error:
                reason = type(error).__name__
            except Exception as error:
                reason = type(error).__name__
                log.exception("listener_broke")
            pause = shortest if self._listening else min(pause * 2, longest)
            self._listening = False
            self._hearing_lost()
            if not self._stopping:
                LISTENER_LOST.inc()
                log.warning("listener_lost", reason=reason)
                await asyncio.sleep(pause * (0.5 + random.random()))

    async def _net(self) -> None:
        since: int | None = None
        while not self._stopping:
            try:
                if since is None:
                    since = (await events.now(self._database)).xid
                if self._by_task or self._by_user:
                    news = await events.news(
                        self._database, since, user_ids=list(self._by_user), task_ids=list(self._by_task)
                    )
                    since = news.since
                    for task_id in news.task_ids:
                        self._wake(self._by_task.get(task_id))
                    for user_id in news.user_ids:
                        self._wake(self._by_user.get(user_id))
            except UNREACHABLE as error:
                log.warning("event_net_failed", error=type(error).__name__)
            except Exception:
                log.exception("event_net_broke")
            await asyncio.sleep(self._net_seconds)


@contextmanager
def _registered(waiting: defaultdict[_Key, set[Watch]], key: _Key) -> Generator[Watch]:
    watch = Watch()
    waiting[key].add(watch)
    try:
        yield watch
    finally:
        waiting[key].discard(watch)
        if not waiting[key]:
            del waiting[key]
