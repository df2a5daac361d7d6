"""Whether this process can do its work."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg
import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.db.doctor import is_migrated
from app.db.pool import UNREACHABLE, Database
from app.domain.breakers import BreakerState
from app.domain.broker_url import redis_py_url
from app.services import breaker
from app.services.event_stream import EventStream
from app.storage.base import ObjectNotFound, ObjectStorage, StorageError

_PATIENCE_SECONDS = 3.0

OK = "ok"


@dataclass(frozen=True, slots=True)
class Readiness:
    """Each part with ``ok`` or what is wrong with it. Without one of the others the process is ready, and degraded:
    without a broker work begins with the next sweep, without storage nothing can be uploaded, and jobs of a provider
    whose breaker is not closed wait."""

    needed: Mapping[str, str]
    others: Mapping[str, str]
    providers: Mapping[str, str]  # the state of each one's circuit breaker, and why

    @property
    def parts(self) -> dict[str, str]:
        return {**self.needed, **self.others}

    @property
    def ready(self) -> bool:
        return all(state == OK for state in self.needed.values())

    @property
    def degraded(self) -> bool:
        return any(state != OK for state in self.others.values()) or any(
            state != BreakerState.CLOSED for state in self.providers.values()
        )


class Health:
    def __init__(
        self, database: Database, redis_url: str, storage: ObjectStorage, bucket: str, events: EventStream
    ) -> None:
        self._database = database
        self._storage = storage
        self._bucket = bucket
        self._events = events
        self._broker = redis.from_url(
            redis_py_url(redis_url),
            socket_connect_timeout=_PATIENCE_SECONDS,
            socket_timeout=_PATIENCE_SECONDS,
            retry=Retry(NoBackoff(), 1),  # of a connection that was cut since the last look
        )

    async def look(self) -> Readiness:
        """Ask every part, in a few seconds. Signing keys and providers are not asked: most requests go on without."""
        database, broker, storage = await asyncio.gather(
            self._check_database(), self._check_broker(), self._check_storage()
        )
        providers = await self._look_at_breakers() if database == OK else {}
        process = "stopping" if self._events.stopping else OK
        return Readiness({"database": database, "process": process}, {"broker": broker, "storage": storage}, providers)

    async def aclose(self) -> None:
        await self._broker.aclose()

    async def _check_database(self) -> str:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                migrated = await is_migrated(self._database)
        except (*UNREACHABLE, asyncpg.PostgresError):
            return "unreachable"
        return OK if migrated else "not migrated"

    async def _look_at_breakers(self) -> dict[str, str]:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                found = await breaker.look(self._database)
        except (*UNREACHABLE, asyncpg.PostgresError):
            return {}
        return {
            item.provider: item.state if item.error_code is None else f"{item.state}: {item.error_code}"
            for item in found
        }

    async def _check_broker(self) -> str:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._broker.execute_command("PING")
        except Exception:  # noqa: BLE001 - a connection that breaks also raises what is no RedisError
            return "unreachable"
        return OK

    async def _check_storage(self) -> str:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._storage.check(self._bucket)
        except ObjectNotFound:
            return "no bucket"
        except (StorageError, TimeoutError):
            return "unreachable"
        return OK
