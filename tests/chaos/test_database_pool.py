"""A pool whose server is silent, full or slow: every wait ends, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import asyncpg
import pytest
from app.db.pool import UNREACHABLE, Connection, Database

from tests.chaos.databases import tcp_dsn
from tests.chaos.proxy import Proxy
from tests.integration.factories import settings_for
from tests.kernel import ASSET_KINDS

pytestmark = pytest.mark.chaos

Transaction = contextlib.AbstractAsyncContextManager[Connection]

HANG = 25.0  # seconds; a wait that is this long has no end


@pytest.fixture
async def db(database: str, database_proxy: Proxy, tmp_path: Path) -> AsyncGenerator[Database]:
    settings = settings_for(
        tcp_dsn(database, database_proxy.port), tmp_path, database_timeout_seconds=1.0, database_pool_size=2
    )
    opened = await Database.open(settings, ASSET_KINDS, application_name="makeit3d pool test")
    yield opened
    database_proxy.heal()
    await opened.close()


async def test_a_silent_server_holds_nobody(db: Database, database_proxy: Proxy) -> None:
    assert await db.fetchval("select 1") == 1
    database_proxy.stall()
    async with asyncio.timeout(HANG):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):  # a caller with less patience than the pool
                await db.fetchval("select 1")
        with pytest.raises(UNREACHABLE):
            await db.fetchval("select 1")
        with pytest.raises(UNREACHABLE):
            async with db.transaction() as connection:
                await connection.execute("select 1")
    database_proxy.heal()
    async with asyncio.timeout(HANG):
        assert await db.fetchval("select 2") == 2


async def test_connections_to_a_server_that_fell_silent_are_all_replaced(db: Database, database_proxy: Proxy) -> None:
    async with db.transaction() as one, db.transaction() as two:
        before = {await one.fetchval("select pg_backend_pid()"), await two.fetchval("select pg_backend_pid()")}
    database_proxy.stall()
    async with asyncio.timeout(HANG):
        with pytest.raises(UNREACHABLE):
            await db.fetchval("select 1")
    database_proxy.heal()
    async with asyncio.timeout(HANG), db.transaction() as one, db.transaction() as two:
        assert before.isdisjoint(
            {await one.fetchval("select pg_backend_pid()"), await two.fetchval("select pg_backend_pid()")}
        )


async def test_connections_that_a_silent_server_does_not_let_go_are_no_defect(
    db: Database, database_proxy: Proxy, complaints: list[str]
) -> None:
    async with asyncio.timeout(HANG):
        async with db.transaction() as one, db.transaction() as two:
            assert await one.fetchval("select 1") == await two.fetchval("select 1")
        database_proxy.stall()
        for _ in range(3):  # the first gives up every connection, the others replace theirs
            with pytest.raises(UNREACHABLE):
                await db.fetchval("select 1")
        while len(asyncio.all_tasks()) > 1:  # the ends of those replaced
            await asyncio.sleep(0.01)
    gc.collect()
    assert complaints == []


async def test_a_transaction_on_a_server_that_falls_silent_is_undone(db: Database, database_proxy: Proxy) -> None:
    await db.execute("create table notes (text text)")
    async with asyncio.timeout(HANG):
        with pytest.raises(UNREACHABLE):
            await _write_two_notes(db, between=database_proxy.stall)
        database_proxy.heal()
        assert await db.fetchval("select count(*) from notes") == 0
        dropped = False
        while not dropped:  # the server notices the end of the connection, and frees what the transaction held
            with contextlib.suppress(asyncpg.LockNotAvailableError):
                await db.execute("drop table notes")
                dropped = True


async def _write_two_notes(db: Database, *, between: Callable[[], None]) -> None:
    async with db.transaction() as connection:
        await connection.execute("insert into notes values ('half')")
        between()
        await connection.execute("insert into notes values ('other half')")


async def test_whoever_leaves_while_a_transaction_begins_leaves_none_open(
    db: Database, direct: Database, database_proxy: Proxy, complaints: list[str]
) -> None:
    assert await db.fetchval("select 1") == 1

    async def begin() -> None:
        async with db.transaction():
            raise AssertionError

    async def open_transactions() -> int:
        return await direct.fetchval(
            "select count(*) from pg_stat_activity where application_name = 'makeit3d pool test'"
            " and state like 'idle in transaction%' and datname = current_database()"
        )

    database_proxy.mute()
    leaving = asyncio.create_task(begin())
    async with asyncio.timeout(HANG):
        while await open_transactions() == 0:
            await asyncio.sleep(0.01)
        leaving.cancel()
        await asyncio.sleep(0)  # it leaves before the answer comes
        database_proxy.heal()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        while await open_transactions():
            await asyncio.sleep(0.01)
        assert await db.fetchval("select 2") == 2
    assert complaints == []


async def test_who_is_cancelled_after_the_server_left_is_cancelled(db: Database, direct: Database) -> None:
    """An error in its place would be taken for an outage, and the loop that was to end would go on."""
    held: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()

    async def hold() -> None:
        async with db.transaction() as connection:
            held.set_result(connection)
            await asyncio.Event().wait()

    holding = asyncio.create_task(hold())
    async with asyncio.timeout(HANG):
        connection = await held
        await direct.execute("select pg_terminate_backend($1)", connection.driver.get_server_pid())
        with contextlib.suppress(asyncpg.InterfaceError):  # the pool has lost it
            while not connection.driver.is_closed():
                await asyncio.sleep(0.01)
        holding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holding
        assert await db.fetchval("select 1") == 1


@pytest.mark.parametrize("begin", [Database.transaction, Database.snapshot])
async def test_who_is_cancelled_while_the_server_is_silent_does_not_wait_for_it(
    db: Database, direct: Database, database_proxy: Proxy, begin: Callable[[Database], Transaction]
) -> None:
    async def ask() -> None:
        async with begin(db) as connection:
            database_proxy.mute()
            await connection.fetchval("select 'unheard'")

    async def was_heard() -> bool:
        return await direct.fetchval(
            "select exists (select from pg_stat_activity where query = $1 and datname = current_database())",
            "select 'unheard'",
        )

    asking = asyncio.create_task(ask())
    async with asyncio.timeout(HANG):
        while not await was_heard():
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):  # and no timeout of a rollback
            await asking


async def test_a_pool_without_a_free_connection_says_so(db: Database) -> None:
    async with asyncio.timeout(HANG), db.transaction(), db.transaction():
        with pytest.raises(TimeoutError):
            await db.fetchval("select 1")
    assert await db.fetchval("select 1") == 1


async def test_a_statement_that_takes_too_long_is_ended_by_the_server(db: Database) -> None:
    async with asyncio.timeout(HANG):
        with pytest.raises(asyncpg.QueryCanceledError):
            await db.execute("select pg_sleep(20)")
    assert issubclass(asyncpg.QueryCanceledError, UNREACHABLE)


async def test_a_lock_that_is_held_too_long_is_not_waited_for(db: Database) -> None:
    await db.execute("create table notes (text text)")
    async with asyncio.timeout(HANG), db.transaction() as holder:
        await holder.execute("lock table notes in access exclusive mode")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await db.fetchval("select count(*) from notes")
    assert issubclass(asyncpg.LockNotAvailableError, UNREACHABLE)


async def test_a_connection_that_was_told_of_the_end_of_its_server_is_no_defect(
    db: Database, database: str, database_proxy: Proxy
) -> None:
    """The last words of a server that dies arrive at an idle connection, a moment before its end."""
    backend = await db.fetchval("select pg_backend_pid()")
    database_proxy.hide_ends()
    admin = await asyncpg.connect(database)
    await admin.execute("select pg_terminate_backend($1)", backend)
    async with asyncio.timeout(HANG):
        while await admin.fetchval("select exists (select from pg_stat_activity where pid = $1)", backend):
            await asyncio.sleep(0.01)
        with contextlib.suppress(*UNREACHABLE):
            await db.fetchval("select 1")
        database_proxy.heal()
        assert await db.fetchval("select pg_backend_pid()") != backend
    await admin.close()
