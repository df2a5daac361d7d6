"""``makeit3d audit`` against a running stack, as an operator types it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from uuid import uuid4

import pytest

from tests.e2e.gateway import REPOSITORY, Gateway, User
from tests.loopback import loopback

pytestmark = pytest.mark.generate

BUCKET = "makeit3d_app_assets"
SERVICE = {"apikey": "sb_secret_sandbox", "Authorization": "Bearer sb_secret_sandbox"}


def audit(gateway: Gateway, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it where nothing but the stack's home says what to look at."""
    return subprocess.run(
        [sys.executable, "-m", "app.cli", "audit", "--grace", "0.5", *arguments],
        cwd=gateway.home,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "MAKEIT3D_HOME": str(gateway.home),
            "COLUMNS": "160",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_audit_of_a_running_stack(gateway: Gateway, user: User) -> None:
    body = {"task_id": str(uuid4()), "prompt": "a paper boat"}
    assert user.finished(user.post("/generate/text-to-image", body).json()["job_id"])["status"] == "complete"
    clean = audit(gateway, "--deep")
    assert clean.returncode == 0, clean.stdout + clean.stderr
    assert re.search(r"^audit: 4\d checks, \d+ rows, 0 differences$", clean.stdout.splitlines()[-1])

    key = f"concepts/{body['task_id']}/7.png"
    url = f"{gateway.sandbox_url}/supabase/storage/v1/object/{BUCKET}"
    loopback.post(
        f"{url}/{key}", content=b"nobody's", headers={**SERVICE, "Content-Type": "image/png"}
    ).raise_for_status()
    try:
        found = audit(gateway)
        assert found.returncode == 1
        assert "object_has_row" in found.stdout
        assert key in found.stdout
        assert found.stdout.splitlines()[-1].endswith(" 1 differences")
        (difference,) = json.loads(audit(gateway, "--json").stdout)["differences"]
        assert (difference["invariant"], difference["ids"]) == ("object_has_row", {"key": key})
    finally:
        loopback.delete(f"{url}/{key}", headers=SERVICE).raise_for_status()


def test_a_record_that_can_not_be_read_is_said_and_fails(gateway: Gateway) -> None:
    refused = audit(gateway, SANDBOX_ADMIN_KEY="not-the-key")
    assert refused.returncode == 1
    assert "the record of tripo could not be looked at" in refused.stdout
    assert "not-the-key" not in refused.stdout + refused.stderr
