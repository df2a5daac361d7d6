"""A user who sends many requests with inputs at a time waits for themselves; nobody else waits for them."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import httpx
import pytest
from app.storage.base import ObjectInfo
from app.storage.memory import MemoryStorage
from app.task_types.acceptance import MOST_LOOKS
from PIL import Image

from tests.integration.factories import settings_for
from tests.integration.http_gateway import Gateway, gateway
from tests.unit.inputs.pictures import attacks, black_png

BUCKET = "user_input_files_bucket"


@dataclass
class Gated(MemoryStorage):
    """Objects named so come only when they are let go."""

    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    under_way: Counter[str] = field(default_factory=Counter[str])
    most: Counter[str] = field(default_factory=Counter[str])

    async def download(self, bucket: str, key: str, target: Path, *, max_bytes: int) -> ObjectInfo:
        name = key.rpartition("/")[2]
        self.under_way[name] += 1
        self.most[name] = max(self.most[name], self.under_way[name])
        try:
            if name == "gated.png":
                await self.let_go.wait()
            return await super().download(bucket, key, target, max_bytes=max_bytes)
        finally:
            self.under_way[name] -= 1


@pytest.fixture
async def gate(database: str, tmp_path: Path) -> AsyncGenerator[Gateway]:
    async with gateway(settings_for(database, tmp_path), storage_kind=Gated) as opened:
        yield opened


async def put(gate: Gateway, key: str, tmp_path: Path, side: int = 64) -> str:
    sink = io.BytesIO()
    Image.new("RGB", (side, side)).save(sink, "PNG")
    source = tmp_path / "source"
    source.write_bytes(sink.getvalue())
    await gate.services.storage.upload(BUCKET, key, source, content_type="image/png")
    return f"{gate.services.settings.supabase_url}/storage/v1/object/authenticated/{BUCKET}/{key}"


async def ask(gate: Gateway, number: int, *urls: str, headers: dict[str, str] | None = None) -> httpx.Response:
    body = {"task_id": f"task-turns-{number:03}", "input_image_asset_urls": list(urls)}
    return await gate.http.post(
        "/generate/image-to-model", json=body, headers=headers or gate.headers(), timeout=httpx.Timeout(120)
    )


async def test_a_flood_of_inputs_is_looked_at_two_at_a_time_and_delays_nobody(gate: Gateway, tmp_path: Path) -> None:
    storage = cast("Gated", gate.services.storage)
    gated = await put(gate, f"{gate.user_id}/gated.png", tmp_path)
    flood = [asyncio.create_task(ask(gate, number, gated)) for number in range(MOST_LOOKS + 1)]
    try:
        # one finds no more room, which one is open; the others wait
        done, _ = await asyncio.wait(flood, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        refused = next(iter(done)).result()
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_inputs")
        assert int(refused.headers["retry-after"]) > 0

        other = await gate.another_user()
        theirs = await put(gate, f"{other}/free.png", tmp_path)
        assert (await ask(gate, 500, theirs, headers=gate.headers(other))).status_code == 202
    finally:
        storage.let_go.set()
    codes = Counter([(await request).status_code for request in flood])
    assert codes == {202: MOST_LOOKS, 429: 1}
    assert storage.most["gated.png"] == 2


async def test_a_refused_input_leaves_no_look_at_another_going_on(gate: Gateway, tmp_path: Path) -> None:
    storage = cast("Gated", gate.services.storage)
    tiny = await put(gate, f"{gate.user_id}/tiny.png", tmp_path, side=4)
    gated = await put(gate, f"{gate.user_id}/gated.png", tmp_path)
    try:
        answer = await ask(gate, 1, tiny, gated, gated)
        left = storage.under_way["gated.png"]
    finally:
        storage.let_go.set()
    assert (answer.status_code, answer.json()["code"]) == (422, "input_too_small")
    assert left == 0


async def test_no_accepted_picture_of_one_user_is_in_anothers_way(gate: Gateway, tmp_path: Path) -> None:
    """Counted in pictures: while one user's are decoded, each of another's waits for one of them at most."""
    large = tmp_path / "large"
    large.write_bytes(black_png(7_900, 7_900))
    await gate.services.storage.upload(BUCKET, f"{gate.user_id}/large.png", large, content_type="image/png")
    base = f"{gate.services.settings.supabase_url}/storage/v1/object/authenticated/{BUCKET}"
    other = await gate.another_user()
    theirs = await put(gate, f"{other}/free.png", tmp_path)
    assert (await ask(gate, 100, theirs, headers=gate.headers(other))).status_code == 202
    flood = [asyncio.create_task(ask(gate, number, f"{base}/{gate.user_id}/large.png")) for number in range(10)]
    try:
        await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
        before = sum(request.done() for request in flood)
        for number in range(5):
            answer = await ask(gate, 200 + number, theirs, headers=gate.headers(other))
            assert answer.status_code == 202
        assert sum(request.done() for request in flood) - before <= 5
        assert all(request.result().status_code == 202 for request in flood if request.done())
    finally:
        for request in flood:
            request.cancel()
        await asyncio.gather(*flood, return_exceptions=True)


@pytest.mark.parametrize("name", ["jpeg markers", "jpeg fill", "png private chunks", "png empty data"])
async def test_an_attack_is_refused_before_anything_is_queued(gate: Gateway, tmp_path: Path, name: str) -> None:
    path = tmp_path / "attack"
    path.write_bytes(attacks(20 * 1024 * 1024 - 4_096)[name])
    await gate.services.storage.upload(BUCKET, f"{gate.user_id}/attack", path, content_type="image/png")
    base = f"{gate.services.settings.supabase_url}/storage/v1/object/authenticated/{BUCKET}"
    answers = await asyncio.gather(*(ask(gate, number, f"{base}/{gate.user_id}/attack") for number in range(4)))
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(422, "input_too_complex")}
    assert await gate.db.fetchval("select count(*) from makeit3d.jobs") == 0
