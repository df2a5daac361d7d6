"""``makeit3d jobs`` at 3 a.m.: what failed, why, what it cost, and running it again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from uuid import uuid4

import pytest

from tests.e2e.gateway import REPOSITORY, Gateway, User

pytestmark = pytest.mark.generate


def jobs(gateway: Gateway, *arguments: str, columns: int = 200) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", "jobs", *arguments],
        cwd=gateway.home,
        env={
            "PATH": os.environ["PATH"],
            "MAKEIT3D_HOME": str(gateway.home),
            "COLUMNS": str(columns),
            "PYTHONPATH": str(REPOSITORY),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def failed(user: User, prompt: str) -> str:
    task = str(uuid4())
    body = user.post("/generate/text-to-model", {"task_id": task, "prompt": prompt}).json()
    assert user.finished(body["job_id"])["status"] == "failed"
    return task


def test_a_failed_job_is_listed_shown_retried_and_completes(gateway: Gateway, user: User) -> None:
    gateway.fault("tripo.submit", "moderation")
    task = failed(user, "a boat that is refused once")
    listed = jobs(gateway, "failed", "--user", user.id, columns=80)
    assert listed.returncode == 0, listed.stderr
    assert task in listed.stdout
    assert "provider_content_refused 1\n" in listed.stdout
    (item,) = json.loads(jobs(gateway, "failed", "--json", "--user", user.id, "--since", "1h").stdout)
    assert (item["task_id"], item["cost_micros"]) == (task, 0)
    retried = jobs(gateway, "retry", task)
    assert retried.returncode == 0, retried.stdout + retried.stderr
    status = user.finished(task)
    assert (status["status"], status["retry_of"]) == ("complete", item["request_id"])
    assert status["result"]["model_url"].endswith("model_1.glb")
    shown = jobs(gateway, "show", task, columns=80).stdout  # ids can be copied from a narrow terminal
    assert "completed" in shown
    assert f"models/{task}/model_1.glb" in shown
    assert status["jobs"][0]["provider_task_id"] in shown
    assert "a boat that is refused" not in shown
    assert "Nothing failed" in jobs(gateway, "failed", "--user", user.id).stdout


def test_what_may_be_paid_twice_is_left_out_unless_allowed(gateway: Gateway, user: User) -> None:
    gateway.fault("openai", "reset_after")
    task = str(uuid4())
    body = user.post("/generate/text-to-image", {"task_id": task, "prompt": "a fox nobody knows about"}).json()
    assert user.finished(body["job_id"])["error"]["code"] == "provider_outcome_unknown"
    refused = jobs(gateway, "retry", "--code", "provider_outcome_unknown", "--user", user.id)
    assert refused.returncode == 1
    assert "--may-pay-again" in refused.stdout
    allowed = jobs(gateway, "retry", task, "--may-pay-again")
    assert allowed.returncode == 0, allowed.stdout
    assert user.finished(task)["status"] == "complete"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("retry",), "--all"),
        (("retry", "nobody-knows-it"), "no such"),
        (("failed", "--since", "yesterday"), "--since"),
        (("failed", "--user", "me"), "--user"),
        (("show", "nobody-knows-it"), "nobody-knows-it"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(gateway: Gateway, arguments: tuple[str, ...], word: str) -> None:
    done = jobs(gateway, *arguments)
    assert done.returncode == 1
    assert word in done.stdout
    assert "Traceback" not in done.stderr
