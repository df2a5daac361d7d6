"""``makeit3d doctor`` as an operator runs it: what is printed, and the exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from app.config import child_environment

from tests.e2e.gateway import REPOSITORY
from tests.integration.factories import settings_for
from tests.servers import free_port


def doctor(home: Path, *arguments: str, **changes: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401
    """With settings that lead nowhere."""
    nobody = f"127.0.0.1:{free_port()}"
    nowhere = {
        "supabase_url": f"http://{nobody}/supabase",
        "openai_base_url": f"http://{nobody}/openai/v1",
        "tripo_base_url": f"http://{nobody}/tripo/v3",
        "public_base_url": f"http://{nobody}",
        "redis_url": f"redis://:hunter2@{nobody}/0",
    }
    settings = settings_for(f"postgresql://app:hunter2@{nobody}/postgres", home, **(nowhere | changes))
    return subprocess.run(
        [sys.executable, "-m", "app.cli", "doctor", "--patience", "60", *arguments],
        env={**child_environment(settings), "PYTHONPATH": str(REPOSITORY)},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def test_everything_that_is_wrong_is_in_the_document(tmp_path: Path) -> None:
    done = doctor(tmp_path, "--json", tripo_h_slots=11)
    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert {finding["code"] for finding in document["findings"]} == {
        "slots_above_account",
        "database_unreachable",
        "broker_unreachable",
        "storage_unreachable",
        "jwks_unreachable",
        "provider_unreachable",
        "api_unreachable",
    }
    assert (document["errors"], document["warnings"]) == (6, 2)  # two providers
    assert {"group", "code", "severity", "meaning", "seen", "do"} == set(document["findings"][0])
    assert "hunter2" not in done.stdout + done.stderr


def test_findings_are_printed_with_what_to_do(tmp_path: Path) -> None:
    done = doctor(tmp_path)
    assert done.returncode == 1
    assert "database_unreachable" in done.stdout
    assert "→ look whether it runs, and at host and port of DATABASE_URL" in done.stdout
    assert "doctor: 6 errors, 1 warning " in done.stdout.splitlines()[-1]
    assert "Traceback" not in done.stdout + done.stderr
    assert "hunter2" not in done.stdout + done.stderr
