"""Row-level security and grants, as the real roles, on both Postgres majors."""

from __future__ import annotations

import json
from collections.abc import Generator
from uuid import UUID, uuid4

import asyncpg
import pytest
from app.db.migrate import migrate, pending
from app.embedded.bootstrap import bootstrap

from tests.integration.majors import database
from tests.servers import PostgresServer

__all__ = ["database"]

INTERNAL = [
    f"makeit3d.{name}"
    for name in ("tasks", "requests", "pools", "workers", "jobs", "provider_calls", "files", "events", "migrations")
]
READABLE = ("input_assets", "concept_images", "models")


class Roles:
    """Runs statements as a role with a user's claims, each in a transaction that is rolled back."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def run(self, role: str, user: UUID | None, statement: str, *args: object) -> list[asyncpg.Record]:
        transaction = self._connection.transaction()
        await transaction.start()
        try:
            claims = json.dumps({} if user is None else {"sub": str(user), "role": role})
            await self._connection.execute("select set_config('request.jwt.claims', $1, true)", claims)
            await self._connection.execute(f"set local role {role}")
            return await self._connection.fetch(statement, *args)
        finally:
            await transaction.rollback()


async def owned_rows(connection: asyncpg.Connection, user: UUID) -> None:
    await connection.execute("insert into auth.users (id) values ($1)", user)
    task = f"task-{user}"
    await connection.execute("insert into makeit3d.tasks (id, user_id) values ($1, $2)", task, user)
    await connection.execute(
        "insert into input_assets (task_id, user_id, input_asset_type) values ($1, $2, 'uploaded_photo')", task, user
    )
    for table in ("concept_images", "models"):
        await connection.execute(f"insert into {table} (task_id, user_id) values ($1, $2)", task, user)  # noqa: S608


async def test_every_table_verb_and_role(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        roles = Roles(connection)
        mine, theirs = uuid4(), uuid4()
        for user in (mine, theirs):
            await owned_rows(connection, user)
        for table in READABLE:
            rows = await roles.run("authenticated", mine, f"select user_id from {table}")  # noqa: S608
            assert [row["user_id"] for row in rows] == [mine], table
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await roles.run("anon", None, f"select * from {table}")  # noqa: S608
        for table in INTERNAL:
            for role, user in (("anon", None), ("authenticated", mine)):
                for verb in ("select * from {}", "delete from {}", "insert into {} default values"):
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await roles.run(role, user, verb.format(table))
        for table in ("concept_images", "models"):
            for verb in ("delete from {}", "update {} set user_id = null", "insert into {} default values"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await roles.run("authenticated", mine, verb.format(table))
        for table in (*INTERNAL, *READABLE):
            await roles.run("service_role", None, f"select * from {table}")  # noqa: S608
    finally:
        await connection.close()


async def test_browsers_describe_and_delete_their_own_inputs_and_no_more(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        roles = Roles(connection)
        mine, theirs = uuid4(), uuid4()
        for user in (mine, theirs):
            await owned_rows(connection, user)
        insert = (
            "insert into input_assets (task_id, user_id, input_asset_type)"
            " values ('task-mine-1', $1, 'x') returning status"
        )
        assert [row["status"] for row in await roles.run("authenticated", mine, insert, mine)] == ["pending"]
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await roles.run("authenticated", mine, insert, theirs)
        changed = await roles.run("authenticated", mine, "update input_assets set prompt = 'x' returning user_id")
        assert [row["user_id"] for row in changed] == [mine]
        for column in ("status = 'complete'", "asset_url = 'x'", "user_id = null", "task_id = 'task-other-1'"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await roles.run("authenticated", mine, f"update input_assets set {column}")  # noqa: S608
        gone = await roles.run("authenticated", mine, "delete from input_assets returning user_id")
        assert [row["user_id"] for row in gone] == [mine]
    finally:
        await connection.close()


async def test_deleting_a_user_keeps_rows_without_owner(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        user = uuid4()
        await owned_rows(connection, user)
        await connection.execute("delete from auth.users where id = $1", user)
        for table in ("makeit3d.tasks", *READABLE):
            assert await connection.fetchval(f"select user_id from {table}") is None  # noqa: S608
    finally:
        await connection.close()


async def test_migrations_and_bootstrap_may_be_repeated(database: str) -> None:
    await bootstrap(database)
    assert await migrate(database) == []
    assert await pending(database) == []


@pytest.fixture
def empty_database(postgres17: PostgresServer) -> Generator[str]:
    with postgres17.fresh_database("template1") as dsn:
        yield dsn


async def test_migrations_run_where_there_is_no_realtime(empty_database: str) -> None:
    await bootstrap(empty_database)
    connection = await asyncpg.connect(empty_database)
    await connection.execute("drop publication supabase_realtime")
    await connection.close()
    assert len(await migrate(empty_database)) >= 3
