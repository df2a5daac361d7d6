"""Every reader says the same word for why a job does not run: both routes, the operator's command, the metrics."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator

import pytest
from app.config import Settings
from app.db import jobs
from app.domain.statuses import WaitingFor
from app.errors import ErrorCode

from tests.integration.factories import accept, image_plan
from tests.integration.http_gateway import Gateway, gateway

OUTAGE = (
    "update makeit3d.providers set state = 'open', failures = 5, trips = 1, error_code = 'provider_key_rejected',"
    " opened_at = now(), tripped_at = now(), probe_at = now() + interval '1 hour' where name = 'openai'"
)
FULL = "update makeit3d.pools set slots = 1 where name = 'openai'"
RUNS = "status = 'running', attempt = 1, worker_id = gen_random_uuid()"


def of_job(change: str) -> str:
    return f"update makeit3d.jobs set {change} where task_id = 'task-waits-1'"  # noqa: S608


def stored(word: str) -> str:
    later = ", run_after = now() + interval '1 hour'" if word in ("retry", "breaker") else ""
    return of_job(f"waiting_for = '{word}'{later}")


# what happens to the one queued job, and what it waits for then
CASES: dict[str, tuple[tuple[str, ...], WaitingFor | None]] = {
    "nothing keeps it back": ((), WaitingFor.WORKER),
    "an earlier step": ((stored("step"),), WaitingFor.STEP),
    "another task": ((stored("dependency"),), WaitingFor.DEPENDENCY),
    "its user's limit": ((stored("user_limit"),), WaitingFor.USER_LIMIT),
    "its user's limit, in an outage": ((stored("user_limit"), OUTAGE), WaitingFor.USER_LIMIT),
    "a retry": ((stored("retry"),), WaitingFor.RETRY),
    "a retry, in an outage": ((stored("retry"), OUTAGE), WaitingFor.BREAKER),
    "an outage": ((OUTAGE,), WaitingFor.BREAKER),
    "an outage, and its pool is full": ((OUTAGE, FULL), WaitingFor.BREAKER),
    "its own call opened the breaker": ((stored("breaker"), OUTAGE), WaitingFor.BREAKER),
    "its pool is full": ((FULL,), WaitingFor.SLOT),
    "it is paid: neither outage nor full pool matter": ((OUTAGE, FULL, of_job("resume = true")), WaitingFor.WORKER),
    "it runs": ((of_job(RUNS),), None),
}


@pytest.fixture
async def gate(settings: Settings) -> AsyncGenerator[Gateway]:
    async with gateway(settings) as opened:
        yield opened


@pytest.mark.parametrize("case", CASES)
async def test_all_readers_say_the_same(gate: Gateway, case: str) -> None:
    changes, expected = CASES[case]
    await accept(gate.db, image_plan(gate.user_id, "task-waits-0"))
    await gate.db.execute(f"update makeit3d.jobs set {RUNS}")  # noqa: S608 - one slot is taken
    plan = await accept(gate.db, image_plan(gate.user_id, "task-waits-1"))
    for change in changes:
        await gate.db.execute(change)

    status = (await gate.get(f"/tasks/{plan.task_id}/status")).json()
    detail = (await gate.get(f"/tasks/{plan.task_id}")).json()
    record = await jobs.record(gate.db, plan.job_id, events=1)
    assert record is not None
    (job,) = status["jobs"]
    (listed,) = detail["requests"][0]["jobs"]
    told = re.findall(
        r'makeit3d_queue_jobs\{lane="normal",pool="openai",waiting_for="(\w+)"\} 1\.0', await scrape(gate)
    )
    assert {
        "status": status["waiting_for"],
        "job of the status": job["waiting_for"],
        "task": listed["waiting_for"],
        "command": record.job["waiting_for"],
        "metrics": told,
    } == {
        "status": expected,
        "job of the status": expected,
        "task": expected,
        "command": expected,
        "metrics": [] if expected is None else [expected],
    }
    code = ErrorCode.PROVIDER_KEY_REJECTED.code if expected is WaitingFor.BREAKER else None
    said = None if job["error"] is None else job["error"]["code"]
    assert (said, listed["error_code"], record.job["error_code"]) == (code, code, code)


def test_every_reason_has_a_case() -> None:
    assert {expected for _, expected in CASES.values()} == {*WaitingFor, None}


async def scrape(gate: Gateway) -> str:
    return (await gate.http.get("/metrics")).text
