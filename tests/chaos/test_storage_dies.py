"""Storage dies in every way: who needs it is told, what was paid waits for it, and nothing is left lying about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path

import httpx
import pytest
from app.embedded.valkey import EmbeddedValkey
from app.storage.base import StorageUnavailable
from app.storage.supabase_storage import SupabaseStorage

from tests.chaos.proxy import Proxy
from tests.chaos.stack import BUCKET, INPUTS, Stack, assert_unavailable, running_stack
from tests.e2e.gateway import sample, wait_for
from tests.servers import PostgresServer

pytestmark = pytest.mark.chaos

HANG = 30.0  # seconds; a transfer that is this long under way has no end
AT_THE_UPLOAD = "select count(*) from makeit3d.files where state = 'uploading' and job_id is not null"


@pytest.fixture(scope="module")
def shared(postgres18: PostgresServer, valkey_server: EmbeddedValkey) -> Generator[Stack]:
    with running_stack(postgres18, valkey_server) as stack:
        yield stack


@pytest.fixture(scope="module")
def picture_url(shared: Stack) -> str:
    """An input that was uploaded while all was well."""
    answer = _upload(shared)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["asset_url"])


def _upload(stack: Stack) -> httpx.Response:
    picture = sample("coffee.png").read_bytes()
    return stack.http.post("/uploads", files={"file": ("a.png", picture, "image/png")})


@pytest.mark.parametrize("away", [Proxy.refuse, Proxy.stall])
def test_without_storage_who_needs_it_is_told_and_paid_work_waits(
    stack: Stack, picture_url: str, away: Callable[[Proxy], None]
) -> None:
    stack.knobs(work_seconds=1.0)
    task = stack.accepted("text-to-image")
    wait_for(
        lambda: True if stack.value("select count(*) from makeit3d.provider_calls where state = 'intent'") else None
    )
    stack.knobs(work_seconds=0.1)
    away(stack.storage)
    assert_unavailable(_upload(stack), "storage_unavailable")
    assert_unavailable(stack.ask("image-to-image", input_image_asset_url=picture_url), "storage_unavailable")
    assert stack.get(f"/tasks/{task}/status").status_code == 200
    during = stack.accepted("text-to-image")
    wait_for(lambda: True if stack.value(AT_THE_UPLOAD) == 2 else None)
    ready = stack.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert ready.json()["parts"]["storage"] == "unreachable"
    stack.storage.heal()
    stack.complete(task, during)
    wait_for(lambda: True if stack.parts()["storage"] == "ok" else None)
    stack.nothing_is_left_over()


FAULTS = [
    pytest.param({"kind": "drop_reply", "method": "POST", "count": 2}, id="the upload's reply is dropped"),
    pytest.param({"kind": "error_before", "method": "POST", "count": 4, "status": 502}, id="5xx"),
    pytest.param({"kind": "database_timeout", "count": 4}, id="storage's own database is slow"),
    pytest.param({"kind": "truncate", "method": "POST", "count": 1}, id="a cut reply"),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_results_reach_the_bucket_in_the_end(stack: Stack, fault: dict[str, object]) -> None:
    stack.storage_fault(**(fault | {"path_contains": f"/{BUCKET}/concepts/"}))  # pyright: ignore[reportArgumentType]
    task = stack.accepted("text-to-image", n=2)
    stack.complete(task)
    assert stack.storage_hits() == fault["count"]
    stack.nothing_is_left_over()


@pytest.mark.parametrize("kind", ["truncate", "error_before"])
def test_inputs_are_read_in_the_end(stack: Stack, picture_url: str, kind: str) -> None:
    task = stack.accepted("image-to-image", input_image_asset_url=picture_url)
    stack.storage_fault(kind, method="GET", count=4)  # more than one run repeats
    stack.complete(task)
    stack.nothing_is_left_over()


def test_a_clients_upload_that_broke_off_is_swept_away(stack: Stack) -> None:
    before = stack.objects(INPUTS)
    stack.storage_fault("drop_reply", method="POST", count=1, path_contains=f"/{INPUTS}/")
    assert_unavailable(_upload(stack), "storage_unavailable")
    cut = stack.objects(INPUTS) - before
    assert len(cut) == 1  # storage has it, and nobody else knows
    stack.rows("update makeit3d.files set created_at = now() - interval '1 day' where state = 'uploading'")
    wait_for(lambda: True if not cut & stack.objects(INPUTS) else None)
    wait_for(lambda: True if not stack.rows("select id from makeit3d.files where state = 'uploading'") else None)


# --- the client of storage ----------------------------------------------------------------------------------


@pytest.fixture
async def storage(stack: Stack) -> AsyncGenerator[SupabaseStorage]:
    opened = await SupabaseStorage.open(stack.settings.model_copy(update={"supabase_timeout_seconds": 0.5}))
    yield opened
    await opened.aclose()


async def test_a_transfer_that_only_drips_is_given_up(stack: Stack, storage: SupabaseStorage, tmp_path: Path) -> None:
    content = bytes(50_000)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(content)
    await storage.upload(BUCKET, "drip.png", source, content_type="image/png")
    try:
        stack.storage_fault("slow", method="GET", bytes_per_second=1000)
        async with asyncio.timeout(HANG):
            with pytest.raises(StorageUnavailable):
                await storage.download(BUCKET, "drip.png", target, max_bytes=len(content))
        assert not target.exists()
    finally:
        stack.clear_storage_faults()
        await storage.remove(BUCKET, ["drip.png"])


async def test_a_storage_that_says_nothing_holds_nobody(stack: Stack, storage: SupabaseStorage, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    assert await storage.is_public(BUCKET)
    stack.storage.stall()
    async with asyncio.timeout(HANG):
        for call in (
            storage.upload(BUCKET, "silent.png", source, content_type="image/png"),
            storage.info(BUCKET, "silent.png"),
            storage.signed_url(BUCKET, "silent.png", seconds=60),
            storage.check(BUCKET),
        ):
            with pytest.raises(StorageUnavailable):
                await call
    stack.storage.cut()  # the upload was held on its way, and must not arrive
