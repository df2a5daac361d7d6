"""What a scrape tells of the whole installation, what it costs, and that the runbook speaks of what there is."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path

import httpx
import pytest
import yaml
from app.calls import journal
from app.config import Settings
from app.db import breakers, jobs
from app.db.pool import Database
from app.domain.operations import Operation
from app.tasks.worker import serve_metrics
from prometheus_client import REGISTRY
from pydantic import SecretStr

from tests import kernel
from tests.integration.factories import accept, call_intent, image_plan, make_user, make_worker, settings_for
from tests.integration.http_gateway import Gateway, gateway
from tests.integration.workshop import open_workshop
from tests.servers import free_port

DOCS = Path(__file__).resolve().parents[2] / "docs"
_NAME = re.compile(r"\bmakeit3d_[a-z0-9_]+\b")


@pytest.fixture
async def gate(settings: Settings) -> AsyncGenerator[Gateway]:
    async with gateway(settings) as opened:
        yield opened


async def scrape(gate: Gateway) -> str:
    answer = await gate.http.get("/metrics")
    assert answer.status_code == 200, answer.text
    return answer.text


async def test_a_scrape_tells_of_queue_slots_calls_and_workers(gate: Gateway) -> None:
    for number in range(3):
        await accept(gate.db, image_plan(gate.user_id, f"task-metrics-{number}"))
    await gate.db.execute("update makeit3d.jobs set created_at = now() - interval '1 hour'")
    worker = await make_worker(gate.db, lanes=("normal",))
    assert len((await kernel.claim(gate.db, worker_id=worker.id, lanes=worker.lanes, limit=1)).jobs) == 1
    text = await scrape(gate)
    assert 'makeit3d_queue_jobs{lane="normal",pool="openai",waiting_for="worker"} 2.0' in text
    age = re.search(r'makeit3d_queue_age_seconds\{lane="normal",pool="openai"\} (\S+)', text)
    assert age is not None
    assert 3600 <= float(age[1]) < 7200
    assert 'makeit3d_pool_slots_used{pool="openai"} 1.0' in text
    assert 'makeit3d_workers{lane="normal"} 1.0' in text
    assert 'makeit3d_workers{lane="priority"} 0.0' in text
    assert "makeit3d_database_readable 1.0" in text
    assert str(gate.user_id) not in text


async def test_what_an_open_breaker_holds_back_waits_for_no_slot(gate: Gateway) -> None:
    """Or an operator would buy slots, and start workers, while a key is wrong."""
    plan = image_plan(gate.user_id, "task-metrics-held")
    await accept(gate.db, plan)
    await gate.db.execute("update makeit3d.jobs set created_at = now() - interval '1 hour'")
    await breakers.failed(
        gate.db,
        "openai",
        job_id=None,
        error_code="provider_key_rejected",
        at_once=True,
        threshold=5,
        cool_down_seconds=60,
        longest_seconds=60,
    )
    text = await scrape(gate)
    assert 'makeit3d_queue_jobs{lane="normal",pool="openai",waiting_for="breaker"} 1.0' in text
    assert 'waiting_for="worker"' not in text
    assert "makeit3d_queue_age_seconds{" not in text
    record = await jobs.record(gate.db, plan.jobs[0].id, events=1)
    assert record is not None
    assert (record.job["waiting_for"], record.job["error_code"]) == ("breaker", "provider_key_rejected")


async def test_without_a_database_nothing_is_told_from_memory(gate: Gateway) -> None:
    await gate.db.close()
    text = await scrape(gate)
    assert "makeit3d_database_readable 0.0" in text
    assert "makeit3d_queue_jobs" not in text


async def test_a_token_closes_the_metrics(database: str, tmp_path: Path) -> None:
    settings = settings_for(database, tmp_path, metrics_token=SecretStr("scraper-of-this-place"))
    async with gateway(settings) as gate:
        for headers in ({}, {"Authorization": "Bearer another"}, gate.headers()):
            assert (await gate.http.get("/metrics", headers=headers)).status_code == 401
        good = await gate.http.get("/metrics", headers={"Authorization": "Bearer scraper-of-this-place"})
        assert good.status_code == 200


async def test_refusals_are_counted_by_code(gate: Gateway) -> None:
    refused = partial(REGISTRY.get_sample_value, "makeit3d_http_problems_total", {"code": "unauthenticated"})
    before = refused() or 0
    assert (await gate.http.get("/tasks")).status_code == 401
    assert refused() == before + 1


async def test_what_a_sweep_settles_is_in_the_costs(db: Database, database: str, tmp_path: Path) -> None:
    cost = partial(
        REGISTRY.get_sample_value, "makeit3d_cost_usd_micros_total", {"provider": "openai", "certainty": "estimate"}
    )
    before = cost() or 0
    user = await make_user(db)
    await accept(db, image_plan(user, "task-metrics-cost"))
    worker = await make_worker(db)
    (job,) = (await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=1)).jobs
    assert await journal.intend(db, job.claim, call_intent())
    await kernel.cancel(db, "task-metrics-cost", user)
    await db.execute("update makeit3d.provider_calls set deadline = now() - interval '1 hour'")
    async with open_workshop(db, database, tmp_path) as shop, asyncio.timeout(60):
        while cost() in (None, before):  # another round may be under way
            await shop.workers[0].sweeper.round()
    assert cost() == before + 40_000


async def test_each_worker_process_finds_a_port(settings: Settings) -> None:
    wanted = settings.model_copy(update={"worker_metrics_port": free_port()})
    first, second = serve_metrics(wanted), serve_metrics(wanted)
    assert first is not None
    assert second is not None
    assert first != second
    async with httpx.AsyncClient(timeout=60) as http:
        for port in (first, second):
            assert "makeit3d_jobs_claimed_total" in (await http.get(f"http://127.0.0.1:{port}/metrics")).text
    assert serve_metrics(settings.model_copy(update={"worker_metrics_port": None})) is None


async def test_runbook_and_rules_name_what_there_is(gate: Gateway) -> None:
    await accept(gate.db, image_plan(gate.user_id, "task-metrics-0"))
    served = re.findall(r"^# TYPE (makeit3d_\S+)", await scrape(gate), flags=re.MULTILINE)
    there = {name for name in served if not name.endswith("_created")}
    runbook = (DOCS / "runbook.md").read_text(encoding="utf-8")
    documented = set(_NAME.findall(runbook))
    assert there == documented
    rules = yaml.safe_load((DOCS / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    for rule in rules:
        names = {name.removesuffix("_bucket") for name in _NAME.findall(rule["expr"])}
        assert names, rule
        assert names <= there, rule
    told = set(re.findall(r"^\| `([A-Z][A-Za-z]+)` \|", runbook, flags=re.MULTILINE))
    assert told == {rule["alert"] for rule in rules}


async def test_rules_ask_for_series_that_a_scrape_has(gate: Gateway, database: str, tmp_path: Path) -> None:
    """Names and labels alike: a rule about a series that is never there is a rule that never fires."""
    await accept(gate.db, image_plan(gate.user_id, "task-metrics-1"))
    worker = await make_worker(gate.db)
    (job,) = (await kernel.claim(gate.db, worker_id=worker.id, lanes=worker.lanes, limit=1)).jobs
    call = call_intent()
    assert await journal.intend(gate.db, job.claim, call)
    await journal.unknown(gate.db, call.id, error_code="provider_outcome_unknown", http_status=None)
    await accept(gate.db, image_plan(gate.user_id, "task-metrics-2"))
    await gate.http.get("/health/live")
    queued = series(await scrape(gate))
    home = tmp_path / "workshop"
    home.mkdir()
    async with open_workshop(gate.db, database, home) as shop:
        await shop.finished(await shop.ask(Operation.TEXT_TO_IMAGE, "task-metrics-3"))
        there = series(await scrape(gate)) | queued
    rules = yaml.safe_load((DOCS / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    for rule in rules:
        asked = re.findall(r"\b(makeit3d_[a-z0-9_]+)(?:\{([^}]*)\})?", rule["expr"])
        grouped = {label for group in re.findall(r"\bby \(([^)]*)\)", rule["expr"]) for label in group.split(", ")}
        assert asked, rule
        for name, matchers in asked:
            labels = set(re.findall(r"(\w+)=~?\"", matchers)) | grouped
            assert any(known == name and labels <= names for known, names in there), (rule, name, labels)


def series(text: str) -> set[tuple[str, frozenset[str]]]:
    """Names of samples, with the names of their labels."""
    samples = re.findall(r"^(makeit3d_\w+)(?:\{(.*)\})? ", text, flags=re.MULTILINE)
    return {(name, frozenset(re.findall(r"(\w+)=\"", labels))) for name, labels in samples}


def test_counters_of_rare_events_begin_at_zero() -> None:
    """Prometheus sees no increase in a series that begins with 1."""
    program = "import prometheus_client, app.tasks.runtime; print(prometheus_client.generate_latest().decode())"
    fresh = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=250)
    for sample in (
        'makeit3d_unknown_calls_settled_total{end="given_up"} 0.0',
        'makeit3d_swept_total{what="dead_workers"} 0.0',
        'makeit3d_bells_total{lane="normal",outcome="failed"} 0.0',
    ):
        assert sample in fresh.stdout
