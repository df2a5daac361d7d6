"""A repeat is found before anything else: by its key, and by the objects that its links lead to."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from uuid import uuid4

import pytest
from app.config import Settings
from PIL import Image

from tests.integration.http_gateway import Gateway, gateway

INPUTS = "user_input_files_bucket"


@pytest.fixture
async def gate(settings: Settings) -> AsyncGenerator[Gateway]:
    async with gateway(settings) as opened:
        yield opened


async def put_picture(gate: Gateway, name: str, directory: Path) -> str:
    """An upload of the user's own; its key."""
    path = directory / name
    Image.new("RGB", (64, 64), "teal").save(path)
    key = f"{gate.user_id}/{name}"
    await gate.services.storage.upload(INPUTS, key, path, content_type="image/png")
    return key


def signed(gate: Gateway, key: str, token: str) -> str:
    return f"{gate.services.settings.supabase_url}/storage/v1/object/sign/{INPUTS}/{key}?token={token}"


async def ask(gate: Gateway, url: str, *, status: int = 202, key: str | None = None) -> dict[str, str]:
    answer = await gate.post(
        "/generate/image-to-model",
        json={"task_id": "task-repeat-1", "input_image_asset_url": url},
        headers={} if key is None else {"Idempotency-Key": key},
    )
    assert answer.status_code == status, answer.text
    body: dict[str, str] = answer.json()
    return body


async def test_a_freshly_signed_link_to_the_same_object_is_the_same_request(gate: Gateway, tmp_path: Path) -> None:
    key = await put_picture(gate, "photo.png", tmp_path)
    first = await ask(gate, signed(gate, key, "one"))
    repeat = first | {"deduplicated": True}
    assert await ask(gate, signed(gate, key, "two")) == repeat
    assert await ask(gate, signed(gate, key, "two").replace("/sign/", "/authenticated/").partition("?")[0]) == repeat
    await gate.services.storage.remove(INPUTS, [key])
    assert await ask(gate, signed(gate, key, "three")) == repeat
    assert await gate.db.fetchval("select count(*) from makeit3d.jobs") == 1
    other = await put_picture(gate, "other.png", tmp_path)
    assert (await ask(gate, signed(gate, other, "one")))["job_id"] != first["job_id"]


async def test_a_content_link_is_the_object_that_it_names_also_when_it_is_gone(gate: Gateway, tmp_path: Path) -> None:
    key, file_id = await put_picture(gate, "photo.png", tmp_path), uuid4()
    await gate.db.execute(
        "insert into makeit3d.files (id, bucket, key, user_id, kind, content_type, content_key, state, size, stored_at)"
        " values ($1, $2, $3, $4, 'input', 'image/png', 'k', 'stored', 1, now())",
        file_id,
        INPUTS,
        key,
        gate.user_id,
    )
    link = f"{gate.services.settings.public_base_url}/assets/{file_id}/content?key=k"
    repeat = await ask(gate, link) | {"deduplicated": True}
    assert await ask(gate, signed(gate, key, "one")) == repeat
    await gate.db.execute("update makeit3d.files set state = 'removed'")
    assert await ask(gate, link) == repeat


async def test_an_explicit_key_stands_for_one_object_however_key_and_link_are_written(
    gate: Gateway, tmp_path: Path
) -> None:
    key = await put_picture(gate, "photo.png", tmp_path)
    first = await ask(gate, signed(gate, key, "one"), key='my"key')
    assert await ask(gate, signed(gate, key, "two"), key='"my\\"key"') == first | {"deduplicated": True}
    for url in (signed(gate, key.replace("photo", "never-there"), "one"), "https://elsewhere.example/a.png"):
        assert (await ask(gate, url, status=422, key='my"key'))["code"] == "idempotency_key_reused"
    assert (await ask(gate, signed(gate, key, "one"), key='"of words, quoted"'))["deduplicated"] is False
    assert (await ask(gate, signed(gate, key, "one"), status=422, key="of words"))["code"] == "validation_error"
