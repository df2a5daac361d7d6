"""The real client against a Supabase that misbehaves on request."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from app.storage.base import StorageUnavailable
from app.storage.supabase_storage import SupabaseStorage

from tests.loopback import loopback
from tests.sandbox_process import SandboxProcess, running_sandbox
from tests.servers import PostgresServer, server_home
from tests.unit.storage.desk import Buckets, Desk, storage_settings

BUCKET = "things"


@pytest.fixture(scope="module")
def sandbox(postgres18: PostgresServer) -> Generator[SandboxProcess]:
    with postgres18.fresh_database() as dsn, server_home("st") as home, running_sandbox(dsn, home) as running:
        key = running.settings.supabase_service_key.get_secret_value()
        body = {"id": BUCKET, "name": BUCKET}
        url = f"{running.supabase_url}/storage/v1/bucket"
        loopback.post(url, json=body, headers={"apikey": key}).raise_for_status()
        yield running


@pytest.fixture
async def desk(sandbox: SandboxProcess, tmp_path: Path) -> AsyncGenerator[Desk]:
    key = sandbox.settings.supabase_service_key.get_secret_value()
    storage = await SupabaseStorage.open(storage_settings(sandbox.supabase_url, key))
    yield Desk(storage, Buckets(BUCKET, BUCKET, BUCKET, BUCKET), tmp_path)
    await storage.remove(BUCKET, ["a.png"])
    await storage.aclose()


@dataclass
class Faults:
    admin: httpx.AsyncClient

    async def arm(self, **fault: object) -> None:
        (await self.admin.post("/storage-faults", json=fault)).raise_for_status()

    async def hits(self) -> int:
        return (await self.admin.get("/storage-faults")).json()["hits"]


@pytest.fixture
async def faults(desk: Desk, sandbox: SandboxProcess) -> AsyncGenerator[Faults]:
    assert desk.files() == 0
    headers = {"X-Admin-Key": sandbox.settings.admin_key.get_secret_value()}
    async with httpx.AsyncClient(base_url=f"{sandbox.url}/admin", headers=headers, timeout=60) as admin:
        yield Faults(admin)
        (await admin.delete("/storage-faults")).raise_for_status()


@pytest.mark.parametrize("kind", ["error_before", "database_timeout", "drop_reply"])
async def test_reads_are_repeated(desk: Desk, faults: Faults, kind: str) -> None:
    await desk.put("a.png")
    before = await faults.hits()
    await faults.arm(kind=kind, count=2)
    assert await desk.get("a.png") == b"content"
    assert await faults.hits() == before + 2


async def test_a_cut_download_is_repeated_from_its_beginning(desk: Desk, faults: Faults) -> None:
    content = bytes(range(256)) * 4000
    await desk.put("a.png", content)
    await faults.arm(kind="truncate", count=1, method="GET")
    assert await desk.get("a.png") == content


async def test_downloads_that_are_always_cut(desk: Desk, faults: Faults) -> None:
    await desk.put("a.png", bytes(1_000_000))
    before = await faults.hits()
    await faults.arm(kind="truncate", method="GET")
    with pytest.raises(StorageUnavailable):
        await desk.get("a.png")
    assert await faults.hits() == before + 3
    assert desk.files() == 0


async def test_uploads_are_not_repeated(desk: Desk, faults: Faults) -> None:
    before = await faults.hits()
    await faults.arm(kind="error_before", count=2, method="POST")
    with pytest.raises(StorageUnavailable):
        await desk.put("a.png")
    assert await faults.hits() == before + 1
    await faults.arm(kind="drop_reply", method="POST")
    with pytest.raises(StorageUnavailable):
        await desk.put("a.png")


async def test_an_upload_whose_reply_was_lost_is_there(desk: Desk, faults: Faults) -> None:
    await faults.arm(kind="drop_reply", count=1, method="POST")
    with pytest.raises(StorageUnavailable):
        await desk.put("a.png", b"stored")
    assert await desk.get("a.png") == b"stored"
    await desk.put("a.png", b"stored")  # a repeat is no conflict
