"""Storage as the vendor's Python client sees it. Runs against the sandbox or any Supabase (see conftest)."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from storage3.exceptions import StorageApiError
from supabase import AsyncClient

from tests.contract.supabase_target import SupabaseTarget, User

GLB = {"content-type": "model/gltf-binary"}
MIB = 1024 * 1024
PROJECT_LIMIT = 50 * MIB  # of a project where nobody changed it


@pytest.fixture
async def client(supabase: SupabaseTarget) -> AsyncGenerator[AsyncClient]:
    async with supabase.client() as made:
        yield made


@pytest.fixture
async def users_client(supabase: SupabaseTarget, user: User) -> AsyncGenerator[AsyncClient]:
    async with supabase.client(supabase.publishable_key) as made:
        await made.auth.sign_in_with_password({"email": user.email, "password": user.password})
        yield made


def refused(caught: pytest.ExceptionInfo[StorageApiError]) -> tuple[str, str]:
    return str(caught.value.status), str(caught.value.code)


async def test_upload_info_and_download(client: AsyncClient, bucket: str) -> None:
    files = client.storage.from_(bucket)
    options: Any = {**GLB, "cache-control": "60", "metadata": {"kind": "draft", "n": 1}}
    done = await files.upload("u1/a.glb", b"glTF bytes", options)
    assert (done.path, done.full_path) == ("u1/a.glb", f"{bucket}/u1/a.glb")
    info: dict[str, Any] = await files.info("u1/a.glb")
    assert info["name"] == "u1/a.glb"
    assert info["bucket_id"] == bucket
    assert info["size"] == 10
    assert info["content_type"] == "model/gltf-binary"
    assert info["cache_control"] == "max-age=60"
    assert info["metadata"] == {"kind": "draft", "n": 1}
    assert info["etag"].startswith('"')
    assert await files.download("u1/a.glb") == b"glTF bytes"


async def test_a_file_is_streamed_from_its_path(client: AsyncClient, bucket: str, tmp_path: Path) -> None:
    source = tmp_path / "m.glb"
    block = hashlib.sha512(b"block").digest() * 1024
    source.write_bytes(block * 48)  # 3 MiB, many reads
    files = client.storage.from_(bucket)
    await files.upload("m.glb", source, {"content-type": "model/gltf-binary"})
    assert await files.download("m.glb") == source.read_bytes()


async def test_create_never_overwrites_and_upsert_does(client: AsyncClient, bucket: str) -> None:
    files = client.storage.from_(bucket)
    await files.upload("a", b"one", {"content-type": "image/png"})
    first: dict[str, Any] = await files.info("a")
    with pytest.raises(StorageApiError) as caught:
        await files.upload("a", b"two", {"content-type": "image/png"})
    assert refused(caught) == ("409", "Duplicate")
    assert await files.download("a") == b"one"

    await files.upload("a", b"three", {"content-type": "image/webp", "upsert": "true"})
    second: dict[str, Any] = await files.info("a")
    assert await files.download("a") == b"three"
    assert (second["id"], second["content_type"]) == (first["id"], "image/webp")
    assert second["etag"] != first["etag"]
    assert second["version"] != first["version"]


async def test_update_overwrites_and_creates(client: AsyncClient, bucket: str) -> None:
    files = client.storage.from_(bucket)
    await files.update("new", b"1", {"content-type": "image/png"})
    await files.update("new", b"22", {"content-type": "image/png"})
    assert await files.download("new") == b"22"


async def test_creating_is_no_lock(supabase: SupabaseTarget, client: AsyncClient, bucket: str) -> None:
    """Whether the key is free is asked before the content is read; the last write replaces what it finds."""
    files = client.storage.from_(bucket)
    is_read, may_end = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncGenerator[bytes]:
        for _ in range(16):  # more than lies on the way: whoever takes it has found the key free
            yield b"slow" * (MIB // 4)
        is_read.set()
        await may_end.wait()
        yield b"end"

    async def create(content: bytes | AsyncGenerator[bytes]) -> httpx.Response:
        async with httpx.AsyncClient(timeout=60) as http:
            key = supabase.service_key
            headers = {"apikey": key, "Authorization": f"Bearer {key}", "content-type": "image/png"}
            return await http.post(f"{supabase.storage}/object/{bucket}/race", content=content, headers=headers)

    early = asyncio.create_task(create(slow()))
    await is_read.wait()
    late = await create(b"quick")
    assert await files.download("race") == b"quick"
    may_end.set()
    assert (await early).json() == late.json()  # the same Id
    content = await files.download("race")
    assert (content[:4], content[-4:], len(content)) == (b"slow", b"wend", 16 * MIB + 3)


async def test_racing_overwrites_all_succeed(client: AsyncClient, bucket: str) -> None:
    files = client.storage.from_(bucket)
    bodies = [bytes([number]) * 50_000 for number in range(6)]
    await asyncio.gather(
        *(files.upload("same", body, {"content-type": "image/png", "upsert": "true"}) for body in bodies)
    )
    assert await files.download("same") in bodies


async def test_what_is_missing_is_404(client: AsyncClient, bucket: str) -> None:
    files = client.storage.from_(bucket)
    with pytest.raises(StorageApiError) as caught:
        await files.download("nothing")
    assert refused(caught) == ("404", "not_found")
    with pytest.raises(StorageApiError) as caught:
        await files.create_signed_url("nothing", 60)
    assert refused(caught) == ("404", "not_found")
    with pytest.raises(StorageApiError) as caught:
        await client.storage.from_(f"{bucket}-not").info("a")
    assert refused(caught) == ("404", "Bucket not found")
    assert await files.exists("nothing") is False
    await files.upload("something", b"x", {"content-type": "image/png"})
    assert await files.exists("something") is True


@pytest.mark.parametrize("key", ["x y/é.txt", "日本.png", "a|b", "a\\b"])
async def test_keys_keep_to_the_allowed_characters(client: AsyncClient, bucket: str, key: str) -> None:
    with pytest.raises(StorageApiError) as caught:
        await client.storage.from_(bucket).upload(key, b"x", {"content-type": "image/png"})
    assert refused(caught) == ("400", "InvalidKey")


async def test_list_shows_one_folder_level(client: AsyncClient, bucket: str) -> None:
    files = client.storage.from_(bucket)
    for key in ("u1/a.glb", "u1/b.glb", "u1/sub/c.glb", "u1/sub/d.glb", "top.glb"):
        await files.upload(key, key.encode(), {"content-type": "model/gltf-binary"})
    names = [entry["name"] for entry in await files.list("u1")]
    assert sorted(names) == ["a.glb", "b.glb", "sub"]
    entries: dict[str, Any] = {entry["name"]: entry for entry in await files.list("u1")}
    assert entries["sub"]["id"] is None
    assert entries["sub"]["metadata"] is None
    assert entries["a.glb"]["metadata"]["size"] == len("u1/a.glb")
    assert entries["a.glb"]["metadata"]["mimetype"] == "model/gltf-binary"
    assert sorted(entry["name"] for entry in await files.list()) == ["top.glb", "u1"]

    descending = await files.list("u1/sub", {"sortBy": {"column": "name", "order": "desc"}})
    assert [entry["name"] for entry in descending] == ["d.glb", "c.glb"]
    second = await files.list("u1/sub", {"limit": 1, "offset": 1, "sortBy": {"column": "name", "order": "asc"}})
    assert [entry["name"] for entry in second] == ["d.glb"]
    assert await files.list("nowhere") == []


async def test_list_v2_pages_by_cursor(client: AsyncClient, bucket: str) -> None:
    files = client.storage.from_(bucket)
    keys = sorted([f"p/{number:02}.bin" for number in range(5)] + ["p/sub/x", "p/sub/y", "q/other"])
    for key in keys:
        await files.upload(key, b"x", {"content-type": "image/png"})

    seen: list[str] = []
    cursor: str | None = None
    while True:
        options: Any = {"prefix": "p/", "limit": 3} | ({"cursor": cursor} if cursor else {})
        page = await files.list_v2(options)
        assert len(page.objects) <= 3
        seen += [str(found.name) for found in page.objects]
        if not page.hasNext:
            break
        cursor = page.nextCursor
    assert seen == [key for key in keys if key.startswith("p/")]

    page = await files.list_v2({"prefix": "p/", "with_delimiter": True})
    assert [folder.name for folder in page.folders] == ["p/sub/"]
    assert len(page.objects) == 5
    assert page.hasNext is False


async def test_signed_urls_need_no_key(client: AsyncClient, bucket: str) -> None:
    files = client.storage.from_(bucket)
    await files.upload("u1/a.glb", b"0123456789", {"content-type": "model/gltf-binary"})
    url = (await files.create_signed_url("u1/a.glb", 60))["signedURL"]
    named = (await files.create_signed_url("u1/a.glb", 60, {"download": "my model.glb"}))["signedURL"]
    many: list[Any] = await files.create_signed_urls(["u1/a.glb", "u1/none"], 60)
    async with httpx.AsyncClient(timeout=60) as http:
        reply = await http.get(str(url))
        assert (reply.status_code, reply.content) == (200, b"0123456789")
        disposition = (await http.get(str(named))).headers["content-disposition"]
        assert disposition.startswith("attachment;")
        assert "my%20model.glb" in disposition
        assert (await http.get(many[0]["signedURL"])).content == b"0123456789"
    assert many[0]["error"] is None
    assert many[1]["error"]


async def test_signed_upload(supabase: SupabaseTarget, client: AsyncClient, bucket: str) -> None:
    files = client.storage.from_(bucket)
    signed = await files.create_signed_upload_url("in/b.bin")
    async with supabase.client(supabase.publishable_key) as anybody:
        theirs = anybody.storage.from_(bucket)
        done = await theirs.upload_to_signed_url("in/b.bin", signed["token"], b"sent", {"content-type": "image/png"})
        assert done.path == "in/b.bin"
        with pytest.raises(StorageApiError) as caught:
            await theirs.upload_to_signed_url("in/b.bin", signed["token"], b"again", {"content-type": "image/png"})
        assert refused(caught) == ("409", "Duplicate")
        with pytest.raises(StorageApiError) as caught:
            await theirs.upload_to_signed_url("in/other", signed["token"], b"x", {"content-type": "image/png"})
        assert refused(caught) == ("400", "InvalidSignature")
    assert await files.download("in/b.bin") == b"sent"


async def test_remove_is_idempotent(client: AsyncClient, bucket: str) -> None:
    files = client.storage.from_(bucket)
    await files.upload("d.glb", b"x", {"content-type": "image/png"})
    gone: list[Any] = await files.remove(["d.glb", "none"])
    assert [row["name"] for row in gone] == ["d.glb"]
    assert gone[0]["bucket_id"] == bucket
    assert await files.remove(["d.glb"]) == []
    await files.upload("d.glb", b"y", {"content-type": "image/png"})  # the key is free again
    assert await files.download("d.glb") == b"y"


async def test_copy_and_move(supabase: SupabaseTarget, client: AsyncClient, bucket: str) -> None:
    files = client.storage.from_(bucket)
    await files.upload("a.glb", b"bytes", {**GLB, "metadata": {"k": "v"}})  # pyright: ignore[reportArgumentType]
    before: dict[str, Any] = await files.info("a.glb")
    await files.copy("a.glb", "copy.glb")
    copied: dict[str, Any] = await files.info("copy.glb")
    assert copied["id"] != before["id"]
    assert (copied["etag"], copied["metadata"]) == (before["etag"], {"k": "v"})
    with pytest.raises(StorageApiError) as caught:
        await files.copy("a.glb", "copy.glb")
    assert refused(caught) == ("409", "Duplicate")
    with pytest.raises(StorageApiError) as caught:
        await files.move("none.glb", "x.glb")
    assert refused(caught) == ("404", "not_found")

    await files.move("a.glb", "deep/moved.glb")
    assert await files.exists("a.glb") is False
    assert await files.download("deep/moved.glb") == b"bytes"
    moved: dict[str, Any] = await files.info("deep/moved.glb")
    assert moved["id"] == before["id"]

    with supabase.bucket() as elsewhere, supabase.http() as http:
        body = {"bucketId": bucket, "sourceKey": "copy.glb", "destinationKey": "c", "destinationBucket": elsewhere}
        http.post(f"{supabase.storage}/object/copy", json=body).raise_for_status()
        assert await client.storage.from_(elsewhere).download("c") == b"bytes"


async def test_buckets(client: AsyncClient, bucket: str) -> None:
    with pytest.raises(StorageApiError) as caught:
        await client.storage.create_bucket(bucket)
    assert refused(caught) == ("409", "Duplicate")
    assert bucket in [found.id for found in await client.storage.list_buckets()]
    assert (await client.storage.get_bucket(bucket)).public is False
    await client.storage.update_bucket(bucket, {"public": True, "allowed_mime_types": ["image/*"]})
    changed = await client.storage.get_bucket(bucket)
    assert (changed.public, changed.allowed_mime_types) == (True, ["image/*"])
    with pytest.raises(StorageApiError) as caught:
        await client.storage.get_bucket(f"{bucket}-not")
    assert refused(caught) == ("404", "Bucket not found")
    await client.storage.from_(bucket).upload("a", b"x", {"content-type": "image/png"})
    with pytest.raises(StorageApiError) as caught:
        await client.storage.delete_bucket(bucket)
    assert refused(caught) == ("409", "ResourceNotEmpty")
    await client.storage.empty_bucket(bucket)
    deadline = time.monotonic() + 60  # asynchronous on the hosted service
    while await client.storage.from_(bucket).list():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)


@pytest.mark.parametrize(
    ("types", "sent", "taken"),
    [
        (["image/*"], "image/png", True),
        (["image/png"], "image/png", True),
        (["image/png"], "IMAGE/PNG", False),
        (["image/png"], "image/png; a=b", False),
        (["*/*"], "image/png", False),
        ([], "application/pdf", True),
        (["model/gltf-binary"], "nonsense", False),
    ],
)
async def test_types_match_by_the_letter(
    supabase: SupabaseTarget, client: AsyncClient, types: list[str], sent: str, *, taken: bool
) -> None:
    with supabase.bucket(allowed_mime_types=types) as name, supabase.http() as http:
        assert (await client.storage.get_bucket(name)).allowed_mime_types == types
        reply = http.post(f"{supabase.storage}/object/{name}/a", content=b"x", headers={"content-type": sent})
        assert (reply.is_success, reply.json().get("statusCode")) == (taken, None if taken else "415")


async def test_bucket_limits(supabase: SupabaseTarget, client: AsyncClient) -> None:
    with supabase.bucket(file_size_limit=MIB, allowed_mime_types=["image/*", "model/gltf-binary"]) as name:
        files = client.storage.from_(name)
        with pytest.raises(StorageApiError) as caught:
            await files.upload("large", b"x" * (MIB + 1), {"content-type": "image/png"})
        assert refused(caught) == ("413", "Payload too large")
        with pytest.raises(StorageApiError) as caught:
            await files.upload("a", b"x", {"content-type": "application/pdf"})
        assert refused(caught) == ("415", "invalid_mime_type")
        await files.upload("a", b"x", {"content-type": "image/webp"})
        await files.upload("b", b"x" * MIB, {"content-type": "model/gltf-binary"})
        assert sorted(entry["name"] for entry in await files.list()) == ["a", "b"]


async def test_no_object_is_larger_than_the_project_allows(
    supabase: SupabaseTarget, client: AsyncClient, bucket: str
) -> None:
    files = client.storage.from_(bucket)
    await files.upload("most", b"x" * PROJECT_LIMIT, {"content-type": "image/png"})
    with pytest.raises(StorageApiError) as caught:
        await files.upload("more", b"x" * (PROJECT_LIMIT + 1), {"content-type": "image/png"})
    assert refused(caught) == ("413", "Payload too large")
    with supabase.bucket(file_size_limit=PROJECT_LIMIT) as name:
        assert (await client.storage.get_bucket(name)).file_size_limit == PROJECT_LIMIT
        with pytest.raises(StorageApiError) as caught:
            await client.storage.update_bucket(name, {"public": False, "file_size_limit": PROJECT_LIMIT + 1})
        assert refused(caught) == ("413", "Payload too large")


async def test_without_a_policy_a_user_sees_and_writes_nothing(
    client: AsyncClient, users_client: AsyncClient, bucket: str
) -> None:
    await client.storage.from_(bucket).upload("secret", b"x", {"content-type": "image/png"})
    theirs = users_client.storage.from_(bucket)
    with pytest.raises(StorageApiError) as caught:
        await theirs.upload("mine", b"x", {"content-type": "image/png"})
    assert refused(caught) == ("403", "Unauthorized")
    with pytest.raises(StorageApiError) as caught:
        await theirs.download("secret")
    assert refused(caught) == ("404", "not_found")
    assert await theirs.list() == []
    assert await theirs.remove(["secret"]) == []
    assert await client.storage.from_(bucket).exists("secret") is True


async def test_a_user_owns_the_folder_of_their_id(
    client: AsyncClient, users_client: AsyncClient, inputs_bucket: str, user: User
) -> None:
    theirs, key = users_client.storage.from_(inputs_bucket), f"{user.id}/photo.png"
    await theirs.upload(key, b"photo", {"content-type": "image/png"})
    assert await theirs.download(key) == b"photo"
    assert [entry["name"] for entry in await theirs.list(user.id)] == ["photo.png"]
    with pytest.raises(StorageApiError) as caught:
        await theirs.upload("11111111-1111-4111-8111-111111111111/photo.png", b"x", {"content-type": "image/png"})
    assert refused(caught) == ("403", "Unauthorized")
    with pytest.raises(StorageApiError) as caught:
        await theirs.move(key, "11111111-1111-4111-8111-111111111111/photo.png")
    assert refused(caught) == ("403", "Unauthorized")

    # over another's object: an overwrite is refused, whatever x-upsert says
    await client.storage.from_(inputs_bucket).upload(
        "shared.png", b"x", {"content-type": "image/png", "upsert": "true"}
    )
    with pytest.raises(StorageApiError) as caught:
        await theirs.upload("shared.png", b"y", {"content-type": "image/png", "upsert": "true"})
    assert refused(caught) == ("403", "Unauthorized")

    gone: list[Any] = await client.storage.from_(inputs_bucket).remove([key, "shared.png"])
    owners = {row["name"]: row["owner_id"] for row in gone}
    assert owners[key] == user.id
    assert not owners["shared.png"]
