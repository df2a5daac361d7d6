"""Whether this process can do its work."""

from __future__ import annotations

import asyncio

import asyncpg
import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.db.pool import UNREACHABLE, Database
from app.domain.broker_url import redis_py_url
from app.services.event_stream import EventStream

_PATIENCE_SECONDS = 3.0


class Health:
    def __init__(self, database: Database, redis_url: str, events: EventStream) -> None:
        self._database = database
        self._events = events
        self._broker = redis.from_url(
            redis_py_url(redis_url),
            socket_connect_timeout=_PATIENCE_SECONDS,
            socket_timeout=_PATIENCE_SECONDS,
            retry=Retry(NoBackoff(), 1),  # of a connection that was cut since the last look
        )

    async def parts(self) -> dict[str, str]:
        """Each part with ``ok`` or what is wrong with it. Signing keys and providers are not asked: requests that do
        not need them go on."""
        database, broker = await asyncio.gather(self._check_database(), self._check_broker())
        return {"database": database, "broker": broker, "process": "stopping" if self._events.stopping else "ok"}

    async def aclose(self) -> None:
        await self._broker.aclose()

    async def _check_database(self) -> str:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                migrated = await self._database.fetchval("select to_regclass('public.jobs') is not null")
        except (*UNREACHABLE, asyncpg.PostgresError):
            return "unreachable"
        return "ok" if migrated else "not migrated"

    async def _check_broker(self) -> str:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._broker.execute_command("PING")
        except Exception:  # noqa: BLE001 - a connection that breaks also raises what is no RedisError
            return "unreachable"
        return "ok"
