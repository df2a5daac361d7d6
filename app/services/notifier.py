"""Tells readers that events were written, after the commit: the first at once, then those of a moment together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from uuid import UUID

import structlog

from app.db import events
from app.db.pool import UNREACHABLE, Database
from app.tracing import detached

log = structlog.get_logger(__name__)

_WINDOW_SECONDS = 0.01
_KEYS_PER_PAYLOAD = 70  # a key has at most 101 characters, a payload must stay under 8,000 bytes


class Notifier:
    """Keys are ``<task id>/<user id>``. ``here`` is told of each task at once: nobody in this process reads what was,
    after whoever changed it has answered."""

    def __init__(self, database: Database, *, here: Callable[[str], None] | None = None) -> None:
        self._database = database
        self._here = here
        self._keys: set[str] = set()
        self._flush: asyncio.Task[None] | None = None

    def changed(self, tasks: Iterable[tuple[str, UUID | None]]) -> None:
        for task_id, user_id in tasks:
            if self._here is not None:
                self._here(task_id)
            self._keys.add(f"{task_id}/{user_id or ''}")
        if self._keys and (self._flush is None or self._flush.done()):
            self._flush = detached(self._send())

    async def _send(self) -> None:
        while self._keys:
            keys, self._keys = sorted(self._keys), set()
            payloads = [" ".join(keys[i : i + _KEYS_PER_PAYLOAD]) for i in range(0, len(keys), _KEYS_PER_PAYLOAD)]
            try:
                await events.notify(self._database, payloads)
            except UNREACHABLE as error:
                log.warning("notify_failed", error=type(error).__name__)  # readers poll slowly anyway
            except Exception:
                log.exception("notify_broke")
            await asyncio.sleep(_WINDOW_SECONDS)

    async def aclose(self) -> None:
        if self._flush is not None:
            await self._flush
