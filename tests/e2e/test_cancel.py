"""Canceling over HTTP with real processes, a real bucket and money that is counted at the providers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from tests.e2e.gateway import ADMIN, Gateway, User, wait_for
from tests.e2e.test_audit_cli import audit
from tests.loopback import loopback

pytestmark = pytest.mark.chaos

LOOKS = 20
FINAL = ("complete", "failed", "canceled")


def storage_fault(gateway: Gateway, **fault: object) -> None:
    loopback.post(f"{gateway.sandbox_url}/admin/storage-faults", json=fault, headers=ADMIN).raise_for_status()


def accepted(status: dict[str, Any]) -> bool:
    return bool(status)


def running(status: dict[str, Any]) -> bool:
    return status["status"] == "processing"


def half_way(status: dict[str, Any]) -> bool:
    return status["progress"] >= 40


def nearly_there(status: dict[str, Any]) -> bool:
    return status["progress"] >= 99


LIVES: tuple[tuple[str, Callable[[dict[str, Any]], bool]], ...] = (
    ("text-to-image", accepted),
    ("text-to-image", running),
    ("text-to-image", running),
    ("text-to-model", accepted),
    ("text-to-model", running),
    ("text-to-model", half_way),
    ("text-to-model", nearly_there),
    ("text-to-model", nearly_there),
)


def test_canceled_at_many_moments_everything_adds_up(gateway: Gateway, user: User) -> None:
    """Some uploads lose their reply, so that a file is there and nobody was told."""
    storage_fault(gateway, kind="drop_reply", method="POST", path_contains="/object/makeit3d_app_assets/", count=2)
    gateway.knobs(work_seconds=2)
    before = {row["reference"] for row in gateway.paid()}

    def live(plan: tuple[str, Callable[[dict[str, Any]], bool]]) -> tuple[str, int]:
        operation, moment = plan
        task = str(uuid4())
        answer = user.post(f"/generate/{operation}", {"task_id": task, "prompt": f"a fox {task}"})
        assert answer.status_code == 202

        def come() -> bool | None:
            status = user.status(task)
            return moment(status) or status["status"] in FINAL or None

        wait_for(come)
        return task, user.post(f"/tasks/{task}/cancel", {}).status_code

    try:
        with ThreadPoolExecutor(len(LIVES)) as clients:
            lives = list(clients.map(live, LIVES))
    finally:
        loopback.delete(f"{gateway.sandbox_url}/admin/storage-faults", headers=ADMIN).raise_for_status()
        gateway.knobs(work_seconds=0.3)
    assert {code for _, code in lives} <= {200, 409}
    for task, code in lives:
        status = user.status(task)
        assert status["status"] == ("canceled" if code == 200 else "complete")
        assert (status["asset_url"] is None) is (code == 200)

    def costs_are_told() -> bool | None:
        """As many jobs as the providers accepted calls say what they cost."""
        accepted = [row for row in gateway.paid() if row["reference"] not in before]
        told = sum(job["cost_micros"] > 0 for task, _ in lives for job in user.status(task)["jobs"])
        return told == len(accepted) or None

    wait_for(costs_are_told)
    looks = [audit(gateway)]
    while looks[-1].returncode and len(looks) < LOOKS:  # a file that was cut is removed a little later
        looks.append(audit(gateway))
    assert looks[-1].returncode == 0, looks[-1].stdout
