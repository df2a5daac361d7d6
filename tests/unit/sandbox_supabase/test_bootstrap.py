"""A plain Postgres that was made to look like Supabase's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator

import asyncpg
import pytest
from app.embedded.bootstrap import bootstrap

from tests.servers import PostgresServer

SUB = "4a3b2c1d-0000-4000-8000-00000000000a"


@pytest.fixture(params=["postgres17", "postgres18"])
def plain(request: pytest.FixtureRequest) -> Generator[str]:
    """The DSN of an empty database, for each major that is installed."""
    server: PostgresServer = request.getfixturevalue(request.param)
    with server.fresh_database("template0") as dsn:
        yield dsn


@pytest.fixture
async def connection(plain: str) -> AsyncGenerator[asyncpg.Connection]:
    await bootstrap(plain)
    opened = await asyncpg.connect(plain)
    yield opened
    await opened.close()


async def test_it_may_be_repeated_and_raced(plain: str) -> None:
    await bootstrap(plain)
    await asyncio.gather(*(bootstrap(plain) for _ in range(4)))


async def test_roles(connection: asyncpg.Connection) -> None:
    rows = await connection.fetch("select rolname, rolbypassrls, rolcanlogin, rolinherit from pg_roles")
    roles = {row["rolname"]: tuple(row)[1:] for row in rows}
    assert roles["anon"] == roles["authenticated"] == (False, False, False)
    assert roles["service_role"] == (True, False, False)
    assert roles["authenticator"] == (False, True, False)


async def test_claims_are_read_from_the_request(connection: asyncpg.Connection) -> None:
    assert await connection.fetchval("select auth.uid()") is None
    assert await connection.fetchval("select auth.jwt()") == "{}"
    async with connection.transaction():
        await connection.execute("set local role authenticated")
        claims = f'{{"sub": "{SUB}", "role": "authenticated"}}'
        await connection.execute("select set_config('request.jwt.claims', $1, true)", claims)
        row = await connection.fetchrow("select auth.uid()::text, auth.role(), auth.jwt() ->> 'sub'")
        assert row is not None
        assert tuple(row) == (SUB, "authenticated", SUB)
    assert await connection.fetchval("select auth.uid()") is None  # empty again, not ''


async def test_storage_helpers_and_policies(connection: asyncpg.Connection) -> None:
    row = await connection.fetchrow(
        "select storage.foldername('a/b/c.tar.gz'), storage.filename('a/b/c.tar.gz'), storage.extension('a/b/c.tar.gz')"
    )
    assert row is not None
    assert tuple(row) == (["a", "b"], "c.tar.gz", "gz")
    await connection.execute("insert into storage.buckets (id, name) values ('b', 'b')")
    await connection.execute("insert into storage.objects (bucket_id, name) values ('b', 'x/y')")
    assert await connection.fetchval("select path_tokens from storage.objects") == ["x", "y"]
    for role, seen in (("authenticated", 0), ("anon", 0), ("service_role", 1)):
        async with connection.transaction():
            await connection.execute(f"set local role {role}")
            assert await connection.fetchval("select count(*) from storage.objects") == seen
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(
            "set local role authenticated; insert into storage.objects (bucket_id, name) values ('b', 'z')"
        )


async def test_users_stay_behind_the_api(connection: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("set local role authenticated; select * from auth.users")
    published = await connection.fetchval("select count(*) from pg_publication where pubname = 'supabase_realtime'")
    assert published == 1
