"""One suite for every implementation of the provider protocols: the shipped fakes, and the real clients against the
sandbox's wire formats in a real server."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import uvicorn
from app.ai_clients.base import (
    Capability,
    FileInput,
    ImageRequest,
    ModelRequest,
    ProviderTask,
    ProviderTaskState,
    SynchronousProvider,
)
from app.ai_clients.errors import OutcomeUnknown, Refused, SendRevoked
from app.ai_clients.http.client import shared_ssl_context
from app.ai_clients.openai.client import OpenAIImages
from app.ai_clients.registry import build_registry
from app.ai_clients.tripo.client import TripoModels
from app.config import Settings
from app.domain.operations import ModelOptions, View
from app.errors import ErrorCode
from app.sandbox.providers.mount import mount_providers
from app.sandbox_settings import SandboxSettings
from fastapi import FastAPI
from PIL import Image, ImageDraw

from tests.fake_providers import FakeImages, FakeModels, unwatched
from tests.servers import free_port

Models = FakeModels | TripoModels  # they also tell their balance

LIMIT = 64 * 1024 * 1024
PATIENCE = 180.0  # seconds
BARE = ModelOptions(texture=False, face_limit=500)  # the least work
PLAIN = ModelOptions(texture_quality="standard")


@pytest.fixture(scope="session")
def sandbox_url(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = SandboxSettings.model_validate(
        {
            "home": tmp_path_factory.mktemp("sandbox"),
            "port": port,
            "public_url": url,
            "database_url": "postgresql://nobody@localhost/unused",
            "work_seconds": 0.1,
        }
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with stand_ins.running():
            yield

    app = FastAPI(lifespan=lifespan)
    stand_ins = mount_providers(app, settings)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + PATIENCE
    while not server.started:
        assert time.monotonic() < deadline
        assert thread.is_alive()
        time.sleep(0.01)
    yield url
    server.should_exit = True
    thread.join(timeout=PATIENCE)


def sandbox_settings(url: str) -> Settings:
    return build_registry().settings.model_validate(
        {
            "environment": "sandbox",
            "supabase_url": f"{url}/supabase",
            "supabase_service_key": "unused",
            "database_url": "postgresql://nobody@localhost/unused",
            "redis_url": "redis://localhost/0",
            "openai_api_key": "sk-sandbox",
            "openai_base_url": f"{url}/openai/v1",
            "tripo_api_key": "tsk_sandbox",
            "tripo_base_url": f"{url}/tripo/v3",
            "tripo_download_hosts": "127.0.0.1",
            "tripo_poll_seconds": 0.05,
        }
    )


@pytest.fixture(params=["fake", "real"])
async def images(request: pytest.FixtureRequest) -> AsyncGenerator[SynchronousProvider]:
    provider: SynchronousProvider
    if request.param == "fake":
        provider = FakeImages()
    else:
        provider = OpenAIImages(sandbox_settings(request.getfixturevalue("sandbox_url")), shared_ssl_context())
    yield provider
    await provider.aclose()


@pytest.fixture(params=["fake", "real"])
async def models(request: pytest.FixtureRequest) -> AsyncGenerator[Models]:
    provider: Models
    if request.param == "fake":
        provider = FakeModels()
    else:
        provider = TripoModels(sandbox_settings(request.getfixturevalue("sandbox_url")), shared_ssl_context())
    yield provider
    await provider.aclose()


def drawing(path: Path, colour: str = "firebrick") -> FileInput:
    picture = Image.new("RGB", (320, 320), "white")
    ImageDraw.Draw(picture).ellipse((60, 90, 260, 280), fill=colour, outline="black", width=4)
    out = io.BytesIO()
    picture.save(out, "PNG")
    path.write_bytes(out.getvalue())
    return FileInput(path, "image/png", path.name)


# --- images -----------------------------------------------------------------------------------------------------


def test_image_operations(images: SynchronousProvider) -> None:
    wanted = {Capability.TEXT_TO_IMAGE, Capability.IMAGE_TO_IMAGE, Capability.SKETCH_TO_IMAGE}
    assert images.capabilities.keys() >= wanted
    assert images.timeout_seconds > 0
    assert images.pool(ImageRequest("x")) == images.name


async def test_pictures_from_words(images: SynchronousProvider, tmp_path: Path) -> None:
    request = ImageRequest("a small wooden boat", n=2, size="1024x1024", quality="low")
    estimate = images.estimate(request)
    assert estimate.micros > 0
    assert estimate.price_version
    receipt = await images.send(request, reply=tmp_path / "reply", before_first_byte=unwatched)
    assert receipt.path == tmp_path / "reply"
    assert receipt.provider_request_id
    result = await images.decode(receipt.path, request, directory=tmp_path / "out")
    assert len(result.files) == 2
    seen: set[bytes] = set()
    for image in result.files:
        assert image is not None
        assert image.size == image.path.stat().st_size
        with Image.open(image.path) as picture:
            assert picture.size == (image.width, image.height)
            assert picture.get_format_mimetype() == image.content_type
        seen.add(image.path.read_bytes())
    assert len(seen) == 2
    assert 0 < result.cost_micros <= estimate.micros
    assert result.price_version == estimate.price_version
    # another process may have to decode it again after a crash
    again = await images.decode(receipt.path, request, directory=tmp_path / "again")
    assert [i and i.path.read_bytes() for i in again.files] == [i and i.path.read_bytes() for i in result.files]
    assert again.cost_micros == result.cost_micros


async def test_pictures_from_a_picture(images: SynchronousProvider, tmp_path: Path) -> None:
    request = ImageRequest("make it blue", quality="low", inputs=(drawing(tmp_path / "in.png"),))
    receipt = await images.send(request, reply=tmp_path / "reply", before_first_byte=unwatched)
    result = await images.decode(receipt.path, request, directory=tmp_path / "out")
    assert [image is not None for image in result.files] == [True]


async def test_a_paid_call_says_when_it_leaves_and_can_be_held_back(
    images: SynchronousProvider, tmp_path: Path
) -> None:
    request = ImageRequest("a small wooden boat", quality="low")
    departures: list[str] = []

    async def leaving() -> None:
        departures.append("left")

    await images.send(request, reply=tmp_path / "reply", before_first_byte=leaving)
    assert departures == ["left"]
    with pytest.raises(Refused):
        await images.send(request, reply=tmp_path / "other", before_first_byte=revoked)
    assert not (tmp_path / "other").exists()


async def revoked() -> None:
    raise SendRevoked("no")


# --- models -----------------------------------------------------------------------------------------------------


async def test_a_submission_says_when_it_leaves_and_can_be_held_back(models: Models) -> None:
    prepared = await models.prepare(ModelRequest(Capability.TEXT_TO_MODEL, prompt="a boat", options=BARE))
    departures: list[str] = []

    async def leaving() -> None:
        departures.append("left")

    since = datetime.now(UTC) - timedelta(seconds=5)
    with pytest.raises(Refused):
        await models.send(prepared, before_first_byte=revoked)
    assert await models.find_submitted(prepared.fingerprint, since=since, known_ids=frozenset()) == []
    task_id = await models.send(prepared, before_first_byte=leaving)
    assert departures == ["left"]
    await finished(models, task_id)


async def finished(models: Models, task_id: str) -> ProviderTask:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        task = (await models.poll([task_id]))[task_id]
        if task.state is not ProviderTaskState.RUNNING:
            return task
        assert task.output_url is None
        await asyncio.sleep(models.poll_seconds)
    raise AssertionError("the task did not end")


async def made(models: Models, spec: ModelRequest, target: Path) -> ProviderTask:
    """A submitted, finished and downloaded task."""
    estimate = models.estimate(spec)
    task_id = await models.send(await models.prepare(spec), before_first_byte=unwatched)
    task = await finished(models, task_id)
    assert task.state is ProviderTaskState.SUCCEEDED
    assert task.id == task_id
    assert task.cost_micros == estimate.micros
    assert task.output_url is not None
    file = await models.download(task.output_url, target, max_bytes=LIMIT)
    assert (file.path, file.size) == (target, target.stat().st_size)
    expected = "image/png" if spec.capability is Capability.SKETCH_TO_IMAGE else "model/gltf-binary"
    assert file.content_type == expected
    return task


def test_model_operations(models: Models) -> None:
    wanted = {Capability.TEXT_TO_MODEL, Capability.IMAGE_TO_MODEL, Capability.TEXTURE_MODEL}
    assert models.capabilities.keys() >= wanted
    pools = {models.pool(ModelRequest(kind)) for kind in models.capabilities}
    assert all(pool.startswith(f"{models.name}_") for pool in pools)


async def test_a_model_from_words(models: Models, tmp_path: Path) -> None:
    before = await models.balance()
    spec = ModelRequest(Capability.TEXT_TO_MODEL, prompt="a small boat")
    task = await made(models, spec, tmp_path / "model.glb")
    assert task.preview_url is not None
    preview = await models.download(task.preview_url, tmp_path / "preview", max_bytes=LIMIT)
    assert preview.content_type.startswith("image/")
    after = await models.balance()
    assert before.unit == after.unit == "credits"
    assert task.credits is not None
    assert before.available + before.frozen - after.available - after.frozen == task.credits
    await refused_downloads(models, task, tmp_path / "bounded")


async def refused_downloads(models: Models, task: ProviderTask, target: Path) -> None:
    assert task.output_url is not None
    for url, code in (
        (task.output_url, ErrorCode.PROVIDER_RESULT_TOO_LARGE),
        ("https://elsewhere.example/model.glb", ErrorCode.PROVIDER_RESULT_INVALID),
    ):
        with pytest.raises(Refused) as caught:
            await models.download(url, target, max_bytes=100)
        assert caught.value.code is code
    assert not target.exists()


async def test_a_model_from_pictures(models: Models, tmp_path: Path) -> None:
    views: Mapping[View, FileInput] = {
        "front": drawing(tmp_path / "f.png"),
        "back": drawing(tmp_path / "b.png", "navy"),
    }
    front: Mapping[View, FileInput] = {"front": views["front"]}
    await made(models, ModelRequest(Capability.IMAGE_TO_MODEL, views=front, options=BARE), tmp_path / "one.glb")
    await made(models, ModelRequest(Capability.MULTIVIEW_TO_MODEL, views=views, options=BARE), tmp_path / "two.glb")


async def test_a_sketch_becomes_a_picture_and_its_task_a_model(models: Models, tmp_path: Path) -> None:
    spec = ModelRequest(Capability.SKETCH_TO_IMAGE, prompt="a red ball", views={"front": drawing(tmp_path / "s.png")})
    picture = await made(models, spec, tmp_path / "picture")
    await made(
        models, ModelRequest(Capability.IMAGE_TO_MODEL, source_task_id=picture.id, options=BARE), tmp_path / "model.glb"
    )


async def test_a_model_is_imported_and_refined(models: Models, tmp_path: Path) -> None:
    mesh = tmp_path / "mesh.glb"
    draft = await made(models, ModelRequest(Capability.TEXT_TO_MODEL, prompt="a boat", options=BARE), mesh)
    refined = ModelRequest(Capability.TEXTURE_MODEL, prompt="weathered oak", source_task_id=draft.id, options=PLAIN)
    await made(models, refined, tmp_path / "refined.glb")
    file = FileInput(mesh, "model/gltf-binary", "mesh.glb")
    imported = await models.send(
        await models.prepare(ModelRequest(Capability.IMPORT_MODEL, model_file=file)), before_first_byte=unwatched
    )
    task = await finished(models, imported)
    assert (task.state, task.cost_micros) == (ProviderTaskState.SUCCEEDED, 0)
    again = ModelRequest(Capability.TEXTURE_MODEL, prompt="brass", source_task_id=imported, options=PLAIN)
    await made(models, again, tmp_path / "again.glb")


async def test_what_nobody_knows_is_missing(models: Models) -> None:
    unknown = "00000000-0000-4000-8000-000000000000"
    assert (await models.poll([unknown]))[unknown].state is ProviderTaskState.MISSING


async def test_every_call_can_be_found_again(models: Models, tmp_path: Path) -> None:
    since = datetime.now(UTC) - timedelta(seconds=1)
    specs = [
        ModelRequest(Capability.TEXT_TO_MODEL, prompt="a boat", options=BARE),
        ModelRequest(Capability.TEXT_TO_MODEL, prompt="a boat", options=BARE),
        ModelRequest(Capability.SKETCH_TO_IMAGE, prompt="a ball", views={"front": drawing(tmp_path / "s.png")}),
    ]
    calls = [await models.prepare(spec) for spec in specs]
    ids = [await models.send(call, before_first_byte=unwatched) for call in calls]
    for call, task_id in zip(calls, ids, strict=True):
        assert await models.find_submitted(call.fingerprint, since=since, known_ids=frozenset()) == [task_id]
        assert await models.find_submitted(call.fingerprint, since=since, known_ids=frozenset(ids)) == []
    never_sent = await models.prepare(specs[0])
    assert await models.find_submitted(never_sent.fingerprint, since=since, known_ids=frozenset()) == []
    for task_id in ids:
        await finished(models, task_id)


# --- what the sandbox can break: real clients only ---------------------------------------------------------------


@pytest.fixture
async def admin(sandbox_url: str) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=f"{sandbox_url}/admin", headers={"X-Admin-Key": "sandbox-admin"}, trust_env=False
    ) as client:
        yield client
        await client.delete("/faults")


async def arm(admin: httpx.AsyncClient, where: str, kind: str, **more: object) -> None:
    (await admin.post("/faults", json={"where": where, "kind": kind, **more})).raise_for_status()


async def charges(admin: httpx.AsyncClient) -> int:
    return len((await admin.get("/ledger")).raise_for_status().json())


@pytest.fixture
async def tripo(sandbox_url: str) -> AsyncGenerator[TripoModels]:
    client = TripoModels(sandbox_settings(sandbox_url), shared_ssl_context())
    yield client
    await client.aclose()


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("reset_after", {}),
        ("truncated_after", {}),
        ("empty_after", {}),
        ("no_id_after", {}),
        ("status_after", {"status": 502}),
        ("status_after", {"status": 500, "body": {"code": 1001, "status": "error"}}),
    ],
)
async def test_a_create_whose_answer_is_lost_is_paid_once_and_found(
    tripo: TripoModels, admin: httpx.AsyncClient, kind: str, more: dict[str, object]
) -> None:
    since = datetime.now(UTC) - timedelta(seconds=1)
    before = await charges(admin)
    await arm(admin, "tripo.task", "failed")
    await arm(admin, "tripo.submit", kind, **more)
    call = await tripo.prepare(ModelRequest(Capability.TEXT_TO_MODEL, prompt="a boat", options=BARE))
    with pytest.raises(OutcomeUnknown):
        await tripo.send(call, before_first_byte=unwatched)
    assert await charges(admin) == before + 1
    found = await tripo.find_submitted(call.fingerprint, since=since, known_ids=frozenset())
    assert len(found) == 1
    task = await finished(tripo, found[0])
    assert (task.state, task.cost_micros) == (ProviderTaskState.FAILED, 0)


async def test_a_create_that_never_arrived_is_not_found(tripo: TripoModels, admin: httpx.AsyncClient) -> None:
    since = datetime.now(UTC) - timedelta(seconds=1)
    before = await charges(admin)
    await arm(admin, "tripo.submit", "reset_before")
    call = await tripo.prepare(ModelRequest(Capability.TEXT_TO_MODEL, prompt="a boat", options=BARE))
    with pytest.raises(OutcomeUnknown):
        await tripo.send(call, before_first_byte=unwatched)
    assert await tripo.find_submitted(call.fingerprint, since=since, known_ids=frozenset()) == []
    assert await charges(admin) == before


@pytest.mark.parametrize("kind", ["reset_after", "truncated_after", "empty_after"])
async def test_pictures_whose_answer_is_lost_are_paid_once(
    sandbox_url: str, admin: httpx.AsyncClient, tmp_path: Path, kind: str
) -> None:
    client = OpenAIImages(sandbox_settings(sandbox_url), shared_ssl_context())
    before = await charges(admin)
    await arm(admin, "openai", kind)
    request = ImageRequest("a boat", quality="low")

    async def pictures() -> None:
        receipt = await client.send(request, reply=tmp_path / "reply", before_first_byte=unwatched)
        await client.decode(receipt.path, request, directory=tmp_path / "out")

    with pytest.raises(OutcomeUnknown):
        await pictures()
    assert await charges(admin) == before + 1
    await client.aclose()
