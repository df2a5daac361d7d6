"""Uploads become inputs; content links serve what they name, and nothing else."""

from __future__ import annotations

import asyncio
import io
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from app.config import Settings
from app.schemas.uploads import UploadedAsset
from app.storage.base import StorageUnavailable
from app.storage.memory import MemoryStorage
from PIL import Image
from prometheus_client import REGISTRY

from tests.integration.factories import accept, image_plan, settings_for
from tests.integration.http_gateway import Gateway, gateway


def picture(kind: str = "PNG", size: tuple[int, int] = (64, 48)) -> bytes:
    sink = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(sink, kind)
    return sink.getvalue()


def glb() -> bytes:
    content = b'{"asset":{"version":"2.0"}} '
    return struct.pack("<4sIIII", b"glTF", 2, 20 + len(content), len(content), 0x4E4F534A) + content


@pytest.fixture
def settings(database: str, tmp_path: Path) -> Settings:
    return settings_for(database, tmp_path, max_input_bytes=200_000, max_model_bytes=300_000)


@pytest.fixture
async def gate(settings: Settings) -> AsyncGenerator[Gateway]:
    async with gateway(settings) as opened:
        yield opened


async def upload(gate: Gateway, content: bytes, name: str = "photo.png", **fields: str) -> httpx.Response:
    return await gate.post("/uploads", files={"file": (name, content, "application/octet-stream")}, data=fields)


PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
INPUTS, RESULTS = "user_input_files_bucket", "makeit3d_app_assets"


async def bucket(gate: Gateway, name: str = INPUTS) -> dict[str, int]:
    listing = gate.services.storage.list(name, prefix="")
    return {stored.key: stored.size async for stored in listing}


async def test_a_picture_becomes_an_input(gate: Gateway) -> None:
    content = picture("JPEG")
    answer = await upload(gate, content, "x.exe", task_id="task-upload-1", input_asset_type="uploaded_sketch")
    assert answer.status_code == 201
    asset = UploadedAsset.model_validate(answer.json(), extra="forbid")
    assert await bucket(gate) == {f"{gate.user_id}/{asset.id}.jpg": len(content)}
    assert await bucket(gate, RESULTS) == {}  # which is public
    assert asset.asset_url.startswith(f"{gate.services.settings.public_base_url}/assets/")
    assert (asset.width, asset.height, asset.size, asset.content_type) == (64, 48, len(content), "image/jpeg")
    row = await gate.db.fetchrow("select * from input_assets")
    assert row is not None
    assert (row["id"], row["task_id"], row["user_id"]) == (asset.id, "task-upload-1", gate.user_id)
    assert (row["status"], row["input_asset_type"]) == ("complete", "uploaded_sketch")
    assert row["asset_url"] == asset.asset_url
    file = await gate.db.fetchrow("select * from makeit3d.files where id = $1", row["file_id"])
    assert file is not None
    assert (file["state"], file["size"], file["sha256"], file["kind"]) == (
        "stored",
        len(content),
        asset.sha256,
        "input",
    )
    assert list(gate.services.settings.spool_directory.iterdir()) == []


async def test_an_upload_can_be_used_at_once(gate: Gateway) -> None:
    url = (await upload(gate, picture("WEBP"))).json()["asset_url"]
    key = next(iter(await bucket(gate)))
    stored = f"{gate.services.settings.supabase_url}/storage/v1/object/authenticated/{INPUTS}/{key}"
    body = {"task_id": "task-upload-2", "input_image_asset_urls": [url, stored]}
    answer = await gate.post("/generate/image-to-model", json=body)
    assert answer.status_code == 202, answer.text
    source = "select i.asset_url from models m join input_assets i on i.id = m.source_input_asset_id"
    assert await gate.db.fetchval(source) == url
    answer = await gate.post(
        "/generate/image-to-model", json={"task_id": "task-upload-3", "input_image_asset_urls": [stored]}
    )
    assert answer.status_code == 202, answer.text
    assert await gate.db.fetchval(f"{source} where m.task_id = 'task-upload-3'") == url  # known by either spelling
    stranger = gate.headers(await gate.another_user())
    theirs = await gate.http.post("/generate/image-to-model", json={**body, "task_id": "task-x-1"}, headers=stranger)
    assert (theirs.status_code, theirs.json()["code"]) == (404, "input_not_found")


WAITING = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
SOURCES = {
    "an input": ("input_assets", "(task_id, user_id, input_asset_type, file_id)", "'photo'", "input"),
    "a concept": ("concept_images", "(task_id, user_id, prompt, file_id)", "'a fox'", "concept"),
    "a model": ("models", "(task_id, user_id, prompt, file_id)", "'a fox'", "model"),
}


@pytest.mark.parametrize("what", SOURCES)
@pytest.mark.parametrize("limited", [False, True], ids=["", "limited"])
async def test_a_row_that_its_owner_deletes_meanwhile_costs_only_the_reference(
    database: str, tmp_path: Path, what: str, limited: bool
) -> None:
    table, columns, value, kind = SOURCES[what]
    settings = settings_for(database, tmp_path, user_max_unfinished=9 if limited else None)
    async with gateway(settings) as gate:
        url = (await upload(gate, glb() if kind == "model" else picture())).json()["asset_url"]
        file_id = await gate.db.fetchval("select id from makeit3d.files")
        await gate.db.execute("delete from input_assets")
        row_id = await gate.db.fetchval(
            f"insert into {table} {columns} values ('task-source-1', $1, {value}, $2) returning id",  # noqa: S608
            gate.user_id,
            file_id,
        )
        if kind == "model":
            path, body = "/generate/refine-model", {"input_model_asset_url": url, "prompt": "oak"}
        else:
            path, body = "/generate/image-to-model", {"input_image_asset_urls": [url]}
        owner = await asyncpg.connect(database)
        try:
            async with owner.transaction():
                await owner.execute(f"delete from {table} where id = $1", row_id)  # noqa: S608
                asked = asyncio.create_task(gate.post(path, json={"task_id": "task-source-2", **body}))
                async with asyncio.timeout(20):
                    while not asked.done() and not await gate.db.fetchval(WAITING):
                        await asyncio.sleep(0.01)
                assert not asked.done(), (await asked).text
        finally:
            await owner.close()
        answer = await asked
        assert answer.status_code == 202, answer.text
        made = await gate.db.fetchrow("select * from models where task_id = 'task-source-2'")
        assert made is not None
        assert (made["source_input_asset_id"], made["source_concept_image_id"], made["source_model_id"]) == (None,) * 3


async def test_a_model_becomes_an_input_and_ids_are_made(gate: Gateway) -> None:
    asset = UploadedAsset.model_validate((await upload(gate, glb())).json())
    assert (asset.content_type, asset.input_asset_type, asset.width) == ("model/gltf-binary", "uploaded_model", None)
    assert UUID(asset.task_id)


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 422, "input_empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 422, "input_not_image"),
        (b"<!doctype html>" + b" " * 250_000, 422, "input_not_image"),
        (picture()[:-600], 422, "input_truncated"),
        (picture("GIF"), 422, "input_not_image"),
        (picture() + b"\0" * 200_000, 413, "input_too_large"),
        (picture(size=(8, 8)), 422, "input_too_small"),
        (glb()[:-1], 422, "input_not_model"),
        (glb() + b"\0" * 300_000, 413, "input_too_large"),
    ],
    ids=["empty", "svg", "html", "cut", "gif", "large", "small", "cut glb", "large glb"],
)
async def test_what_can_not_be_an_input_is_refused(gate: Gateway, content: bytes, status: int, code: str) -> None:
    answer = await upload(gate, content)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert await bucket(gate) == {}
    assert await gate.db.fetchval("select count(*) from makeit3d.files") == 0
    assert list(gate.services.settings.spool_directory.iterdir()) == []


async def test_bad_forms_are_refused(gate: Gateway) -> None:
    fields = [
        ({"task_id": "no"}, "task_id"),
        ({"task_id": "task-upload-\x00"}, "task_id"),
        ({"input_asset_type": "A B"}, "input_asset_type"),
        ({"colour": "red"}, "colour"),
        ({"task_id": "x" * 2000}, "task_id"),
    ]
    for data, name in fields:
        answer = await upload(gate, picture(), **data)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, name)
    without = await gate.post("/uploads", files={"task_id": (None, b"task-upload-3")})
    assert (without.status_code, without.json()["errors"][0]["code"]) == (422, "missing")
    for content_type, code in (
        ("application/json", "unsupported_media_type"),
        ("multipart/form-data", "malformed_request"),
        ("multipart/form-data; boundary=x", "malformed_request"),
    ):
        answer = await gate.post("/uploads", content=b"{}", headers={"Content-Type": content_type})
        assert answer.json()["code"] == code


async def test_sizes_are_capped_whatever_is_declared(gate: Gateway) -> None:
    too_much = 300_000 + 100_000
    answer = await gate.post("/uploads", content=b"x" * too_much, headers={"Content-Type": "multipart/form-data"})
    assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")

    async def endless() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="task_id"\r\n\r\n'
        while True:  # until the server closes
            yield b"y" * 65_536

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    try:
        answer = await gate.post("/uploads", content=endless(), headers=headers)
    except httpx.TransportError:
        pass  # closed before the answer could be read
    else:
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "string_too_long")

    async def padded() -> AsyncIterator[bytes]:
        yield b'{"task_id": "task-upload-4", "prompt": "'
        for _ in range(40):
            yield b"z" * 65_536

    headers = {"Content-Type": "application/json"}
    answer = await gate.post("/generate/text-to-image", content=padded(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")


async def test_an_upload_into_somebody_elses_task_is_refused(gate: Gateway) -> None:
    await accept(gate.db, image_plan(await gate.another_user(), "task-upload-5"))
    answer = await upload(gate, picture(), task_id="task-upload-5")
    assert (answer.status_code, answer.json()["code"]) == (404, "task_not_found")
    nobody = await gate.http.post("/uploads", files={"file": picture()}, headers=gate.headers(uuid4()))
    assert (nobody.status_code, nobody.json()["code"]) == (401, "unauthenticated")
    assert (await gate.http.post("/uploads", files={"file": picture()})).status_code == 401


async def test_a_private_bucket_is_read_through_links_of_ours(settings: Settings) -> None:
    async with gateway(settings) as gate:
        asset = (await upload(gate, picture())).json()
        link = httpx.URL(asset["asset_url"])
        assert str(link).startswith(f"{settings.public_base_url}/assets/")
        path = f"{link.path}?{link.query.decode()}"
        answer = await gate.http.get(path)
        assert answer.status_code == 302
        assert f"/object/sign/{INPUTS}/{gate.user_id}/" in answer.headers["location"]
        assert answer.headers["cache-control"].startswith("private, max-age=")
        assert answer.headers["referrer-policy"] == "no-referrer"
        head = await gate.http.head(path)
        assert (head.status_code, head.content) == (302, b"")
        body = {"task_id": "task-content-1", "prompt": "a fox", "input_image_asset_url": asset["asset_url"]}
        assert (await gate.post("/generate/image-to-image", json=body)).status_code == 202

        for wrong in (str(link.path), f"{link.path}?key=", f"{path}x", f"/assets/{uuid4()}/content?key=k"):
            answer = await gate.http.get(wrong)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        answer = await gate.http.get(f"/assets/%00/content?key={'é' * 10}")
        assert answer.status_code == 404

        await gate.db.execute("update makeit3d.files set content_type = 'text/html'")
        assert (await gate.http.get(path)).headers["location"].endswith("&download=")
        await gate.db.execute("update makeit3d.files set content_key = null")  # revoked
        assert (await gate.http.get(path)).status_code == 404


async def test_without_its_object_a_link_leads_nowhere(settings: Settings) -> None:
    async with gateway(settings) as gate:
        link = httpx.URL((await upload(gate, picture())).json()["asset_url"])
        await gate.services.storage.remove(INPUTS, list(await bucket(gate)))
        answer = await gate.http.get(f"{link.path}?{link.query.decode()}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@dataclass
class Failing(MemoryStorage):
    """No upload gets an answer."""

    async def upload(self, bucket: str, key: str, source: Path, *, content_type: str) -> None:
        await super().upload(bucket, key, source, content_type=content_type)
        raise StorageUnavailable("no answer")


async def test_a_storage_that_does_not_answer_is_worth_a_repeat(settings: Settings) -> None:
    async with gateway(settings, storage_kind=Failing) as gate:
        answer = await upload(gate, picture())
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
        assert answer.json()["retryable"]
        assert int(answer.headers["retry-after"]) > 0
        # the manifest remembers that something may lie there
        assert await gate.db.fetchval("select state from makeit3d.files") == "uploading"
        assert await gate.db.fetchval("select count(*) from input_assets") == 0


@dataclass
class Narrow(MemoryStorage):
    limits: Mapping[str, int] = field(default_factory=lambda: {INPUTS: 1_000})


@dataclass
class NarrowProject(MemoryStorage):
    max_bytes: int | None = 1_000


@dataclass
class Picky(MemoryStorage):
    types: Mapping[str, Collection[str]] = field(default_factory=lambda: {INPUTS: ("image/webp",)})


@pytest.mark.parametrize(
    ("kind", "status", "code", "words"),
    [
        (Narrow, 413, "storage_refused_size", (f"bucket {INPUTS}", "1,000", "file size limit")),
        (NarrowProject, 413, "storage_refused_size", ("project's upload limit",)),
        (Picky, 415, "storage_refused_type", (INPUTS, "image/png", "allowed MIME types")),
    ],
)
async def test_what_storage_refuses_for_good_is_not_worth_a_repeat(
    settings: Settings, kind: type[MemoryStorage], status: int, code: str, words: tuple[str, ...]
) -> None:
    async with gateway(settings, storage_kind=kind) as gate:
        content = picture()
        answer = await upload(gate, content)
        body = answer.json()
        assert (answer.status_code, body["code"], body["retryable"]) == (status, code, False)
        assert "retry-after" not in answer.headers
        assert all(word in body["detail"] for word in words), body["detail"]
        assert status == 415 or f"{len(content):,} bytes" in body["detail"]
        assert await gate.db.fetchval("select state from makeit3d.files") == "removed"
        assert await gate.db.fetchval("select count(*) from input_assets") == 0
        assert list(settings.spool_directory.iterdir()) == []


async def trickle(gate: Gateway, headers: Mapping[str, str], sent: bytes) -> asyncio.StreamWriter:
    """An upload that declares the most it may and goes no further than ``sent``."""
    _, writer = await asyncio.open_connection("127.0.0.1", gate.http.base_url.port)
    head = "".join(
        f"{name}: {value}\r\n"
        for name, value in {
            **headers,
            "Host": "x",
            "Content-Type": "multipart/form-data; boundary=b",
            "Content-Length": str(gate.services.settings.max_model_bytes),
        }.items()
    )
    writer.write(f"POST /uploads HTTP/1.1\r\n{head}\r\n".encode() + PART + sent)
    await writer.drain()
    return writer


def reserved() -> float:
    return REGISTRY.get_sample_value("makeit3d_spool_reserved_bytes") or 0


async def test_uploads_that_only_declare_block_nobody(database: str, tmp_path: Path) -> None:
    """28 of five users, which together declare far more than the disk has."""
    settings = settings_for(database, tmp_path, spool_bytes=16 * 2**20, max_model_bytes=2 * 2**20)
    async with gateway(settings) as gate:
        users = [gate.headers(await gate.another_user()) for _ in range(5)]
        writers = [await trickle(gate, users[number % 5], picture()[:100]) for number in range(28)]
        async with asyncio.timeout(20):
            while len(list(settings.spool_directory.iterdir())) < len(writers):  # all are under way
                await asyncio.sleep(0.01)
        async with asyncio.timeout(20):
            assert (await upload(gate, picture())).status_code == 201
        for writer in writers:
            writer.close()


async def test_uploads_that_fill_the_disk_block_nobody_else(database: str, tmp_path: Path) -> None:
    settings = settings_for(
        database, tmp_path, spool_bytes=16 * 2**20, max_input_bytes=6 * 2**20, max_model_bytes=6 * 2**20
    )
    async with gateway(settings) as gate:
        greedy = gate.headers(await gate.another_user())
        before = reserved()
        sent = picture() + bytes(5 * 2**20)  # most of a file; the rest never comes
        writers = [await trickle(gate, greedy, sent) for _ in range(4)]
        async with asyncio.timeout(20):
            while reserved() < 14 * 2**20:
                await asyncio.sleep(0.01)
        content = picture(size=(1500, 1500))
        assert len(content) > 2 * 2**20
        async with asyncio.timeout(20):
            answers = [await upload(gate, content) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [201, 201]
        for writer in writers:
            writer.close()
        async with asyncio.timeout(20):
            while reserved() != before:
                await asyncio.sleep(0.01)
        assert list(settings.spool_directory.iterdir()) == []


async def held_open(begun: asyncio.Event, let_go: asyncio.Event) -> AsyncIterator[bytes]:
    """The beginning of an upload, whose rest comes only when it is let go."""
    yield PART + picture()[:100]
    begun.set()
    await let_go.wait()


async def test_an_upload_that_stalls_gives_its_room_back(database: str, tmp_path: Path) -> None:
    settings = settings_for(database, tmp_path, upload_idle_seconds=0.3)
    async with gateway(settings) as gate:
        reader, writer = await asyncio.open_connection("127.0.0.1", gate.http.base_url.port)
        head = {
            "Host": "127.0.0.1",
            "Content-Type": "multipart/form-data; boundary=b",
            "Content-Length": "1000000",
            **gate.headers(),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        writer.write(f"POST /uploads HTTP/1.1\r\n{lines}\r\n".encode() + PART + picture()[:100])
        answer = (await reader.read()).decode()  # until the server closes
        writer.close()
        assert answer.startswith("HTTP/1.1 408 ")
        assert '"code":"upload_too_slow"' in answer
        assert "retry-after: " in answer.lower()
        assert list(settings.spool_directory.iterdir()) == []
        assert (await upload(gate, picture())).status_code == 201


async def test_a_user_has_so_many_uploads_at_a_time(database: str, tmp_path: Path) -> None:
    settings = settings_for(database, tmp_path, user_max_uploads=2)
    async with gateway(settings) as gate:
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        begun, let_go = (asyncio.Event(), asyncio.Event()), asyncio.Event()
        slow = [
            asyncio.create_task(gate.post("/uploads", content=held_open(event, let_go), headers=headers))
            for event in begun
        ]
        for event in begun:
            await event.wait()
        while len(list(settings.spool_directory.iterdir())) < len(slow):  # both have begun
            await asyncio.sleep(0.01)
        answer = await upload(gate, picture())
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_uploads")
        assert int(answer.headers["retry-after"]) > 0
        other = gate.headers(await gate.another_user())
        theirs = await gate.http.post("/uploads", files={"file": picture()}, headers=other)
        assert theirs.status_code == 201
        let_go.set()
        assert [(await cut).status_code for cut in slow] == [400, 400]  # the form is cut short
        assert (await upload(gate, picture())).status_code == 201
