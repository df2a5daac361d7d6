"""Inputs through the shipped storage: what is checked, what is handed on, and that nothing stays on disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from app.config import Settings
from app.domain.params import ObjectRef
from app.errors import AppError, ErrorCode
from app.services.decoders import Decoders
from app.services.input_files import InputFiles
from app.storage.base import ObjectInfo, StorageError, StorageUnavailable
from app.storage.memory import MemoryStorage
from PIL import Image

from tests.unit.inputs.pictures import glb, gradient, noise, saved

BUCKET = "inputs"
USER = uuid4()
MAX_BYTES = 60_000


@dataclass
class Desk:
    """Input files over a storage in a directory."""

    storage: MemoryStorage
    inputs: InputFiles
    work: Path
    spool: Path

    async def put(self, path: Path) -> ObjectRef:
        ref = ObjectRef(BUCKET, path.name)
        await self.storage.upload(BUCKET, path.name, path, content_type="text/html")
        return ref

    async def put_picture(self, name: str, image: Image.Image, format_name: str) -> ObjectRef:
        return await self.put(saved(self.work / name, image, format_name))

    def leftovers(self) -> list[Path]:
        return list(self.spool.iterdir()) if self.spool.exists() else []


def limited() -> Settings:
    return Settings.model_validate(
        {
            "supabase_url": "http://127.0.0.1:1",
            "supabase_service_key": "sb_secret_test",
            "database_url": "postgresql://nobody@localhost/unused",
            "redis_url": "redis://localhost",
            "openai_api_key": "sk-test",
            "tripo_api_key": "tsk_test",
            "max_input_bytes": MAX_BYTES,
            "max_model_bytes": MAX_BYTES,
            "max_input_pixels": 500_000,
        }
    )


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    (tmp_path / "objects").mkdir()
    (tmp_path / "work").mkdir()
    storage = MemoryStorage(tmp_path / "objects", {BUCKET: False})
    spool = tmp_path / "spool"
    async with aclosing(Decoders(limited())) as decoders:
        yield Desk(storage, InputFiles(storage, limited(), spool, decoders), tmp_path / "work", spool)
    assert not list(tmp_path.glob("spool/*")), "something was left in the spool"


async def refused(desk: Desk, ref: ObjectRef) -> AppError:
    with pytest.raises(AppError) as caught:
        await desk.inputs.inspect_picture(ref, USER)
    with pytest.raises(AppError) as again:
        async with desk.inputs.fetch_picture(ref, USER):
            pytest.fail("a refused picture was handed on")
    assert again.value.error is caught.value.error
    return caught.value


async def test_a_picture_is_looked_at(desk: Desk) -> None:
    _, seen = await desk.inputs.inspect_picture(await desk.put_picture("a.bin", gradient(), "WEBP"), USER)
    assert (seen.width, seen.height, seen.content_type) == (64, 48, "image/webp")


async def test_a_picture_is_handed_on_as_what_it_is(desk: Desk) -> None:
    ref = await desk.put_picture("a.bin", gradient("CMYK"), "JPEG")
    async with desk.inputs.fetch_picture(ref, USER) as file:
        assert (file.content_type, file.filename) == ("image/jpeg", "input.jpg")
        with Image.open(file.path) as image:
            assert (image.mode, image.format) == ("RGB", "JPEG")
        assert desk.leftovers()


async def test_a_failing_caller_leaves_nothing(desk: Desk) -> None:
    ref = await desk.put_picture("a.png", gradient(), "PNG")
    with pytest.raises(RuntimeError):
        async with desk.inputs.fetch_picture(ref, USER):
            raise RuntimeError
    assert not desk.leftovers()


async def test_a_canceled_caller_leaves_nothing(desk: Desk) -> None:
    ref = await desk.put_picture("a.png", noise((100, 100)), "PNG")
    refs = [ref] * 8

    async def fetch(ref: ObjectRef) -> None:
        async with desk.inputs.fetch_picture(ref, USER):
            pass

    for turns in (*range(8), 100, 300, 1000, 3000):
        tasks = [asyncio.create_task(fetch(ref)) for ref in refs]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not desk.leftovers()


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", ErrorCode.INPUT_EMPTY),
        (b"<html>", ErrorCode.INPUT_NOT_IMAGE),
        (b"x" * (MAX_BYTES + 1), ErrorCode.INPUT_TOO_LARGE),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 99, ErrorCode.INPUT_TRUNCATED),
    ],
)
async def test_refusals(desk: Desk, content: bytes, error: ErrorCode) -> None:
    (desk.work / "a.png").write_bytes(content)
    assert (await refused(desk, await desk.put(desk.work / "a.png"))).error is error


async def test_a_missing_object(desk: Desk) -> None:
    assert (await refused(desk, ObjectRef(BUCKET, "none.png"))).error is ErrorCode.INPUT_NOT_FOUND
    assert (await refused(desk, ObjectRef("none", "none.png"))).error is ErrorCode.INPUT_NOT_FOUND


async def test_models(desk: Desk) -> None:
    (desk.work / "a.glb").write_bytes(glb())
    ref = await desk.put(desk.work / "a.glb")
    await desk.inputs.inspect_model(ref)
    async with desk.inputs.fetch_model(ref) as file:
        assert (file.content_type, file.filename) == ("model/gltf-binary", "input.glb")
        assert file.path.read_bytes() == glb()
    picture = await desk.put_picture("a.png", gradient(), "PNG")
    with pytest.raises(AppError) as caught:
        await desk.inputs.inspect_model(picture)
    assert caught.value.error is ErrorCode.INPUT_NOT_MODEL


async def test_results_of_providers(desk: Desk) -> None:
    good = saved(desk.work / "a.png", gradient(), "PNG")
    assert (await desk.inputs.look_at(good, USER)).width == 64
    assert await desk.inputs.make_preview(good, desk.work / "p.webp", USER) == desk.work / "p.webp"
    bad = desk.work / "b.png"
    bad.write_bytes(b"<html>")
    with pytest.raises(AppError) as caught:
        await desk.inputs.look_at(bad, USER)
    assert caught.value.error is ErrorCode.PROVIDER_RESULT_INVALID
    assert await desk.inputs.make_preview(bad, desk.work / "q.webp", USER) is None


class Unwell(MemoryStorage):
    """A storage whose downloads fail, after some bytes."""

    error: StorageError = StorageUnavailable("503 ")

    async def download(self, bucket: str, key: str, target: Path, *, max_bytes: int) -> ObjectInfo:  # noqa: ARG002
        target.write_bytes(b"half")
        raise self.error


@pytest.mark.parametrize("error", [StorageUnavailable("the download was cut"), StorageError("403 Unauthorized")])
async def test_a_storage_that_is_unwell(tmp_path: Path, error: StorageError) -> None:
    storage = Unwell(tmp_path, {BUCKET: False})
    storage.error = error
    inputs = InputFiles(storage, limited(), tmp_path / "spool", Decoders(limited()))
    with pytest.raises(AppError) as caught:
        await inputs.inspect_picture(ObjectRef(BUCKET, "a.png"), USER)
    assert caught.value.error is ErrorCode.STORAGE_UNAVAILABLE
    assert caught.value.retry_after
    assert not list((tmp_path / "spool").iterdir())
