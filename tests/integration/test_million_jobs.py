"""At a million jobs no hot statement reads a big table whole, and each reads about as many pages as its batch has rows.

Pages and rows are those that EXPLAIN ANALYZE counts, for plans that know their parameters and for those that do not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from app.calls import journal, orphans
from app.config import Settings
from app.db import events, tasks
from app.db.pool import Database
from app.db.sql import Statement, load
from app.queue import permits, waits
from app.queue.fair_tags import TAGGED
from app.queue.statements import Statements

from tests import kernel
from tests.integration.explain import explain, pages, scans, widest
from tests.integration.factories import settings_for, sketch_plan
from tests.servers import PostgresServer

LOAD = Path(__file__).with_name("million.sql")
BIG = {"jobs", "tasks", "requests", "events", "provider_calls", "files", "concept_images", "models", "user_tags"}

BATCH = 100
# requests of million.sql, by what became of them
ENDED, RUNNING, LOST, OVERDUE, CLAIMABLE = 150_000, 212_001, 212_101, 212_151, 220_000


def an_id(kind: int, number: int) -> UUID:
    return UUID(f"{kind:08d}-0000-4000-8000-{number:012x}")


def job_of(request: int, step: int = 1) -> UUID:
    return an_id(3, (request - 1) * 4 + step)


def request_id(request: int) -> UUID:
    return an_id(2, request)


def task_id(request: int) -> str:
    return f"task-{request:08d}"


HEAVY, LIGHT = an_id(1, 1), an_id(1, 2 + ENDED % 4999)  # the first has a tenth of everything
LIVES, DEAD = an_id(9, 1), an_id(9, 2)


@pytest.fixture
def million(postgres18: PostgresServer) -> Generator[str]:
    """The DSN of the database of million.sql."""
    with postgres18.fresh_database() as dsn:
        asyncio.run(_load(dsn))
        yield dsn


async def _load(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(LOAD.read_text(encoding="utf-8"))
    finally:
        await connection.close()


@pytest.fixture
def settings(million: str, tmp_path: Path) -> Settings:
    return settings_for(million, tmp_path)


@pytest.fixture
async def db(settings: Settings) -> AsyncGenerator[Database]:
    opened = await Database.open(settings, kernel.ASSET_KINDS, application_name="makeit3d test")
    yield opened
    await opened.close()


Named = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    statement: Callable[[Statements], Statement]
    named: Named
    rows: int = 1  # that it is about
    most_pages: int = 60  # for each of them; a claim or an update of a job touches many indexes
    most_rows: int = 12  # that a node of the plan touches for each of them
    before: str = ""  # what is so beforehand


def beside(module: ModuleType, name: str) -> Callable[[Statements], Statement]:
    """A statement of the file beside a module."""
    return lambda _: load(str(module.__file__), tagged=TAGGED)[name]


def of_batch(first: int) -> range:
    return range(first, first + BATCH)


def runs() -> list[Named]:
    return [
        {
            "id": str(job_of(r)),
            "worker_id": str(LIVES),
            "attempt": 1,
            "status": "completed",
            "delay": 0.0,
            "waiting_for": "retry",
            "failed": 0,
            "deferred": 0,
            "start_over": False,
            "items": 0,
            "output": {"files": []},
            "drops_kept": True,
        }
        for r in of_batch(RUNNING)
    ]


def stored() -> list[Named]:
    return [
        {
            "file_id": str(an_id(7, r)),
            "asset_id": str(an_id(5 if r % 3 == 0 else 6, r)),
            "url": "a link",
            "kind": "concept" if r % 3 == 0 else "model",
            "content_type": "image/png",
            "size": 1,
            "sha256": "x",
        }
        for r in of_batch(RUNNING)
    ]


def failed() -> list[Named]:
    return [{"request_id": str(request_id(r)), "error_code": "provider_task_failed"} for r in of_batch(LOST)]


LANES, TYPES = ["priority", "normal"], ["generate_images", "generate_model"]
CASES = {
    "claim": Case(
        lambda s: s.claim,
        {"worker_id": LIVES, "lanes": LANES, "types": TYPES, "most": BATCH, "host": "here", "time_limits": {}},
        BATCH,
        150,
    ),
    "accept": Case(lambda s: s.accept, dict(sketch_plan(LIGHT, "task-of-now").arguments(None)), 2, 200),
    "look up": Case(
        lambda s: s.look_up,
        {"task_id": task_id(ENDED), "user_id": LIGHT, "scope": task_id(ENDED), "idempotency_key": "key"},
    ),
    "finish jobs": Case(lambda s: s.finish_jobs, {"runs": runs()}, BATCH, most_rows=2 * BATCH),  # all that runs
    "finish outputs": Case(lambda s: s.finish_outputs, {"files": stored(), "ended": [], "items": []}, BATCH),
    "end outputs": Case(
        lambda s: s.finish_outputs,
        {"files": [], "ended": [{"job_id": str(job_of(r)), "status": "canceled"} for r in of_batch(LOST)], "items": []},
        BATCH,
    ),
    "advance steps": Case(
        lambda s: s.advance_steps,
        {
            "completed": [request_id(r) for r in of_batch(RUNNING)],
            "failed": failed(),
            "limited": True,
            "freed": [{"request_id": str(request_id(r)), "permit": "paid", "permits": 1} for r in of_batch(RUNNING)],
        },
        BATCH,
        250,
        most_rows=4 * BATCH,  # of CTEs, each joined to the batch
        before="update makeit3d.jobs set status = 'completed', worker_id = null"  # noqa: S608 - of this file
        f" where worker_id = '{LIVES}' and status = 'running'",
    ),
    "roll up": Case(
        lambda s: s.roll_up,
        {
            "request_ids": [request_id(r) for r in of_batch(RUNNING)],
            "task_ids": [task_id(r) for r in of_batch(RUNNING)],
        },
        BATCH,
    ),
    "lock tasks": Case(lambda s: s.lock_tasks, {"task_ids": [task_id(r) for r in of_batch(RUNNING)]}, BATCH),
    "cancel": Case(
        lambda s: s.cancel_jobs,
        {"task_ids": [task_id(r) for r in of_batch(CLAIMABLE)], "error_code": "canceled"},
        BATCH * 4,
    ),
    "unfinished tasks of a user": Case(lambda s: s.unfinished_tasks_of, {"user_id": HEAVY, "most": 100}, 100),
    "lost": Case(lambda s: s.lost_jobs, {"most": 500}, 200),
    "overdue": Case(lambda s: s.overdue_jobs, {"patience_seconds": 60.0, "most": 500}, 50),
    "expire leases": Case(
        lambda s: s.expire_leases,
        {
            "job_ids": [job_of(r) for r in range(LOST, LOST + 50)],
            "max_crashes": 5,
            "error_code": "worker_crashed",
            "error_message": "died",
        },
        50,
    ),
    "expire deadlines": Case(
        lambda s: s.expire_deadlines,
        {
            "job_ids": [job_of(r) for r in range(OVERDUE, OVERDUE + 50)],
            "patience_seconds": 60.0,
            "error_code": "deadline_exceeded",
            "error_message": "late",
        },
        50,
    ),
    "stranded": Case(
        lambda s: s.stranded_jobs,
        {"max_wait_seconds": 60.0, "most": 500},
        500,
        before="update makeit3d.providers set state = 'open', opened_at = now() - interval '1 hour',"
        " tripped_at = now(), probe_at = now() + interval '1 hour', error_code = 'provider_unavailable'",
    ),
    "promote due": Case(beside(waits, "promote_due"), {}, 50),
    "next due": Case(beside(waits, "next_due_seconds"), {}),
    "claimable lanes": Case(beside(waits, "claimable_lanes"), {}, 10),
    "lanes with room": Case(beside(waits, "lanes_with_room"), {"pools": ["tripo_h"]}, 10),
    "wake for reply": Case(beside(waits, "wake_for_reply"), {"call_ids": [an_id(4, 7), an_id(4, RUNNING)]}, 2),
    "kept here": Case(beside(waits, "move_kept_results"), {"host": "here", "call_ids": [an_id(4, 7)]}),
    "load of a user": Case(
        beside(permits, "load_of_user"), {"user_id": HEAVY, "in_flight": 5, "unfinished": 20, "with_spent": False}, 10
    ),
    "budget of a user": Case(
        beside(permits, "load_of_user"), {"user_id": LIGHT, "in_flight": 5, "unfinished": 20, "with_spent": True}, 10
    ),
    "release permits": Case(beside(permits, "release_permits"), {"user_id": LIGHT, "permits": 5}, 5),
    "who waits": Case(beside(permits, "waiting_among"), {"user_ids": [HEAVY, LIGHT]}, 2),
    "status of a task": Case(beside(tasks, "status_of_task"), {"task_id": task_id(ENDED), "user_id": LIGHT}),
    "status of a task at work": Case(
        beside(tasks, "status_of_task"), {"task_id": task_id(CLAIMABLE), "user_id": HEAVY}, 8
    ),
    "status of a job": Case(beside(tasks, "status_of_job"), {"job_id": job_of(ENDED), "user_id": LIGHT}),
    "requests of a task": Case(beside(tasks, "requests_of_task"), {"task_id": task_id(ENDED)}),
    "tasks of a user": Case(
        beside(tasks, "tasks_of_user"),
        {"user_id": HEAVY, "status": None, "before_time": None, "before_id": None, "limit": 50},
        50,
    ),
    "events": Case(
        beside(events, "events_after"),
        {"user_id": HEAVY, "xid": "100", "id": 0, "limit": 500},
        500,
    ),
    "events of a task": Case(
        beside(events, "events_of_task_after"),
        {"user_id": LIGHT, "xid": "0", "id": 0, "task_id": task_id(ENDED), "limit": 500},
        100,
    ),
    "horizon": Case(beside(events, "event_horizon"), {"user_id": HEAVY}),
    "news": Case(
        beside(events, "event_news"),
        {"since": "10000000", "user_ids": [HEAVY, LIGHT], "task_ids": [task_id(ENDED)]},
        3,
    ),
    "intend": Case(
        beside(journal, "intend_call"),
        {
            "job_id": job_of(LOST),
            "worker_id": DEAD,
            "attempt": 1,
            "call_id": uuid4(),
            "provider": "tripo",
            "pool": "tripo_h",
            "kind": "a kind",
            "request_hash": "hash",
            "fingerprint": {},
            "estimate_micros": 1,
            "price_version": "test",
            "deadline_seconds": 60.0,
        },
    ),
    "submit": Case(
        beside(journal, "submit_call"),
        {"call_id": an_id(4, 70), "provider_task_id": "new", "provider_request_id": None, "result": None, "last": True},
    ),
    "settle": Case(
        beside(journal, "settle_call"),
        {"call_id": an_id(4, RUNNING), "cost_micros": 1, "is_estimate": False, "error_code": None, "result": {}},
    ),
    "progress": Case(
        beside(journal, "record_call_progress"),
        {"call_ids": [an_id(4, r) for r in of_batch(RUNNING)], "progress": [50] * BATCH},
        BATCH,
        120,
    ),
    "calls of a job": Case(beside(journal, "journal_of_job"), {"job_id": job_of(ENDED)}),
    "adopt": Case(beside(orphans, "adopt_calls"), {"worker_id": LIVES, "provider": "tripo", "limit": 100}, 200),
    "unknown calls": Case(beside(orphans, "unknown_calls"), {"providers": ["openai", "tripo"], "limit": 100}, 200),
    "settle abandoned": Case(beside(orphans, "settle_abandoned"), {"looked_for": ["tripo"]}, 200),
}


async def test_hot_statements_read_what_they_are_about(db: Database) -> None:
    statements, texts = kernel.queue_of(db).statements, db.tables.texts()
    faults: list[tuple[str, str, set[str], int, float]] = []
    for name, case in CASES.items():
        for mode in ("force_custom_plan", "force_generic_plan"):
            statement = case.statement(statements)
            async with db.transaction() as connection:
                await connection.execute(f"set local plan_cache_mode = {mode}")
                plan = await explain(
                    connection, texts.of(statement), statement.arguments(case.named), before=case.before
                )
            whole, read, wide = scans(plan) & BIG, pages(plan), widest(plan)
            if whole or read > case.most_pages * case.rows or wide > max(60, case.most_rows * case.rows):
                faults.append((name, mode, whole, read, wide))
    assert not faults, "\n".join(map(str, faults))
