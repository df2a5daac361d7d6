"""The database pool: every statement of the product goes through it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, TypeVar

import asyncpg
import orjson
import structlog
from prometheus_client import Gauge, Histogram

from app.config import Settings
from app.db.asset_tables import AssetTables
from app.db.sql import Query, Statement, Texts
from app.domain.asset_kinds import AssetKinds
from app.domain.crash_points import Side, armed, meet

log = structlog.get_logger(__name__)

CONNECTIONS = Gauge("makeit3d_database_connections", "Connections of this process's pool", ["state"])
CONNECTION_WAIT = Histogram(
    "makeit3d_database_wait_seconds",
    "Wait for a connection of the pool",
    buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 10),
)

WAITING = Gauge("makeit3d_database_waiting", "Statements and transactions that wait for a connection of the pool")

_T = TypeVar("_T")

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


class _Connection(asyncpg.Connection):
    async def close(self, *, timeout: float | None = None) -> None:
        """The pool closes what it replaces in a task of its own that nobody asks how it went: a server that is silent
        fails each of them, and the connection is given up all the same."""
        try:
            await super().close(timeout=timeout)
        except UNREACHABLE as error:
            log.info("connection_dropped", error=type(error).__name__)


class Connection:
    """Runs statements in one transaction. The failpoint behind a statement is met when it was committed: until then
    nothing differs from before it."""

    def __init__(self, driver: asyncpg.pool.PoolConnectionProxy, texts: Texts) -> None:
        self.driver = driver
        self._texts = texts
        self._uncommitted: list[tuple[str, list[str | None]]] = []

    async def fetch(
        self, query: Query, /, *values: object, timeout: float | None = None, **named: object
    ) -> list[asyncpg.Record]:
        text, arguments = self._resolve(query, values, named)
        return await self.driver.fetch(text, *arguments, timeout=timeout)

    async def fetchrow(
        self, query: Query, /, *values: object, timeout: float | None = None, **named: object
    ) -> asyncpg.Record | None:
        text, arguments = self._resolve(query, values, named)
        return await self.driver.fetchrow(text, *arguments, timeout=timeout)

    async def fetchval(self, query: Query, /, *values: object, timeout: float | None = None, **named: object) -> Any:  # noqa: ANN401 - the column's type
        text, arguments = self._resolve(query, values, named)
        return await self.driver.fetchval(text, *arguments, timeout=timeout)

    async def execute(self, query: Query, /, *values: object, timeout: float | None = None, **named: object) -> int:
        """Run a statement; the number of rows it changed."""
        text, arguments = self._resolve(query, values, named)
        return _changed(await self.driver.execute(text, *arguments, timeout=timeout))

    def rows(self, query: Query, /, *values: object, prefetch: int, **named: object) -> AsyncIterator[asyncpg.Record]:
        """Row by row, of any number, ``prefetch`` at a time."""
        text, arguments = self._resolve(query, values, named)
        return aiter(self.driver.cursor(text, *arguments, prefetch=prefetch))

    @asynccontextmanager
    async def savepoint(self) -> AsyncGenerator[None]:
        """What is written inside goes when it raises; what the transaction wrote before stays."""
        transaction = self.driver.transaction()
        await transaction.start()
        try:
            yield
        except (TimeoutError, asyncio.CancelledError):
            raise  # the connection is given up
        except BaseException:
            await transaction.rollback()
            raise
        await transaction.commit()

    def committed(self) -> None:
        for name, tasks in self._uncommitted:
            meet(Side.AFTER, name, tasks)

    def _resolve(
        self, query: Query, values: Sequence[object], named: Mapping[str, object]
    ) -> tuple[str, Sequence[object]]:
        if armed() and isinstance(query, Statement) and query.writes:
            tasks = _tasks(named)
            meet(Side.BEFORE, query.name, tasks)
            self._uncommitted.append((query.name, tasks))
        return self._texts.resolve(query, values, named)


class Database:
    """An asyncpg pool that belongs to the loop it was opened on.

    Whatever the server does, every wait ends: for a free connection, for a statement and for giving a connection back.
    """

    def __init__(self, pool: asyncpg.Pool, tables: AssetTables, *, timeout_seconds: float) -> None:
        self._pool = pool
        self._timeout = timeout_seconds
        self.tables = tables
        self._texts = tables.texts()

    @classmethod
    async def open(cls, settings: Settings, kinds: AssetKinds, *, application_name: str) -> Database:
        """For statements about assets of these kinds. Raises ConfigurationError, and what connecting raises."""
        tables = AssetTables.of(settings, kinds)
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
        return cls(pool, tables, timeout_seconds=timeout)

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
        async with self._connection() as driver:
            transaction = driver.transaction(isolation=isolation, readonly=readonly)
            await transaction.start()
            connection = Connection(driver, self._texts)
            try:
                yield connection
                await transaction.commit()
            except (TimeoutError, asyncio.CancelledError):
                raise  # the connection is given up, and the server ends the transaction with it
            except BaseException:
                await transaction.rollback()
                raise
        connection.committed()

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
    async def _connection(self) -> AsyncGenerator[asyncpg.pool.PoolConnectionProxy]:
        """For a transaction."""
        connection = await self._acquire()
        try:
            yield connection
        except (TimeoutError, asyncio.CancelledError, asyncpg.InternalClientError) as error:
            await self._broke_off(connection, error, for_transaction=True)
            raise
        finally:
            await self._give_back(connection)

    async def _acquire(self) -> asyncpg.pool.PoolConnectionProxy:
        WAITING.inc()
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout):  # the driver's own would cost a task each time
                return await self._pool.acquire()
        finally:
            WAITING.dec()
            CONNECTION_WAIT.observe(time.perf_counter() - began)

    async def _broke_off(
        self, connection: asyncpg.pool.PoolConnectionProxy, error: BaseException, *, for_transaction: bool
    ) -> None:
        if isinstance(error, asyncio.CancelledError):
            if for_transaction:  # begun or not: the server may have heard of it, and we not of that
                _give_up(connection)
            return
        _give_up(connection)
        if isinstance(error, TimeoutError):
            # not even a late answer came: the others of the pool hang on the same silent server, or on none
            await self._pool.expire_connections()

    async def _give_back(self, connection: asyncpg.pool.PoolConnectionProxy) -> None:
        """What was done with the connection stands, whatever becomes of it now: the pool ends one it can not reset."""
        try:
            await self._pool.release(connection, timeout=_RELEASE_SECONDS)
        except UNREACHABLE as error:
            log.info("connection_dropped", error=type(error).__name__)

    async def fetch(self, query: Query, /, *values: object, **named: object) -> list[asyncpg.Record]:
        return await self._run("fetch", query, values, named)

    async def fetchrow(self, query: Query, /, *values: object, **named: object) -> asyncpg.Record | None:
        return await self._run("fetchrow", query, values, named)

    async def fetchval(self, query: Query, /, *values: object, **named: object) -> Any:  # noqa: ANN401 - the column's type
        return await self._run("fetchval", query, values, named)

    async def execute(self, query: Query, /, *values: object, **named: object) -> int:
        """Run a statement; the number of rows it changed."""
        return _changed(await self._run("execute", query, values, named))

    async def _run(self, method: str, query: Query, values: Sequence[object], named: Mapping[str, object]) -> Any:  # noqa: ANN401
        text, arguments = self._texts.resolve(query, values, named)
        if not (armed() and isinstance(query, Statement) and query.writes):
            return await self._repeat(method, text, arguments)
        tasks = _tasks(named)
        meet(Side.BEFORE, query.name, tasks)
        result = await self._repeat(method, text, arguments)
        meet(Side.AFTER, query.name, tasks)
        return result

    async def _repeat(self, method: str, query: str, args: Sequence[object]) -> Any:  # noqa: ANN401
        """One statement is its own transaction: on a deadlock it is simply run again."""
        for _ in range(3):
            try:
                return await self._once(method, query, args)
            except REPEATABLE:
                continue
        return await self._once(method, query, args)

    async def _once(self, method: str, query: str, args: Sequence[object]) -> Any:  # noqa: ANN401
        connection = await self._acquire()  # as in ``_connection``, without what a generator costs
        try:
            return await getattr(connection, method)(query, *args)
        except (TimeoutError, asyncio.CancelledError, asyncpg.InternalClientError) as error:
            await self._broke_off(connection, error, for_transaction=False)
            raise
        finally:
            await self._give_back(connection)


def _changed(tag: str) -> int:
    """What a command's tag says of rows."""
    last = tag.rsplit(" ", 1)[-1]
    return int(last) if last.isdigit() else 0


def _tasks(named: Mapping[str, object]) -> list[str | None]:
    """The tasks that a statement is about, as far as its parameters say."""
    one, several = named.get("task_id"), named.get("task_ids")
    tasks = list(several) if isinstance(several, Sequence) else []
    return [*(task for task in tasks if isinstance(task, str)), one if isinstance(one, str) else None]


def _give_up(connection: asyncpg.pool.PoolConnectionProxy) -> None:
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
