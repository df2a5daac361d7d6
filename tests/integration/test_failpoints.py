"""A statement is a failpoint by its name: before it runs, and after the commit that holds it."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from app.db.pool import Connection, Database
from app.db.sql import parse
from app.domain.crash_points import CrashPoint, arm

SQL = parse("""
-- name: add_note
-- Writes.
insert into notes (task_id) values (:task_id)

-- name: count_notes
-- Reads.
select count(*) from notes
""")


@pytest.fixture
def seen(db: Database) -> Generator[list[tuple[str, tuple[str, ...]]]]:
    found: list[tuple[str, tuple[str, ...]]] = []

    def reached(point: CrashPoint, tasks: tuple[str, ...]) -> None:
        found.append((str(point), tasks))

    assert db is not None
    arm(reached)
    yield found
    arm(None)


@pytest.fixture(autouse=True)
async def notes(db: Database) -> None:
    await db.execute("create table notes (task_id text unique)")


async def test_alone(db: Database, seen: list[tuple[str, tuple[str, ...]]]) -> None:
    assert await db.execute(SQL["add_note"], task_id="a") == 1
    assert await db.fetchval(SQL["count_notes"]) == 1
    assert seen == [("before_add_note", ("a",)), ("after_add_note", ("a",))]


async def test_in_a_transaction(db: Database, seen: list[tuple[str, tuple[str, ...]]]) -> None:
    async def write(connection: Connection) -> None:
        for task in ("a", "b"):
            await connection.execute(SQL["add_note"], task_id=task)
        assert [point for point, _ in seen] == ["before_add_note", "before_add_note"]

    await db.in_transaction(write)
    assert seen[2:] == [("after_add_note", ("a",)), ("after_add_note", ("b",))]


async def test_what_is_not_committed_has_no_point_behind_it(
    db: Database, seen: list[tuple[str, tuple[str, ...]]]
) -> None:
    async def write(connection: Connection) -> None:
        await connection.execute(SQL["add_note"], task_id="a")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await db.in_transaction(write)
    assert seen == [("before_add_note", ("a",))]
    assert await db.fetchval(SQL["count_notes"]) == 0
