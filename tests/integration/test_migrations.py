"""The history of migrations: what was applied, what is missing, and what was changed afterwards."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest
from app.db.migrate import MIGRATIONS, migrate, migration_files, pending
from app.embedded.bootstrap import bootstrap
from app.errors import ConfigurationError

from tests.chaos.databases import run_sql
from tests.servers import PostgresServer

HISTORY = "select version, name, checksum from makeit3d.migrations order by version"


@pytest.fixture(params=["postgres18", "postgres17"])
def dsn(request: pytest.FixtureRequest) -> Generator[str]:
    """A project without our tables."""
    server: PostgresServer = request.getfixturevalue(request.param)
    with server.fresh_database("template1") as dsn:
        asyncio.run(bootstrap(dsn))
        yield dsn


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MIGRATIONS, tmp_path / "migrations"))


async def test_the_history_says_what_was_applied(dsn: str, directory: Path) -> None:
    titles = [file.title for file in migration_files()]
    assert await pending(dsn, directory) == titles
    assert await migrate(dsn, directory) == titles
    history = await asyncio.to_thread(run_sql, dsn, HISTORY)
    assert [(row["version"], row["name"], row["checksum"]) for row in history] == [
        (file.version, file.name, file.checksum) for file in migration_files()
    ]
    (directory / "9998_more.sql").write_text("create table makeit3d.more (id uuid primary key);")
    assert await pending(dsn, directory) == ["9998_more"]
    assert await migrate(dsn, directory) == ["9998_more"]
    assert await migrate(dsn, directory) == []


async def test_a_file_that_was_changed_after_it_was_applied_is_refused(dsn: str, directory: Path) -> None:
    await migrate(dsn, directory)
    first = migration_files(directory)[0]
    path = directory / f"{first.title}.sql"
    path.write_text(f"{first.script}\n-- and more\n")
    (directory / "9998_more.sql").write_text("create table makeit3d.more (id uuid primary key);")
    for ask in (pending, migrate):
        with pytest.raises(ConfigurationError, match=first.title):
            await ask(dsn, directory)
    assert await asyncio.to_thread(run_sql, dsn, "select to_regclass('makeit3d.more')::text as name") == [(None,)]
    path.write_text(first.script)
    assert await migrate(dsn, directory) == ["9998_more"]


async def test_a_migration_that_fails_leaves_nothing_behind(dsn: str, directory: Path) -> None:
    await migrate(dsn, directory)
    (directory / "9998_half.sql").write_text("create table makeit3d.half (id uuid primary key); select 1 / 0;")
    with pytest.raises(Exception, match="division by zero"):
        await migrate(dsn, directory)
    assert await asyncio.to_thread(run_sql, dsn, "select to_regclass('makeit3d.half')::text as name") == [(None,)]
    assert await pending(dsn, directory) == ["9998_half"]


@pytest.mark.parametrize("name", ["9998-more.sql", "more.sql", "0001_z_again.sql"])
def test_a_misnamed_file_is_refused(directory: Path, name: str) -> None:
    (directory / name).write_text("select 1;")
    with pytest.raises(ValueError, match=name):
        migration_files(directory)


async def test_our_tables_are_apart_from_those_of_the_app(dsn: str) -> None:
    """An app may have tables of the same names: neither touches the other's."""
    for name in ("tasks", "jobs", "files", "events"):
        await asyncio.to_thread(run_sql, dsn, f"create table public.{name} (id uuid primary key)")
    await migrate(dsn)
    columns = "select count(*) as n from pg_attribute where attrelid = 'public.jobs'::regclass and attnum > 0"
    assert await asyncio.to_thread(run_sql, dsn, columns) == [(1,)]
