"""The database pool and its one way to open a transaction. All SQL of the product lives in this package."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg
import orjson
import structlog
from prometheus_client import Gauge, Histogram

from app.config import Settings
from app.errors import ConfigurationError

if TYPE_CHECKING:
    Connection = asyncpg.pool.PoolConnectionProxy
else:
    Connection = Any

log = structlog.get_logger(__name__)

CONNECTIONS = Gauge("makeit3d_database_connections", "Connections of this process's pool", ["state"])
CONNECTION_WAIT = Histogram(
    "makeit3d_database_wait_seconds",
    "Wait for a connection of the pool",
    buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 10),
)

WAITING = Gauge("makeit3d_database_waiting", "Statements and transactions that wait for a connection of the pool")

_T = TypeVar("_T")

_IDENTIFIER = re.compile(r"^[a-z_][a-z0-9_]{0,62}$")

# deadlock_detected, serialization_failure: the transaction changed nothing and may be run again
REPEATABLE = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.InvalidCachedStatementError)

# the server is gone, starting, full, busy, unreachable, or read-only after a failover: it changed nothing that we know
UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    asyncpg.InternalClientError,  # the server's last words came first, and left the connection in the middle of them
)

_RELEASE_SECONDS = 2.0  # a server that lives confirms the end of a canceled statement in milliseconds


@dataclass(frozen=True, slots=True)
class AssetTables:
    """Names of the three asset tables, checked to be plain identifiers."""

    inputs: str
    concepts: str
    models: str

    @classmethod
    def of(cls, settings: Settings) -> AssetTables:
        names = (
            settings.input_assets_table_name,
            settings.concept_images_table_name,
            settings.models_table_name,
        )
        for name in names:
            if not _IDENTIFIER.match(name):
                raise ConfigurationError(f"{name!r} is not a plain table name; see .env.example")
        return cls(*names)


class _Connection(asyncpg.Connection):
    async def close(self, *, timeout: float | None = None) -> None:
        """The pool closes what it replaces in a task of its own that nobody asks how it went: a server that is silent
        fails each of them, and the connection is given up all the same."""
        try:
            await super().close(timeout=timeout)
        except UNREACHABLE as error:
            log.info("connection_dropped", error=type(error).__name__)


class Database:
    """An asyncpg pool that belongs to the loop it was opened on.

    Whatever the server does, every wait ends: for a free connection, for a statement and for giving a connection back.
    """

    def __init__(self, pool: asyncpg.Pool, tables: AssetTables, *, timeout_seconds: float) -> None:
        self._pool = pool
        self._timeout = timeout_seconds
        self.tables = tables

    @classmethod
    async def open(cls, settings: Settings, *, application_name: str) -> Database:
        timeout = settings.database_timeout_seconds
        pool = await asyncpg.create_pool(
            settings.database_url.get_secret_value(),
            min_size=0,  # a pool that keeps a minimum tries without end, and logs each try, while the server is away
            max_size=settings.database_pool_size,
            command_timeout=timeout,
            timeout=timeout / 2,  # of a new connection
            max_inactive_connection_lifetime=300,
            statement_cache_size=settings.database_statement_cache_size,
            init=_teach_json,
            reset=_leave_session,
            connection_class=_Connection,
            server_settings={
                "application_name": application_name,
                "idle_in_transaction_session_timeout": "60000",
                # a server that lives says so before we stop to listen
                "statement_timeout": str(int(timeout * 900)),
                "lock_timeout": str(int(timeout * 500)),
            },
        )
        CONNECTIONS.labels("open").set_function(pool.get_size)
        CONNECTIONS.labels("idle").set_function(pool.get_idle_size)
        return cls(pool, AssetTables.of(settings), timeout_seconds=timeout)

    async def close(self) -> None:
        try:
            async with asyncio.timeout(5):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    def transaction(self) -> AbstractAsyncContextManager[Connection]:
        """A pooled connection inside a transaction. Never hold one across a provider call or a transfer."""
        return self._transaction()

    def snapshot(self) -> AbstractAsyncContextManager[Connection]:
        """A pooled connection that sees one moment of the database, and can not write."""
        return self._transaction(isolation="repeatable_read", readonly=True)

    @asynccontextmanager
    async def _transaction(self, *, isolation: str | None = None, readonly: bool = False) -> AsyncGenerator[Connection]:
        async with self._connection(for_transaction=True) as connection:
            transaction = connection.transaction(isolation=isolation, readonly=readonly)
            await transaction.start()
            try:
                yield connection
                await transaction.commit()
            except (TimeoutError, asyncio.CancelledError):
                raise  # the connection is given up, and the server ends the transaction with it
            except BaseException:
                await transaction.rollback()
                raise

    async def in_transaction(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        """What ``work`` returns, which the transaction committed. After a deadlock it is run again from the start."""
        for _ in range(3):
            try:
                async with self.transaction() as connection:
                    return await work(connection)
            except REPEATABLE:
                continue
        async with self.transaction() as connection:
            return await work(connection)

    @asynccontextmanager
    async def _connection(self, *, for_transaction: bool = False) -> AsyncGenerator[Connection]:
        with WAITING.track_inprogress(), CONNECTION_WAIT.time():
            connection: Connection = await self._pool.acquire(timeout=self._timeout)
        try:
            yield connection
        except TimeoutError:
            # not even a late answer came: the others of the pool hang on the same silent server, or on none
            _give_up(connection)
            await self._pool.expire_connections()
            raise
        except asyncio.CancelledError:
            if for_transaction:  # begun or not: the server may have heard of it, and we not of that
                _give_up(connection)
            raise
        except asyncpg.InternalClientError:
            _give_up(connection)
            raise
        finally:
            await self._give_back(connection)

    async def _give_back(self, connection: Connection) -> None:
        """What was done with the connection stands, whatever becomes of it now: the pool ends one it can not reset."""
        try:
            await self._pool.release(connection, timeout=_RELEASE_SECONDS)
        except UNREACHABLE as error:
            log.info("connection_dropped", error=type(error).__name__)

    async def fetch(self, query: str, *args: object) -> list[asyncpg.Record]:
        return await self._repeat("fetch", query, args)

    async def fetchrow(self, query: str, *args: object) -> asyncpg.Record | None:
        return await self._repeat("fetchrow", query, args)

    async def fetchval(self, query: str, *args: object) -> Any:  # noqa: ANN401 - the column's type
        return await self._repeat("fetchval", query, args)

    async def execute(self, query: str, *args: object) -> int:
        """Run a statement; the number of rows it changed."""
        tag: str = await self._repeat("execute", query, args)
        last = tag.rsplit(" ", 1)[-1]
        return int(last) if last.isdigit() else 0

    async def _repeat(self, method: str, query: str, args: Sequence[object]) -> Any:  # noqa: ANN401
        """One statement is its own transaction: on a deadlock it is simply run again."""
        for _ in range(3):
            try:
                return await self._once(method, query, args)
            except REPEATABLE:
                continue
        return await self._once(method, query, args)

    async def _once(self, method: str, query: str, args: Sequence[object]) -> Any:  # noqa: ANN401
        async with self._connection() as connection:
            return await getattr(connection, method)(query, *args)


def _give_up(connection: Connection) -> None:
    """One that the server ended meanwhile is out of our hands already; the reason why we leave must not change by that:
    a cancellation that became an error would be taken for an outage."""
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


async def _leave_session(connection: asyncpg.Connection) -> None:
    """Nothing of the product changes a session of the pool: no setting, no lock, no LISTEN. The driver's own reset
    would be a round trip after each statement. It still ends a transaction that was left open."""


async def _teach_json(connection: asyncpg.Connection) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, schema="pg_catalog", encoder=_dump, decoder=orjson.loads, format="text")


def _dump(value: object) -> str:
    return orjson.dumps(value).decode()
