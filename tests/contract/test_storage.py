"""One suite for every storage: the shipped one, and Supabase's through the client that the gateway uses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from app.storage.base import (
    ContentTypeRefused,
    Limiter,
    ObjectNotFound,
    ObjectTooLarge,
    StorageError,
    StorageUnavailable,
)
from app.storage.memory import MemoryStorage
from app.storage.supabase_storage import SupabaseStorage

from tests.contract.supabase_target import SupabaseTarget
from tests.unit.storage.desk import SMALL, Buckets, Desk, storage_settings

KEYS = [
    "a.png",
    "concepts/0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9/0.png",
    ".trash/models/task_0-1/model_1.glb",
    "u1/IMG (1) & more.jpg",
    "u1/don't+@$=;:,!*.png",
]


@pytest.fixture
def supabase_buckets(supabase: SupabaseTarget) -> Generator[Buckets]:
    with ExitStack() as stack:
        yield Buckets(
            private=stack.enter_context(supabase.bucket()),
            public=stack.enter_context(supabase.bucket(public=True)),
            small=stack.enter_context(supabase.bucket(file_size_limit=SMALL)),
            models=stack.enter_context(supabase.bucket(allowed_mime_types=["model/gltf-binary"])),
        )


@pytest.fixture(params=["shipped", "supabase"])
def place(request: pytest.FixtureRequest) -> tuple[SupabaseTarget, Buckets] | None:
    """The Supabase under test and its buckets, None for the shipped storage."""
    if request.param == "shipped":
        return None
    return request.getfixturevalue("supabase"), request.getfixturevalue("supabase_buckets")


@pytest.fixture
async def desk(place: tuple[SupabaseTarget, Buckets] | None, tmp_path: Path) -> AsyncGenerator[Desk]:
    work, objects = tmp_path / "work", tmp_path / "objects"
    work.mkdir()
    objects.mkdir()
    if place is None:
        buckets = Buckets("private", "public", "small", "models")
        visible = {buckets.private: False, buckets.public: True, buckets.small: False, buckets.models: False}
        types = {buckets.models: ["model/gltf-binary"]}
        storage = MemoryStorage(objects, visible, limits={buckets.small: SMALL}, types=types)
    else:
        target, buckets = place
        storage = await SupabaseStorage.open(storage_settings(target.url, target.service_key))
    yield Desk(storage, buckets, work)
    await storage.aclose()


@pytest.fixture
async def supabase_desk(supabase: SupabaseTarget, supabase_buckets: Buckets, tmp_path: Path) -> AsyncGenerator[Desk]:
    storage = await SupabaseStorage.open(storage_settings(supabase.url, supabase.service_key))
    yield Desk(storage, supabase_buckets, tmp_path)
    await storage.aclose()


# --- every storage ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
async def test_what_goes_in_comes_out(desk: Desk, key: str) -> None:
    await desk.put(key, b"\x00\xffcontent")
    assert await desk.get(key) == b"\x00\xffcontent"
    info = await desk.storage.info(desk.buckets.private, key)
    assert (info.bucket, info.key, info.size, info.content_type) == (desk.buckets.private, key, 9, "image/png")
    assert info.etag
    assert await desk.keys() == [key]
    assert await desk.storage.remove(desk.buckets.private, [key]) == [key]


@pytest.mark.parametrize("size", [0, 1, 5_000_001])
async def test_sizes(desk: Desk, size: int) -> None:
    content = bytes(size - 1) + b"!" if size else b""
    await desk.put("a.bin", content)
    assert await desk.get("a.bin", max_bytes=size) == content


async def test_an_upload_takes_the_place_of_what_lay_there(desk: Desk) -> None:
    await desk.put("a.png", b"first")
    before = await desk.storage.info(desk.buckets.private, "a.png")
    await desk.put("a.png", b"second one")
    assert await desk.get("a.png") == b"second one"
    after = await desk.storage.info(desk.buckets.private, "a.png")
    assert (after.size, after.etag == before.etag) == (10, False)
    assert await desk.keys() == ["a.png"]


async def test_uploads_at_the_same_time_all_succeed_and_one_stays_whole(desk: Desk) -> None:
    contents = [bytes([n]) * 100_000 for n in range(5)]
    await asyncio.gather(*(desk.put("a.png", content) for content in contents))
    assert await desk.get("a.png") in contents
    assert await desk.keys() == ["a.png"]


async def test_what_is_not_there(desk: Desk) -> None:
    for bucket in (desk.buckets.private, "contract-none"):
        for call in (
            desk.storage.info(bucket, "none.png"),
            desk.get("none.png", bucket=bucket),
            desk.storage.signed_url(bucket, "none.png", seconds=60),
        ):
            with pytest.raises(ObjectNotFound):
                await call
    for call in (desk.put("a.png", bucket="contract-none"), desk.storage.is_public("contract-none")):
        with pytest.raises(ObjectNotFound):
            await call
    assert desk.files() == 0


async def test_keys_that_no_storage_holds(desk: Desk) -> None:
    for key in (
        "",
        "/",
        "a//b",
        "/a",
        "a/",
        "../a",
        "a/../b",
        "./a",
        "a/.",
        "ä.png",
        "a%2e.png",
        "a?b",
        "a\n",
        "a" * 1025,
    ):
        for call in (desk.put(key), desk.get(key), desk.storage.info(desk.buckets.private, key)):
            with pytest.raises(StorageError) as caught:
                await call
            assert not isinstance(caught.value, StorageUnavailable | ObjectNotFound)
    assert await desk.keys() == []


async def test_a_limit_on_downloads(desk: Desk) -> None:
    await desk.put("a.png", bytes(2000))
    with pytest.raises(ObjectTooLarge) as caught:
        await desk.get("a.png", max_bytes=1999)
    assert (caught.value.limiter, caught.value.max_bytes) == (Limiter.CALLER, 1999)
    assert desk.files() == 0
    assert len(await desk.get("a.png", max_bytes=2000)) == 2000


async def test_a_limit_of_the_bucket(desk: Desk) -> None:
    await desk.put("a.png", bytes(SMALL), bucket=desk.buckets.small)
    with pytest.raises(ObjectTooLarge) as caught:
        await desk.put("b.png", bytes(SMALL + 1), bucket=desk.buckets.small)
    assert (caught.value.limiter, caught.value.max_bytes) == (Limiter.BUCKET, SMALL)
    with pytest.raises(ObjectNotFound):
        await desk.storage.info(desk.buckets.small, "b.png")


async def test_a_type_that_the_bucket_does_not_take(desk: Desk) -> None:
    with pytest.raises(ContentTypeRefused):
        await desk.put("a.png", bucket=desk.buckets.models)
    with pytest.raises(ObjectNotFound):
        await desk.storage.info(desk.buckets.models, "a.png")


async def test_removing_is_idempotent(desk: Desk) -> None:
    for key in ("a/1.png", "a/2.png", "a/3.png", "a/10.png"):
        await desk.put(key)
    assert sorted(await desk.storage.remove(desk.buckets.private, ["a/1.png", "none.png", "a/2.png"])) == [
        "a/1.png",
        "a/2.png",
    ]
    assert await desk.storage.remove(desk.buckets.private, ["a/1.png"]) == []
    assert await desk.storage.remove(desk.buckets.private, []) == []
    assert await desk.storage.remove(desk.buckets.private, ["a", "a/"]) == []  # keys, not folders
    assert await desk.keys() == ["a/10.png", "a/3.png"]


async def test_removing_more_than_a_page(desk: Desk) -> None:
    await desk.put("last.png")
    assert await desk.storage.remove(desk.buckets.private, [*(f"none/{n}" for n in range(1500)), "last.png"]) == [
        "last.png"
    ]


async def test_listing_is_by_prefix_and_in_order(desk: Desk) -> None:
    for key in ("b/2.png", "a/1.png", "b/1.png", "B/1.png", "b1.png", "b/c/d.png"):
        await desk.put(key, b"xyz")
    assert sorted(await desk.keys()) == ["B/1.png", "a/1.png", "b/1.png", "b/2.png", "b/c/d.png", "b1.png"]
    assert await desk.keys("b/") == ["b/1.png", "b/2.png", "b/c/d.png"]
    assert await desk.keys("b") == ["b/1.png", "b/2.png", "b/c/d.png", "b1.png"]
    assert await desk.keys("none/") == []
    found = [item async for item in desk.storage.list(desk.buckets.private, prefix="a/")]
    assert [(item.key, item.size) for item in found] == [("a/1.png", 3)]
    assert found[0].updated_at[:2] == "20"


async def test_what_is_public(desk: Desk) -> None:
    assert await desk.storage.is_public(desk.buckets.public)
    assert not await desk.storage.is_public(desk.buckets.private)
    assert desk.storage.public_url(desk.buckets.public, "a/b.png").endswith(
        f"/object/public/{desk.buckets.public}/a/b.png"
    )


async def test_a_bucket_is_served_or_is_not_there(desk: Desk) -> None:
    await desk.storage.check(desk.buckets.private)
    with pytest.raises(ObjectNotFound):
        await desk.storage.check("no-such-bucket")


# --- Supabase alone -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
async def test_urls_serve_the_object(supabase: SupabaseTarget, supabase_desk: Desk, key: str) -> None:
    desk, buckets = supabase_desk, supabase_desk.buckets
    await desk.put(key, b"secret")
    await desk.put(key, b"for all", bucket=buckets.public)
    signed = await desk.storage.signed_url(buckets.private, key, seconds=60)
    assert signed.startswith(f"{supabase.storage}/object/sign/")
    async with httpx.AsyncClient(timeout=60) as anybody:
        assert (await anybody.get(signed)).content == b"secret"
        assert (await anybody.get(desk.storage.public_url(buckets.public, key))).content == b"for all"
        assert (await anybody.get(desk.storage.public_url(buckets.private, key))).is_error


async def test_a_wrong_key_is_refused_and_not_shown(supabase: SupabaseTarget, supabase_desk: Desk) -> None:
    desk = supabase_desk
    stranger = await SupabaseStorage.open(storage_settings(supabase.url, "sb_secret_stranger"))
    for call in (
        stranger.upload(desk.buckets.private, "a.png", desk.file(b"x"), content_type="image/png"),
        stranger.remove(desk.buckets.private, ["a.png"]),
    ):
        with pytest.raises(StorageError) as caught:
            await call
        assert not isinstance(caught.value, StorageUnavailable | ObjectNotFound)
        assert "stranger" not in str(caught.value)
    await stranger.aclose()
