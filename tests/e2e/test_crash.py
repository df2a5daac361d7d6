"""Killing the product: what was paid is paid once, and what was accepted completes."""

from __future__ import annotations

import os
import signal
from uuid import uuid4

import pytest

from tests.e2e.gateway import Gateway, User, wait_for

pytestmark = pytest.mark.generate


def test_workers_killed_while_tripo_works(user: User, gateway: Gateway) -> None:
    gateway.knobs(work_seconds=4)
    try:
        before = len(gateway.paid())
        body = user.post(
            "/generate/text-to-model", {"task_id": str(uuid4()), "prompt": "a boat that is interrupted"}
        ).json()
        wait_for(lambda: True if len(gateway.paid()) > before else None)
        for pid in gateway.pids("app.cli worker"):
            os.kill(pid, signal.SIGKILL)
        status = user.finished(body["job_id"])
        assert status["status"] == "complete", status
        assert len(gateway.paid()) == before + 1
    finally:
        gateway.knobs(work_seconds=0.3)


def test_the_launcher_killed_leaves_nothing_in_the_way(gateway: Gateway, user: User) -> None:
    body = user.post("/generate/text-to-image", {"task_id": str(uuid4()), "prompt": "a lighthouse"}).json()
    status = user.finished(body["job_id"])
    children = list(gateway.children())
    assert len(children) >= 7
    os.kill(gateway.process.pid, signal.SIGKILL)
    gateway.process.wait()
    gateway.restart()
    again = user.http.get(f"/tasks/{body['task_id']}/status")
    assert again.json()["asset_url"] == status["asset_url"]
    assert not any(os.path.exists(f"/proc/{pid}") for pid in children)  # noqa: PTH110 - processes, not files
