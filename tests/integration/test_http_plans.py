"""The statements behind waiting readers stay index scans, however long the log is."""

from __future__ import annotations

from uuid import uuid4

import pytest
from app.db import events
from app.db.pool import Database
from app.db.sql import Statement
from app.domain.cursors import Cursor

from tests.integration.explain import scans
from tests.integration.factories import make_user

_FILL = """
insert into makeit3d.events (xid, type, user_id, task_id, payload) -- xids of long ago
select (n / 60 + 3)::text::xid8, 'job_update', u[1 + n % cardinality(u)], 'task-plan-' || n % 500, '{}'
from generate_series(1, 30000) as n, (select $1::uuid[] as u) as users
"""


@pytest.fixture
async def filled(db: Database) -> Database:
    users = [await make_user(db), *(uuid4() for _ in range(99))]
    await db.execute(_FILL, users)
    await db.execute("analyze makeit3d.events")
    return db


async def test_readers_of_the_log_use_its_index(filled: Database) -> None:
    user = await filled.fetchval("select user_id from makeit3d.events limit 1")
    after: dict[str, object] = {"user_id": user, "xid": "400", "id": 0, "limit": 200}
    statements: list[tuple[Statement, dict[str, object]]] = [
        (events.AFTER, after),
        (events.OF_TASK_AFTER, {**after, "task_id": "task-plan-7"}),
        (events.HORIZON, {"user_id": user}),
        (events.NEWS, {"since": "490", "user_ids": [user, uuid4()], "task_ids": ["task-plan-7", "task-plan-none"]}),
    ]
    for statement, named in statements:
        (explained,) = await filled.fetch(f"explain (format json) {statement.text}", *statement.arguments(named))
        assert scans(explained[0][0]["Plan"]) == set(), statement.name


async def test_a_replay_comes_in_pages_without_gap_or_repeat(filled: Database) -> None:
    user = await filled.fetchval("select user_id from makeit3d.events limit 1")
    seen: list[Cursor] = []
    cursor = Cursor(0, 0)
    while page := await events.after(filled, user, cursor, task_id=None, limit=70):
        seen += [event.cursor for event in page]
        cursor = seen[-1]
    assert len(seen) == len(set(seen)) == 300
    assert seen == sorted(seen)
