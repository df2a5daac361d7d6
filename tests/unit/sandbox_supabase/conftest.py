"""A sandbox process on a database of its own."""

from __future__ import annotations

from collections.abc import Generator

import httpx
import pytest

from tests.sandbox_process import SandboxProcess, running_sandbox
from tests.servers import PostgresServer, server_home

BUCKET = "things"


@pytest.fixture(scope="module")
def sandbox(postgres18: PostgresServer) -> Generator[SandboxProcess]:
    with postgres18.fresh_database() as dsn, server_home("sb") as home, running_sandbox(dsn, home) as running:
        yield running


@pytest.fixture
def service(sandbox: SandboxProcess) -> Generator[httpx.Client]:
    """The Storage API of a project with the bucket ``things``, as the service; the bucket is empty at first."""
    key = sandbox.settings.supabase_service_key.get_secret_value()
    base = f"{sandbox.supabase_url}/storage/v1"
    with httpx.Client(base_url=base, headers={"apikey": key, "content-type": "image/png"}, timeout=60) as client:
        made = client.post("/bucket", json={"name": BUCKET})
        assert made.is_success or made.json()["code"] == "BucketAlreadyExists"
        client.post(f"/bucket/{BUCKET}/empty").raise_for_status()
        yield client
