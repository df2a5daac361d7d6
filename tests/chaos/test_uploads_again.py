"""A job whose worker died after its upload: the next run uploads once more, over a connection that answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
from app.storage.supabase_storage import SupabaseStorage

from tests.loopback import loopback
from tests.sandbox_process import SandboxProcess, running_sandbox
from tests.servers import PostgresServer, server_home
from tests.unit.storage.desk import storage_settings

pytestmark = pytest.mark.chaos

BUCKET = "things"
SIZES = [1_000, 400_000, 5_000_000, 60_000_000]


@pytest.fixture(scope="module")
def sandbox(postgres18: PostgresServer) -> Generator[SandboxProcess]:
    with (
        postgres18.fresh_database() as dsn,
        server_home("again") as home,
        running_sandbox(dsn, home, storage_file_size_limit=100_000_000) as running,
    ):
        key = running.settings.supabase_service_key.get_secret_value()
        url = f"{running.supabase_url}/storage/v1/bucket"
        loopback.post(url, json={"id": BUCKET, "name": BUCKET}, headers={"apikey": key}).raise_for_status()
        yield running


@pytest.fixture
async def storage(sandbox: SandboxProcess) -> AsyncGenerator[SupabaseStorage]:
    opened = await SupabaseStorage.open(
        storage_settings(sandbox.supabase_url, sandbox.settings.supabase_service_key.get_secret_value())
    )
    yield opened
    await opened.aclose()


@pytest.mark.parametrize("size", SIZES)
async def test_what_lies_there_is_replaced_in_one_try(storage: SupabaseStorage, tmp_path: Path, size: int) -> None:
    source = tmp_path / "result"
    source.write_bytes(bytes(size))
    for _ in range(3):  # each of them is one try: a dead connection would raise
        await storage.upload(BUCKET, f"{size}.png", source, content_type="image/png")
        assert (await storage.info(BUCKET, f"{size}.png")).size == size
