"""Open calls are found by their partial indexes, however long the journal is."""

from __future__ import annotations

import json

import pytest
from app.db.pool import Database

from tests.integration.majors import database

__all__ = ["database"]

_CALLS = """
insert into makeit3d.provider_calls (id, user_id, attempt, worker_id, provider, pool, kind, state, request_hash,
  estimate_micros, price_version, deadline)
select gen_random_uuid(), md5((n % 50)::text)::uuid, 1, gen_random_uuid(), 'openai', 'pool_' || n % 20, 'generation',
  case when n % 10 = 0 then 'intent' else 'settled' end, 'hash', 1, 'test', now() from generate_series(1, 5000) as n
"""
_ONE = "select md5('1')::uuid"


@pytest.mark.parametrize(
    ("index", "where"),
    [
        ("provider_calls_open", f"c.job_id = ({_ONE}) and c.is_open"),
        ("provider_calls_open_pool", "c.pool = 'pool_0' and c.is_open"),
        ("provider_calls_user_open", f"c.user_id = ({_ONE}) and c.is_open"),
    ],
)
async def test_an_index_finds_open_calls(db: Database, index: str, where: str) -> None:
    await db.execute(_CALLS)
    await db.execute("analyze makeit3d.provider_calls")
    plan = await db.fetchval(
        f"explain (format json) select count(*) from makeit3d.provider_calls c where {where}"  # noqa: S608 - of this file
    )
    assert f'"Index Name": "{index}"' in json.dumps(plan)


@pytest.mark.parametrize(
    ("state", "is_open"),
    [("intent", True), ("submitted", True), ("unknown", True), ("refused", False), ("settled", False)],
)
async def test_the_state_says_whether_a_call_is_open(db: Database, state: str, *, is_open: bool) -> None:
    await db.execute(_CALLS.replace("5000", "1"))
    await db.execute("update makeit3d.provider_calls set state = $1, provider_task_id = 'x'", state)
    assert await db.fetchval("select is_open from makeit3d.provider_calls") is is_open
