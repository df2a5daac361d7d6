"""A provider that takes nothing, over two worker processes: jobs wait and say why, one at a time shows whether it is
well again, and nothing is lost or paid twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from typing import Any

import pytest

from tests.chaos.databases import run_sql
from tests.e2e.gateway import ADMIN, REPOSITORY, Gateway, gateway_in_new_home, wait_for
from tests.loopback import loopback

pytestmark = pytest.mark.chaos

SETTINGS = {
    "BFF_TRIPO_H_SLOTS": "4",
    "BFF_OPENAI_SLOTS": "4",
    "BFF_RETRY_BASE_SECONDS": "0.1",
    "BFF_BREAKER_COOL_DOWN_SECONDS": "0.5",
    "BFF_BREAKER_LONGEST_COOL_DOWN_SECONDS": "1",
    "SANDBOX_KNOBS": json.dumps({"pools": {"h": 50}, "drawing": "stock"}),
}


@pytest.fixture(scope="module")
def gateway() -> Generator[Gateway]:
    with gateway_in_new_home(**SETTINGS) as running, running.more_workers(1):
        wait_for(lambda: True if len(run_sql(running.dsn(), "select from makeit3d.workers")) >= 3 else None)
        yield running


def refusals(gateway: Gateway, provider: str) -> int:
    """Creates that the provider refused, by its own ledger."""
    answer = loopback.get(f"{gateway.sandbox_url}/admin/ledger", params={"refused": True}, headers=ADMIN)
    return sum(row["provider"] == provider and not row["accepted"] for row in answer.json())


def row(gateway: Gateway, provider: str) -> dict[str, Any]:
    return dict(run_sql(gateway.dsn(), "select * from makeit3d.providers where name = $1", provider)[0])


def ready(gateway: Gateway) -> dict[str, Any]:
    answer = loopback.get(f"{gateway.api_url}/health/ready")
    assert answer.status_code == 200
    body: dict[str, Any] = answer.json()
    return body


def breaker(gateway: Gateway, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "breaker", *arguments],
        cwd=gateway.home,
        env={"PATH": os.environ["PATH"], "MAKEIT3D_HOME": str(gateway.home), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_rejected_key_costs_one_call_per_probe_and_no_job(gateway: Gateway) -> None:
    user = gateway.new_user()
    before = len(gateway.paid())
    gateway.fault("tripo.submit", "bad_key", count=None)
    orders = [user.ask("text-to-model") for _ in range(12)]
    wait_for(lambda: True if row(gateway, "tripo")["trips"] >= 4 else None)
    assert ready(gateway)["status"] == "degraded"
    assert "provider_key_rejected" in ready(gateway)["providers"]["tripo"]
    assert ready(gateway)["providers"]["openai"] == "closed"
    metrics = loopback.get(f"{gateway.api_url}/metrics").text
    assert 'makeit3d_breaker_open{provider="tripo"} 1.0' in metrics
    assert all(user.status(task_id)["status"] in ("pending", "processing") for task_id in orders)
    assert "breaker" in {user.status(task_id)["waiting_for"] for task_id in orders}
    assert wait_for(lambda: one_refusal_per_opening(gateway))
    gateway.fault("tripo.task", "failed", count=None)  # cheap work; that it is accepted is what counts
    clear_submit_faults(gateway)
    for task_id in orders:
        assert user.finished(task_id)["error"]["code"] == "provider_content_refused"
    assert len(gateway.paid()) - before == len(orders)
    assert row(gateway, "tripo")["state"] == "closed"
    assert run_sql(gateway.dsn(), "select from makeit3d.jobs where failures > 1 or crashes > 0") == []


def one_refusal_per_opening(gateway: Gateway) -> bool | None:
    """Every refusal but those that were under way at the first one opened the breaker anew: there was one probe at a
    time. Asked again where the ledger and the row were read at different moments."""
    before = row(gateway, "tripo")
    refused = refusals(gateway, "tripo")
    after = row(gateway, "tripo")
    if (before["trips"], before["state"]) != (after["trips"], after["state"]) or before["state"] != "open":
        return None
    # in half_open nothing else is sent, so failures beyond the openings are of calls sent before the first one
    assert refused == before["failures"]
    assert refused - before["trips"] <= int(SETTINGS["BFF_TRIPO_H_SLOTS"]) - 1
    return True


def clear_submit_faults(gateway: Gateway) -> None:
    gateway.clear_faults()
    gateway.fault("tripo.task", "failed", count=None)


def test_an_operator_closes_it_when_the_credits_are_there_again(gateway: Gateway) -> None:
    user = gateway.new_user()
    gateway.clear_faults()
    gateway.fault("openai", "quota", count=None)
    task_id = user.ask("text-to-image")
    wait_for(lambda: True if row(gateway, "openai")["state"] == "open" else None)
    # as after a long outage
    run_sql(
        gateway.dsn(),
        "update makeit3d.providers set state = 'open', probe_at = now() + interval '1 hour' where name = 'openai'",
    )
    wait_for(lambda: True if user.status(task_id)["waiting_for"] == "breaker" else None)
    gateway.clear_faults()
    found = {item["provider"]: item for item in json.loads(breaker(gateway, "list", "--json"))}
    assert (found["openai"]["state"], found["openai"]["error_code"]) == ("open", "provider_credits_exhausted")
    assert "closed" in breaker(gateway, "close", "openai")
    assert user.finished(task_id)["status"] == "complete"
